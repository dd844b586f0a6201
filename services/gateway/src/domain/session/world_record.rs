//! The last messages of the world about a session's character and its place in the queue. After a crash of the world's
//! leader, the gateway reports them to the new leader.

use shardkeep_link::{MessageKind, ServerMessage};
use shardkeep_wire::{
    opcode,
    payload::{Entered, QueuePosition},
};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct WorldRecord {
    character: u64,
    queue_place: u32,
}

impl WorldRecord {
    pub(crate) fn new(character: u64, queue_place: u32) -> Self {
        Self { character, queue_place }
    }

    pub(crate) fn character(&self) -> u64 {
        self.character
    }

    pub(crate) fn queue_place(&self) -> u32 {
        self.queue_place
    }

    /// Reads what a message of the world says. Returns true if the character has left the world.
    pub(crate) fn update(&mut self, message: &ServerMessage) -> bool {
        use prost::Message as _;
        match (message.kind, message.opcode) {
            (MessageKind::Event, opcode::QUEUE_POSITION) => {
                self.queue_place = QueuePosition::decode(&*message.payload).map_or(0, |queue| queue.place);
            }
            (MessageKind::Reply, opcode::ENTER) => {
                let character = Entered::decode(&*message.payload).map_or(0, |entered| entered.character_id);
                *self = Self { character, queue_place: 0 };
            }
            (MessageKind::Reply, opcode::LEAVE) => {
                self.character = 0;
                return true;
            }
            _ => {}
        }
        false
    }
}
