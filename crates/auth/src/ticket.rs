//! The ticket chain (protocol section 8): login and client each hold it, every selected world takes the next link,
//! and what is taken is erased. Who steals the chain later learns nothing of tickets used before.

use shardkeep_types::TicketId;

use crate::crypto::{Key, expand};

/// One single-use right to attach. Its key never crosses the client's wire.
#[derive(Debug)]
pub struct Ticket {
    pub index: u32,
    pub id: TicketId,
    pub key: Key,
}

/// The links not taken yet.
#[derive(Debug)]
pub struct TicketChain {
    index: u32,
    key: Key,
}

impl TicketChain {
    pub(crate) fn new(key: Key) -> Self {
        Self { index: 0, key }
    }

    /// Index of the ticket that [`TicketChain::take`] would give.
    pub fn next_index(&self) -> u32 {
        self.index
    }

    /// Takes the next ticket; the chain moves on and cannot make it again.
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
