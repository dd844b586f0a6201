//! Group keys. A group is a source of messages to which many sessions listen.

use std::fmt;

use crate::BackendKind;

/// Kinds of groups. The high byte is the kind of backend that owns the group; bit 7 of the low byte declares it
/// many-writer.
pub mod group_kind {
    /// All sessions of a world; number 0.
    pub const WORLD: u16 = 0x0100;
    /// One layer of a cell at full rate; namespace: layer in 16 bits, then the world in 32 bits; number:
    /// [`crate::CellId::number`].
    pub const CELL: u16 = 0x0200;
    /// One layer of a cell of the outer ring, at a slower rate. Same parts.
    pub const OUTER_CELL: u16 = 0x0201;
    /// A chat channel as one replica serves it; namespace: replica, number: channel.
    pub const CHANNEL: u16 = 0x0300;
}

/// 128 bits: kind (16), namespace of the owner (48), number (64).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupKey(u128);

impl GroupKey {
    const NAMESPACE: u64 = (1 << 48) - 1;

    /// Bits of `namespace` above the lowest 48 are dropped.
    pub fn new(kind: u16, namespace: u64, number: u64) -> Self {
        Self(u128::from(kind) << 112 | u128::from(namespace & Self::NAMESPACE) << 64 | u128::from(number))
    }

    pub fn kind(self) -> u16 {
        (self.0 >> 112) as u16
    }

    pub fn namespace(self) -> u64 {
        (self.0 >> 64) as u64 & Self::NAMESPACE
    }

    pub fn number(self) -> u64 {
        self.0 as u64
    }

    pub fn backend(self) -> BackendKind {
        BackendKind((self.kind() >> 8) as u8)
    }

    pub fn many_writer(self) -> bool {
        self.kind() & 0x80 != 0
    }
}

impl fmt::Debug for GroupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}/{}/{:#x}", self.kind(), self.namespace(), self.number())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn group_key_parts_round_trip() {
        let key = GroupKey::new(group_kind::CELL, 42, u64::MAX);
        assert_eq!((key.kind(), key.namespace(), key.number()), (group_kind::CELL, 42, u64::MAX));
        assert_eq!(key.backend(), BackendKind::ZONE);
        assert!(!key.many_writer());
        assert!(GroupKey::new(0x4081, 0, 0).many_writer());
    }
}
