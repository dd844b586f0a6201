//! Where a gateway meets others: connections of clients, links to backends, calls to and from other daemons, and the
//! tasks that drive them.

pub(crate) mod billing;
pub(crate) mod connection;
mod deadline;
pub(crate) mod drain;
pub(crate) mod follow;
pub(crate) mod grpc;
mod items;
pub(crate) mod links;
mod moves;
mod opener;
pub(crate) mod present;
pub(crate) mod revocations;
pub(crate) mod sweep;
pub(crate) mod worlds;
