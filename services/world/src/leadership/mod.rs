//! Leadership of a world. The database's lease decides which instance leads; a candidate takes and renews it.

mod candidate;
mod state;

pub(crate) use candidate::Candidate;
pub(crate) use state::{Leadership, LeadershipChange, LeaseAnswer};
