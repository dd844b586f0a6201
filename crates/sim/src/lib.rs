//! The game world of one zone as two pure functions: `apply(input) → events` when an input arrives, and `tick(now) →
//! events` at a fixed rate. It uses no clock, socket, runtime or global randomness, so that a zone can be replayed,
//! tested and measured without them.
//!
//! The simulation never changes hard state (items, coins, experience). It asks for a commit ([`Event::Commit`]), and
//! [`Input::Committed`] brings the outcome from the database.

#![warn(clippy::float_arithmetic, clippy::iter_over_hash_type)]

mod actions;
mod apply;
mod body;
mod cells;
mod commit_result;
mod creatures;
mod event;
mod input;
pub mod load;
mod lookup;
mod map;
mod maps;
mod pending_commits;
mod perceive;
mod ring;
pub mod rules;
mod sim;
mod snapshot;
mod stage;
pub mod template;
mod tick;
mod trade;
mod vector;

pub use event::{
    Appearance, CellForm, CellUpdate, Entry, Event, Kind, OwnState, Refusal, RemovalReason, Reply,
    TradeSideView, TradeState, TradeView,
};
pub use input::{
    Act, ActionKey, CreatureState, Effect, EffectResult, EnteringAvatar, GhostState, Goal, HardChange, Input,
    Intent, Item, Outcome, Possessions, Requester, Reward, SpawnState, TradeContribution,
};
pub use map::{Map, SQUARE_MM, SpawnPoint, WalkGrid};
pub use perceive::{Neighbour, Perception};
pub use ring::Ring;
pub use shardkeep_types::Random;
pub use sim::{AvatarView, Counts, EntityView, Sim};
pub use snapshot::{SCHEMA, SnapshotError};
pub use template::Stack;
pub use tick::Stage;
