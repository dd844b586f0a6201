//! Identifiers. Numbers from the database are `u64`. Identifiers that must be hard to guess have 16 bytes, most of
//! them random.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::SpaceId;

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl From<$inner> for $name {
            fn from(value: $inner) -> Self {
                Self(value)
            }
        }
    };
}

number_id! {
    /// Number of an account, which one player owns. Assigned by the account store, from 1.
    AccountId(u64)
}
number_id! {
    /// Number of a character. Assigned by the database, from 1.
    CharacterId(u64)
}
number_id! {
    /// Number of a stack of items in the ledger. Assigned by the database, from 1.
    ItemId(u64)
}
number_id! {
    /// One game world of the region, from 1; 0 in messages means "no world in particular".
    WorldId(u32)
}
number_id! {
    /// One sector of the layout of a world, from 1. The world never uses a number again.
    SectorId(u32)
}

/// A spawn point: its space, and its number on the map of that space, below 2^28.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SpawnId {
    pub space: SpaceId,
    pub number: u32,
}

/// An entity in a space: an avatar, a creature or an item on the ground. The top four bits are the kind. Avatars and items
/// have the same id in every space; the id of a creature contains its space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EntityId(pub u64);

impl EntityId {
    const AVATAR: u64 = 1 << 60;
    const CREATURE: u64 = 2 << 60;
    const GROUND_ITEM: u64 = 3 << 60;
    const NUMBER: u64 = (1 << 60) - 1;
    const SPAWN_BITS: u32 = 28;

    pub fn avatar(character: CharacterId) -> Self {
        Self(Self::AVATAR | (character.0 & Self::NUMBER))
    }

    /// A creature by its spawn point. Only the lowest 28 bits of the number of the spawn point count.
    pub fn creature(spawn: SpawnId) -> Self {
        let number = u64::from(spawn.number) & ((1 << Self::SPAWN_BITS) - 1);
        Self(Self::CREATURE | u64::from(spawn.space.0) << Self::SPAWN_BITS | number)
    }

    pub fn ground_item(item: ItemId) -> Self {
        Self(Self::GROUND_ITEM | (item.0 & Self::NUMBER))
    }

    pub fn as_character(self) -> Option<CharacterId> {
        (self.0 & !Self::NUMBER == Self::AVATAR).then_some(CharacterId(self.0 & Self::NUMBER))
    }

    pub fn as_spawn(self) -> Option<SpawnId> {
        let number = self.0 & ((1 << Self::SPAWN_BITS) - 1);
        (self.0 & !Self::NUMBER == Self::CREATURE)
            .then_some(SpawnId { space: SpaceId((self.0 >> Self::SPAWN_BITS) as u32), number: number as u32 })
    }

    pub fn as_item(self) -> Option<ItemId> {
        (self.0 & !Self::NUMBER == Self::GROUND_ITEM).then_some(ItemId(self.0 & Self::NUMBER))
    }
}

impl fmt::Display for EntityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// The text or bytes are not an identifier of this type.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{what}: expected {expected}, got {got}")]
pub struct ParseIdError {
    what: &'static str,
    expected: &'static str,
    got: String,
}

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub struct $name(pub [u8; 16]);

        impl $name {
            pub fn as_bytes(&self) -> &[u8] {
                &self.0
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = ParseIdError;

            fn try_from(bytes: &[u8]) -> Result<Self, ParseIdError> {
                bytes.try_into().map(Self).map_err(|_| ParseIdError {
                    what: $what,
                    expected: "16 bytes",
                    got: format!("{} bytes", bytes.len()),
                })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                // Every player event contains ids, so all digits are written at once.
                const DIGITS: &[u8; 16] = b"0123456789abcdef";
                let mut text = [0; 32];
                for (byte, pair) in self.0.iter().zip(text.chunks_exact_mut(2)) {
                    pair[0] = DIGITS[usize::from(byte >> 4)];
                    pair[1] = DIGITS[usize::from(byte & 0xf)];
                }
                f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let wrong = || ParseIdError { what: $what, expected: "32 hexadecimal digits", got: format!("{text:?}") };
                if text.len() != 32 || !text.is_ascii() {
                    return Err(wrong());
                }
                let mut bytes = [0; 16];
                for (byte, at) in bytes.iter_mut().zip((0..32).step_by(2)) {
                    *byte = u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| wrong())?;
                }
                Ok(Self(bytes))
            }
        }
    };
}

random_id! {
    /// Identifies a session, which outlives connections and gateways: 48 bits with its start in milliseconds since
    /// the Unix epoch, from which any daemon can compute the play time, then 80 random bits.
    SessionId, "session id"
}
random_id! {
    /// Identifies a single-use ticket. Id and key are derived from the ticket chain.
    TicketId, "ticket id"
}

/// Identifies a running daemon. The name is stable over restarts. The incarnation is the start time in milliseconds
/// since the Unix epoch, or a larger number if the clock was set back: a later start always has a higher one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct InstanceId {
    pub kind: crate::DaemonKind,
    pub name: String,
    pub incarnation: u64,
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entity_id_encodes_its_type() {
        let avatar = EntityId::avatar(CharacterId(7));
        assert_eq!(avatar.as_character(), Some(CharacterId(7)));
        assert_eq!(avatar.as_spawn(), None);
        let spawn = |space, number| SpawnId { space: SpaceId(space), number };
        assert_eq!(EntityId::creature(spawn(u32::MAX, 9)).as_spawn(), Some(spawn(u32::MAX, 9)));
        assert_ne!(EntityId::creature(spawn(1, 9)), EntityId::creature(spawn(2, 9)));
        assert_eq!(EntityId::ground_item(ItemId(3)).as_item(), Some(ItemId(3)));
        assert_ne!(EntityId::ground_item(ItemId(3)), EntityId::creature(spawn(0, 3)));
    }

    #[test]
    fn session_id_text_round_trips() {
        let id = SessionId([0xab; 16]);
        assert_eq!(id.to_string().parse::<SessionId>(), Ok(id));
        assert!("xyz".parse::<SessionId>().unwrap_err().to_string().contains("32 hexadecimal digits"));
        assert!(SessionId::try_from(&[0u8; 3][..]).unwrap_err().to_string().contains("3 bytes"));
    }
}
