//! Where a world meets others: the task that owns it, links to gateways, and calls to and from other daemons.

pub(crate) mod actor;
mod call;
pub(crate) mod candidate;
mod convert;
mod layout;
mod lobby;
pub(crate) mod service;
mod status;
mod watchers;
mod work;
