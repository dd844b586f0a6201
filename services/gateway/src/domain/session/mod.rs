//! A session: one player's presence, which outlives the connections that carry it.
//!
//! [`Session`] is what connections, links and groups share. Its [`State`] stands behind one short lock. Links and groups
//! only append; the connection that carries the session is woken to write.
//!
//! Locks are taken in the order groups → session → link, and never held across an `await`.

mod bindings;
mod delayed;
mod effect;
mod ending;
mod inputs;
mod keys;
mod moving;
mod outbox;
mod requests;
mod shared;
mod snapshot;
mod state;
mod waker;
mod world_record;

pub(crate) use bindings::BindRequester;
pub(crate) use effect::{BackendEffect, Effects};
pub(crate) use ending::{Ending, RETRY};
pub(crate) use inputs::Deliver;
pub(crate) use keys::{ResumeClaim, ResumeKeys};
pub(crate) use outbox::Outbox;
pub(crate) use shared::{Identity, Session};
pub(crate) use snapshot::{HeldBinding, Snapshot};
pub(crate) use state::{BindOutcome, LeaderBinding, State};
