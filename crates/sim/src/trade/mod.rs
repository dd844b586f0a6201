//! Trades between two avatars: the state of one trade, and the rules that change it.

mod rules;
mod state;

pub(crate) use state::{ConfirmOutcome, Side, Trade};
