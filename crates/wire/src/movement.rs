//! Compact layouts of the hot path: a movement request, the player's own avatar, and the entities of a cell. See
//! `docs/protocol.md`, section 14.

use bytes::{BufMut, BytesMut};

use crate::{cursor::Cursor, message::Head};

mod cell;
mod error;

pub use cell::{Appearance, Cell, EntityKind, Entries, Entry, Form, RemovalReason, encode_cell};
pub use error::MovementError;
use error::expect_end;

/// Classes of state messages. Under pressure the gateway drops high classes first.
pub mod class {
    pub const OWN: u8 = 0;
    pub const NEAR: u8 = 1;
    pub const OUTER: u8 = 2;
}

/// Header of a `Move` or `Avatar`.
pub const OWN: Head = Head::State { class: class::OWN, key: 0 };

/// Header of a `Cell` of the near or outer ring; `number` is [`shardkeep_types::CellId::number`].
pub const fn cell_head(number: u64, outer: bool) -> Head {
    Head::State { class: if outer { class::OUTER } else { class::NEAR }, key: number }
}

/// Requested movement of an avatar, valid until the next request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Move {
    /// Sequence number; increases with every `Move` of the session.
    pub sequence: u32,
    /// Requested velocity in mm/s.
    pub velocity: [i16; 2],
    /// In 1/256 turns, counter-clockwise from +x.
    pub facing: u8,
}

impl Move {
    pub const LENGTH: usize = 9;

    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u32_le(self.sequence);
        self.velocity.into_iter().for_each(|v| out.put_i16_le(v));
        out.put_u8(self.facing);
    }

    pub fn decode(payload: &[u8]) -> Result<Self, MovementError> {
        let mut cursor = Cursor::new(payload);
        let decoded =
            Self { sequence: cursor.u32()?, velocity: [cursor.i16()?, cursor.i16()?], facing: cursor.u8()? };
        expect_end(cursor).map(|()| decoded)
    }
}

/// The player's own avatar in its zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Avatar {
    pub tick: u32,
    /// Sequence number of the last applied `Move`.
    pub sequence: u32,
    /// Distance from the map's corner, in mm.
    pub position: [i32; 2],
    /// Velocity in mm/s.
    pub velocity: [i16; 2],
    pub facing: u8,
    pub health: u16,
    pub max_health: u16,
}

impl Avatar {
    pub const LENGTH: usize = 25;

    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u32_le(self.tick);
        out.put_u32_le(self.sequence);
        self.position.into_iter().for_each(|mm| out.put_i32_le(mm));
        self.velocity.into_iter().for_each(|v| out.put_i16_le(v));
        out.put_u8(self.facing);
        out.put_u16_le(self.health);
        out.put_u16_le(self.max_health);
    }

    pub fn decode(payload: &[u8]) -> Result<Self, MovementError> {
        let mut cursor = Cursor::new(payload);
        let decoded = Self {
            tick: cursor.u32()?,
            sequence: cursor.u32()?,
            position: [cursor.i32()?, cursor.i32()?],
            velocity: [cursor.i16()?, cursor.i16()?],
            facing: cursor.u8()?,
            health: cursor.u16()?,
            max_health: cursor.u16()?,
        };
        expect_end(cursor).map(|()| decoded)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn move_round_trips(sequence: u32, velocity: [i16; 2], facing: u8) {
            let sent = Move { sequence, velocity, facing };
            let mut out = BytesMut::new();
            sent.encode(&mut out);
            prop_assert_eq!(out.len(), Move::LENGTH);
            prop_assert_eq!(Move::decode(&out), Ok(sent));
            out.put_u8(0);
            prop_assert_eq!(Move::decode(&out), Err(MovementError::Trailing));
        }

        #[test]
        fn avatar_round_trips(
            tick: u32, sequence: u32, position: [i32; 2], velocity: [i16; 2], facing: u8, health: u16, max_health: u16,
        ) {
            let avatar = Avatar { tick, sequence, position, velocity, facing, health, max_health };
            let mut out = BytesMut::new();
            avatar.encode(&mut out);
            prop_assert_eq!(out.len(), Avatar::LENGTH);
            prop_assert_eq!(Avatar::decode(&out), Ok(avatar));
            prop_assert_eq!(Avatar::decode(&out[1..]), Err(MovementError::Truncated));
        }
    }
}
