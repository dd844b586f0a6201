//! Leadership of a world: the database's lease decides which instance leads, and a candidate renews it.

mod candidate;
mod state;

pub(crate) use candidate::Candidate;
pub(crate) use state::{Leadership, LeadershipChange, LeaseAnswer};
