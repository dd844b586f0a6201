//! Recognises state in a datagram that is older than the state already received. Datagrams overtake each other, and
//! records overtake datagrams.

use bytes::Bytes;
use shardkeep_wire::{Kind, Message, opcode};

/// The tick of the newest avatar state, whether a datagram or a record brought it.
#[derive(Debug, Default)]
pub(super) struct StaleFilter(Option<u32>);

impl StaleFilter {
    /// Whether a message from a datagram is used: it must be avatar state, and not older than the newest known one.
    pub(super) fn accepts(&self, message: &Message<Bytes>) -> bool {
        let carried = (message.kind(), message.opcode) == (Kind::State, opcode::AVATAR);
        carried
            && tick(message)
                .is_some_and(|tick| self.0.is_none_or(|newest| tick.wrapping_sub(newest) <= u32::MAX / 2))
    }

    pub(super) fn observe(&mut self, message: &Message<Bytes>) {
        if message.opcode == opcode::AVATAR {
            self.0 = tick(message).or(self.0);
        }
    }
}

/// The first four bytes of an avatar.
fn tick(message: &Message<Bytes>) -> Option<u32> {
    message.payload.first_chunk().map(|tick| u32::from_le_bytes(*tick))
}

#[cfg(test)]
mod tests {
    use shardkeep_wire::Head;

    use super::*;

    fn state(opcode: u16, tick: u32) -> Message {
        Message::new(opcode, Head::State { class: 0, key: 0 }, tick.to_le_bytes().to_vec().into())
    }

    #[test]
    fn stale_avatar_datagram_is_rejected() {
        let mut newest = StaleFilter::default();
        newest.observe(&state(opcode::AVATAR, 7));
        newest.observe(&state(opcode::CELL, 9));
        let admitted = [6, 7, 8].map(|tick| newest.accepts(&state(opcode::AVATAR, tick)));
        assert_eq!(admitted, [false, true, true]);
        newest.observe(&state(opcode::AVATAR, u32::MAX));
        assert!(newest.accepts(&state(opcode::AVATAR, 2)), "ticks turn around");
        assert!(!newest.accepts(&state(opcode::CELL, 9)), "cells do not come by datagram");
        assert!(!newest.accepts(&Message::new(opcode::AVATAR, Head::Event, vec![0; 25].into())));
    }
}
