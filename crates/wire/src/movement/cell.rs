//! Entities of one cell, as a keyframe or as changes. A cell is encoded once per tick and decoded without copying.

use bytes::{BufMut, BytesMut};
use shardkeep_types::{CellId, EntityId, SpaceId};

use super::error::{MovementError, expect_end};
use crate::{
    cursor::Cursor,
    varint::{self, VarintError},
};

/// Whether a cell message is complete or a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Form {
    /// Replaces everything known about the cell.
    Keyframe = 1,
    Delta = 2,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum EntityKind {
    Avatar = 1,
    Creature = 2,
    GroundItem = 3,
}

/// Reason why an entity left the cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum RemovalReason {
    /// The entity moved to another cell.
    Moved = 1,
    /// The entity left the world, or an avatar picked it up.
    Left = 2,
    Died = 3,
}

/// Fixed properties of an entity, sent when it appears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appearance<'a> {
    pub kind: EntityKind,
    pub template: u16,
    /// At most 255 bytes. The encoder cuts longer names at a character boundary.
    pub name: &'a str,
}

/// Changes of one entity. Fields that are `None` take no bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    pub id: EntityId,
    pub appears: Option<Appearance<'a>>,
    /// Distance from the cell's corner, in mm.
    pub offset: Option<[u16; 2]>,
    /// Velocity in mm/s. An entity that appears without a velocity stands still.
    pub velocity: Option<[i16; 2]>,
    pub facing: Option<u8>,
    /// Health from 0 (dead) to 255 (full).
    pub health: Option<u8>,
    pub gone: Option<RemovalReason>,
}

/// A `Cell` message. Decoding validates all entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell<'a> {
    pub form: Form,
    pub tick: u32,
    pub cell: CellId,
    count: usize,
    entries: &'a [u8],
}

/// Iterates over the entries of a [`Cell`].
#[derive(Debug, Clone)]
pub struct Entries<'a> {
    left: usize,
    cursor: Cursor<'a>,
}

const APPEARS: u8 = 1;
const POSITION: u8 = 1 << 1;
const VELOCITY: u8 = 1 << 2;
const FACING: u8 = 1 << 3;
const HEALTH: u8 = 1 << 4;
const GONE: u8 = 1 << 5;
/// Length of the shortest entry: id and mask.
const MIN_ENTRY_LENGTH: usize = 9;

impl<'a> Entry<'a> {
    /// An entry without changes.
    pub fn new(id: EntityId) -> Self {
        Self { id, appears: None, offset: None, velocity: None, facing: None, health: None, gone: None }
    }

    /// Encoded length of this entry.
    pub fn encoded_len(&self) -> usize {
        let appears = self.appears.map_or(0, |appears| 4 + truncate_name(appears.name).len());
        let fixed = [
            (self.offset.is_some(), 4),
            (self.velocity.is_some(), 4),
            (self.facing.is_some(), 1),
            (self.health.is_some(), 1),
            (self.gone.is_some(), 1),
        ];
        MIN_ENTRY_LENGTH
            + appears
            + fixed.iter().filter(|(present, _)| *present).map(|(_, size)| size).sum::<usize>()
    }

    fn mask(&self) -> u8 {
        [
            (self.appears.is_some(), APPEARS),
            (self.offset.is_some(), POSITION),
            (self.velocity.is_some(), VELOCITY),
            (self.facing.is_some(), FACING),
            (self.health.is_some(), HEALTH),
            (self.gone.is_some(), GONE),
        ]
        .iter()
        .filter(|(present, _)| *present)
        .fold(0, |mask, (_, bit)| mask | bit)
    }

    fn encode(&self, out: &mut BytesMut) {
        out.put_u64_le(self.id.0);
        out.put_u8(self.mask());
        if let Some(appears) = self.appears {
            let name = truncate_name(appears.name);
            out.put_u8(appears.kind as u8);
            out.put_u16_le(appears.template);
            out.put_u8(name.len() as u8);
            out.put_slice(name.as_bytes());
        }
        self.offset.into_iter().flatten().for_each(|mm| out.put_u16_le(mm));
        self.velocity.into_iter().flatten().for_each(|v| out.put_i16_le(v));
        self.facing
            .into_iter()
            .chain(self.health)
            .chain(self.gone.map(|gone| gone as u8))
            .for_each(|b| out.put_u8(b));
    }

