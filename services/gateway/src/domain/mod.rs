//! The state and the decisions of a gateway. Nothing here waits, opens a socket or calls another daemon. Methods
//! change the state that their module owns, and return the actions that follow.

pub(crate) mod balance;
pub(crate) mod closures;
pub(crate) mod costs;
pub(crate) mod groups;
pub(crate) mod incoming_sessions;
pub(crate) mod play_time;
pub(crate) mod routes;
pub(crate) mod session;
pub(crate) mod sessions;
pub(crate) mod tickets;
pub(crate) mod unchecked;
