//! Revocations: raised session generations of accounts, which end older sessions. Every replica polls the store for
//! generations that any replica raised. Every gateway follows one replica. A gateway that reconnects sends the sessions it
//! holds, and receives those that have ended. Closed worlds reach gateways the same way.

pub(crate) mod hub;
pub(crate) mod poller;
pub(crate) mod service;
pub(crate) mod watchers;
mod window;
