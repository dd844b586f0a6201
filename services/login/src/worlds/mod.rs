//! The worlds that a player can choose from, and the ticket for the chosen one.

pub(crate) mod browse;
pub(crate) mod closures;
pub(crate) mod details;
pub(crate) mod gateways;
pub(crate) mod list;
pub(crate) mod prepaid;
pub(crate) mod tickets;
