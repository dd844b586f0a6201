//! Opcode ranges of a studio's backends. They start at 0x8000 and never overlap. Each range has one size limit and
//! one rate.

use shardkeep_types::BackendKind;

/// First opcode that a studio may use.
pub const FIRST_STUDIO: u16 = 0x8000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    pub first: u16,
    /// Inclusive.
    pub last: u16,
    pub max_payload: usize,
    /// Messages per second that a session may send in this range, and the burst.
    pub per_second: u32,
    pub burst: u32,
    pub backend: BackendKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    #[error("opcodes {first:#06x}-{last:#06x} are not a range at or above {FIRST_STUDIO:#06x}")]
    Outside { first: u16, last: u16 },
    #[error("opcodes {first:#06x}-{last:#06x} belong to {owner} already")]
    Overlap { first: u16, last: u16, owner: BackendKind },
}

/// The registered ranges, sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ranges(Vec<Range>);

impl Ranges {
    /// Adds a range. A backend kind may register its range again with new limits.
    pub fn insert(&mut self, range: Range) -> Result<(), RangeError> {
        let Range { first, last, backend, .. } = range;
        if first < FIRST_STUDIO || last < first {
            return Err(RangeError::Outside { first, last });
        }
        let begin = self.0.partition_point(|other| other.last < first);
        let end = self.0.partition_point(|other| other.first <= last);
        match self.0.get(begin..end) {
            Some([]) => self.0.insert(begin, range),
            Some([same]) if (same.first, same.last, same.backend) == (first, last, backend) => {
                self.0[begin] = range;
            }
            _ => return Err(RangeError::Overlap { first, last, owner: self.0[begin].backend }),
        }
        Ok(())
    }

    /// Removes the ranges of a kind without backends.
    pub fn remove(&mut self, backend: BackendKind) {
        self.0.retain(|range| range.backend != backend);
    }

    pub fn lookup(&self, opcode: u16) -> Option<&Range> {
        let at = self.0.partition_point(|range| range.last < opcode);
        self.0.get(at).filter(|range| range.first <= opcode)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Range> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(first: u16, last: u16, kind: u8) -> Range {
        Range { first, last, max_payload: 100, per_second: 1, burst: 1, backend: BackendKind(kind) }
    }

    #[test]
    fn overlapping_range_is_refused() {
        let mut ranges = Ranges::default();
        ranges.insert(range(0x8000, 0x80ff, 64)).unwrap();
        ranges.insert(range(0x9000, 0x90ff, 65)).unwrap();
        ranges.insert(range(0x8000, 0x80ff, 64)).unwrap();
        let taken = RangeError::Overlap { first: 0x80ff, last: 0x8fff, owner: BackendKind(64) };
        assert_eq!(ranges.insert(range(0x80ff, 0x8fff, 66)), Err(taken));
        assert!(ranges.insert(range(0x8000, 0x80ff, 66)).is_err());
        assert_eq!(
            ranges.insert(range(0x7fff, 0x8fff, 66)),
            Err(RangeError::Outside { first: 0x7fff, last: 0x8fff })
        );
        assert_eq!(ranges.lookup(0x90ff).map(|range| range.backend), Some(BackendKind(65)));
        assert_eq!(ranges.lookup(0x8100), None);
        ranges.remove(BackendKind(65));
        assert_eq!(ranges.lookup(0x90ff), None);
    }

    proptest! {
        #[test]
        fn registered_ranges_give_each_opcode_one_owner(
            wanted in proptest::collection::vec((any::<u16>(), any::<u16>(), 64u8..70), 0..20),
            opcode: u16,
        ) {
            let mut ranges = Ranges::default();
            for (first, last, kind) in wanted {
                let _ = ranges.insert(range(first, last, kind));
            }
            let owners = ranges.iter().filter(|range| (range.first..=range.last).contains(&opcode)).count();
            prop_assert_eq!(owners, usize::from(ranges.lookup(opcode).is_some()));
            prop_assert!(owners <= 1);
        }
    }
}