    fn decode(cursor: &mut Cursor<'a>) -> Result<Self, MovementError> {
        let id = EntityId(cursor.u64()?);
        let mask = cursor.u8()?;
        if mask & !(APPEARS | POSITION | VELOCITY | FACING | HEALTH | GONE) != 0 {
            return Err(MovementError::Mask(mask));
        }
        let mut entry = Self::new(id);
        if mask & APPEARS != 0 {
            entry.appears = Some(appears(cursor)?);
        }
        if mask & POSITION != 0 {
            entry.offset = Some([cursor.u16()?, cursor.u16()?]);
        }
        if mask & VELOCITY != 0 {
            entry.velocity = Some([cursor.i16()?, cursor.i16()?]);
        }
        if mask & FACING != 0 {
            entry.facing = Some(cursor.u8()?);
        }
        if mask & HEALTH != 0 {
            entry.health = Some(cursor.u8()?);
        }
        if mask & GONE != 0 {
            entry.gone = Some(gone(cursor.u8()?)?);
        }
        Ok(entry)
    }
}

fn appears<'a>(cursor: &mut Cursor<'a>) -> Result<Appearance<'a>, MovementError> {
    let kind = match cursor.u8()? {
        1 => EntityKind::Avatar,
        2 => EntityKind::Creature,
        3 => EntityKind::GroundItem,
        other => return Err(MovementError::Kind(other)),
    };
    let template = cursor.u16()?;
    let length = cursor.u8()?.into();
    let name = std::str::from_utf8(cursor.bytes(length)?).map_err(|_| MovementError::Name)?;
    Ok(Appearance { kind, template, name })
}

fn gone(reason: u8) -> Result<RemovalReason, MovementError> {
    match reason {
        1 => Ok(RemovalReason::Moved),
        2 => Ok(RemovalReason::Left),
        3 => Ok(RemovalReason::Died),
        other => Err(MovementError::RemovalReason(other)),
    }
}

/// The longest prefix of a name that fits its length byte.
fn truncate_name(name: &str) -> &str {
    &name[..name.floor_char_boundary(255)]
}

/// Appends the payload of a `Cell` message. The caller ensures, with `Entry::encoded_len`, that it fits a record.
pub fn encode_cell<'a>(
    out: &mut BytesMut,
    form: Form,
    tick: u32,
    cell: CellId,
    entries: impl ExactSizeIterator<Item = Entry<'a>>,
) {
    out.put_u8(form as u8);
    out.put_u32_le(tick);
    out.put_u32_le(cell.space.0);
    out.put_u16_le(cell.x);
    out.put_u16_le(cell.y);
    varint::encode(entries.len() as u64, out);
    entries.for_each(|entry| entry.encode(out));
}

impl<'a> Cell<'a> {
    /// Bytes before the entries, for the largest entry count that fits a record.
    pub const MAX_HEADER: usize = 16;

    pub fn decode(payload: &'a [u8]) -> Result<Self, MovementError> {
        let mut cursor = Cursor::new(payload);
        let form = match cursor.u8()? {
            1 => Form::Keyframe,
            2 => Form::Delta,
            other => return Err(MovementError::Form(other)),
        };
        let tick = cursor.u32()?;
        let cell = CellId { space: SpaceId(cursor.u32()?), x: cursor.u16()?, y: cursor.u16()? };
        let count = cursor.varint().map_err(|error| match error {
            VarintError::Truncated => MovementError::Truncated,
            other => MovementError::Varint(other),
        })?;
        let entries = cursor.rest();
        let fits = (entries.len() / MIN_ENTRY_LENGTH) as u64;
        let count = usize::try_from(count.min(fits + 1)).ok().filter(|n| *n as u64 <= fits);
        let count = count.ok_or(MovementError::Count(fits + 1))?;
        for _ in 0..count {
            Entry::decode(&mut cursor)?;
        }
        expect_end(cursor)?;
        Ok(Self { form, tick, cell, count, entries })
    }

    pub fn entries(&self) -> Entries<'a> {
        Entries { left: self.count, cursor: Cursor::new(self.entries) }
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        self.left = self.left.checked_sub(1)?;
        // `Cell::decode` has validated all entries, so this cannot fail.
        Entry::decode(&mut self.cursor).ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Entries<'_> {}

#[cfg(test)]
mod tests {
    use proptest::{option, prelude::*};

