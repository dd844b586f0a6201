//! Proving a password: the handshake's steps, the threads for its exponentiations, and stand-ins for accounts that do
//! not exist.

pub(crate) mod decoys;
pub(crate) mod entry;
pub(crate) mod handshake;
pub(crate) mod lookup;
pub(crate) mod pool;
pub(crate) mod step_gate;
pub(crate) mod steps;
