//! Revocations: session generations of accounts that rose. Every replica polls the store for
//! generations that any replica raised. Every gateway follows one replica. A gateway that was disconnected says which
//! sessions it holds, and is told which of them have ended. Closed worlds reach gateways the same way.

pub(crate) mod hub;
pub(crate) mod poller;
pub(crate) mod service;
pub(crate) mod watchers;
mod window;