    use super::*;

    type Parts = (
        u64,
        Option<(u8, u16, String)>,
        Option<[u16; 2]>,
        Option<[i16; 2]>,
        Option<u8>,
        Option<u8>,
        Option<u8>,
    );

    fn any_parts() -> impl Strategy<Value = Parts> {
        let appears = (1u8..=3, any::<u16>(), any::<String>());
        (
            any::<u64>(),
            option::of(appears),
            any::<Option<[u16; 2]>>(),
            any::<Option<[i16; 2]>>(),
            any::<Option<u8>>(),
            any::<Option<u8>>(),
            option::of(1u8..=3),
        )
    }

    fn entry(parts: &Parts) -> Entry<'_> {
        let (id, appears, offset, velocity, facing, health, reason) = parts;
        let kinds = [EntityKind::Avatar, EntityKind::Creature, EntityKind::GroundItem];
        Entry {
            id: EntityId(*id),
            appears: appears.as_ref().map(|(kind, template, name)| Appearance {
                kind: kinds[usize::from(kind - 1)],
                template: *template,
                name: truncate_name(name),
            }),
            offset: *offset,
            velocity: *velocity,
            facing: *facing,
            health: *health,
            gone: reason.map(|reason| gone(reason).unwrap()),
        }
    }

    fn encoded(entries: &[Entry<'_>]) -> BytesMut {
        let mut out = BytesMut::new();
        let cell = CellId { space: SpaceId(1), x: 15, y: 16 };
        encode_cell(&mut out, Form::Delta, 9, cell, entries.iter().copied());
        out
    }

    #[test]
    fn malformed_cell_gives_specific_error() {
        let whole = encoded(&[Entry { gone: Some(RemovalReason::Died), ..Entry::new(EntityId(7)) }]);
        let altered = |at: usize, byte: u8| {
            let mut bytes = whole.clone();
            bytes[at] = byte;
            Cell::decode(&bytes).map(|cell| cell.count)
        };
        assert_eq!(altered(0, 3), Err(MovementError::Form(3)));
        assert_eq!(altered(13, 2), Err(MovementError::Count(2)));
        assert_eq!(altered(13, 0), Err(MovementError::Trailing));
        assert_eq!(altered(22, 0x40), Err(MovementError::Mask(0x40)));
        assert_eq!(altered(22, 0x21), Err(MovementError::Truncated));
        assert_eq!(altered(23, 4), Err(MovementError::RemovalReason(4)));
        let mut oversized = whole[..13].to_vec();
        varint::encode(u64::MAX, &mut oversized);
        assert_eq!(Cell::decode(&oversized), Err(MovementError::Count(1)));
    }

    #[test]
    fn long_name_is_truncated_at_char_boundary() {
        let name = "ä".repeat(200);
        let appears = Appearance { kind: EntityKind::Avatar, template: 0, name: &name };
        let bytes = encoded(&[Entry { appears: Some(appears), ..Entry::new(EntityId(1)) }]);
        let entry = Cell::decode(&bytes).unwrap().entries().next().unwrap();
        assert_eq!(entry.appears.unwrap().name, "ä".repeat(127));
    }

    proptest! {
        #[test]
        fn cell_round_trips(parts in proptest::collection::vec(any_parts(), 0..20)) {
            let entries: Vec<_> = parts.iter().map(entry).collect();
            let bytes = encoded(&entries);
            let length: usize = entries.iter().map(Entry::encoded_len).sum();
            prop_assert_eq!(bytes.len(), 13 + varint::length(entries.len() as u64) + length);
            let cell = Cell::decode(&bytes).unwrap();
            prop_assert_eq!((cell.form, cell.tick), (Form::Delta, 9));
            prop_assert_eq!(cell.cell, CellId { space: SpaceId(1), x: 15, y: 16 });
            prop_assert_eq!(cell.entries().collect::<Vec<_>>(), entries);
            prop_assert!(Cell::decode(&bytes[..bytes.len() - 1]).is_err());
        }

        #[test]
        fn cell_decode_never_panics_and_is_canonical(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(cell) = Cell::decode(&bytes) {
                let mut again = BytesMut::new();
                encode_cell(&mut again, cell.form, cell.tick, cell.cell, cell.entries());
                prop_assert_eq!(&again[..], &bytes[..]);
            }
        }
    }
}
