//! The ticket chain (protocol section 8). Login and client each hold it. Every selected world takes the next link
//! and erases it, so a stolen chain reveals nothing about used tickets.

use shardkeep_types::TicketId;

use crate::crypto::{Key, expand};

/// A single-use right to attach. Its key never crosses the client's connection.
#[derive(Debug)]
pub struct Ticket {
    pub index: u32,
    pub id: TicketId,
    pub key: Key,
}

/// The unused links.
#[derive(Debug)]
pub struct TicketChain {
    index: u32,
    key: Key,
}

impl TicketChain {
    pub(crate) fn new(key: Key) -> Self {
        Self { index: 0, key }
    }

    /// Index of the ticket that [`TicketChain::take`] returns next.
    pub fn next_index(&self) -> u32 {
        self.index
    }

    /// Takes the next ticket. The chain advances and cannot produce it again.
    pub fn take(&mut self) -> Ticket {
        let ticket = Ticket {
            index: self.index,
            id: TicketId(*expand::<16>(&self.key, "shardkeep v1 ticket id").expose()),
            key: expand(&self.key, "shardkeep v1 ticket key"),
        };
        self.key = expand(&self.key, "shardkeep v1 ticket next");
        self.index = self.index.wrapping_add(1);
        ticket
    }
}
