//! The form of a chunk file.
//!
//! ```text
//! file  := magic (8 bytes) | version (u32) | block with the header | block*
//! block := length (u32) | CRC-32 of the payload (u32) | CRC-32 of the 8 bytes before (u32) | payload
//! ```
//!
//! Numbers are little-endian. The header and the records are in the encoding of `postcard`. A payload holds any number of
//! records. The first record of a chunk is a snapshot, or a gap and a snapshot.

use serde::{Deserialize, Serialize};
use shardkeep_sim::Input;
use shardkeep_types::SpaceId;

pub(crate) const MAGIC: [u8; 8] = *b"SKJOURNL";
pub(crate) const VERSION: u32 = 1;
/// Length of the magic and the version.
pub(crate) const PREFIX_LEN: usize = 12;
/// Length of a block without its payload.
pub(crate) const BLOCK_HEAD: usize = 12;
/// The extension of chunk files.
pub const EXTENSION: &str = "journal";

/// The origin of a chunk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The version of Shardkeep that recorded it.
    pub release: String,
    /// The rules of the simulation; see [`shardkeep_sim::SCHEMA`].
    pub schema: u64,
    pub zone: String,
    /// The start of the zone's process that recorded it.
    pub incarnation: u64,
    pub space: SpaceId,
    pub map: String,
    pub map_hash: u64,
    pub seed: u64,
    pub tick_ms: u64,
    /// The time of the simulation at the first record.
    pub start_ms: u64,
}

/// One entry of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// This many records before it were not written.
    Gap {
        records: u64,
    },
    /// The whole state. Everything after it can be replayed without what is before it.
    Snapshot(Vec<u8>),
    Input(Input),
    Tick {
        now: u64,
    },
    /// The state hash after the records before it.
    Hash(u64),
}

/// [`Record`] without ownership, with the same encoding.
#[derive(Debug, Serialize)]
pub(crate) enum RecordRef<'a> {
    Gap { records: u64 },
    Snapshot(&'a [u8]),
    Input(&'a Input),
    Tick { now: u64 },
    Hash(u64),
}

/// Appends a value in its encoding. No type of the journal has a value that postcard refuses.
pub(crate) fn encode(value: &impl Serialize, into: &mut Vec<u8>) {
    if let Ok(bytes) = postcard::to_extend(value, std::mem::take(into)) {
        *into = bytes;
    }
}

/// Appends a block with this payload.
pub(crate) fn append_block(payload: &[u8], into: &mut Vec<u8>) {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let mut head = [0; BLOCK_HEAD];
    head[..4].copy_from_slice(&length.to_le_bytes());
    head[4..8].copy_from_slice(&crc32fast::hash(payload).to_le_bytes());
    let check = crc32fast::hash(&head[..8]);
    head[8..].copy_from_slice(&check.to_le_bytes());
    into.extend_from_slice(&head);
    into.extend_from_slice(&payload[..length as usize]);
}

/// The first bytes of a chunk file.
pub(crate) fn file_start(header: &Header) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    let mut payload = Vec::new();
    encode(header, &mut payload);
    append_block(&payload, &mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn borrowed_and_owned_records_have_same_encoding() {
        let input = Input::Leave { character: shardkeep_types::CharacterId(7) };
        let pairs = [
            (RecordRef::Gap { records: 3 }, Record::Gap { records: 3 }),
            (RecordRef::Snapshot(&[1, 2, 300u16 as u8]), Record::Snapshot(vec![1, 2, 44])),
            (RecordRef::Input(&input), Record::Input(input.clone())),
            (RecordRef::Tick { now: u64::MAX }, Record::Tick { now: u64::MAX }),
            (RecordRef::Hash(9), Record::Hash(9)),
        ];
        for (borrowed, owned) in pairs {
            let (mut one, mut other) = (Vec::new(), Vec::new());
            encode(&borrowed, &mut one);
            encode(&owned, &mut other);
            assert_eq!(one, other, "{owned:?}");
            assert_eq!(postcard::from_bytes::<Record>(&one).unwrap(), owned);
        }
    }
}
