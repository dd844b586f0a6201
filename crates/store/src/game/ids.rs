//! Ids, taken from the database in blocks, so that new items do not contend for one row. A crash loses some numbers
//! but never repeats one.

use std::ops::Range;

use parking_lot::Mutex;

use crate::{Database, Error, sql};

const BLOCK: u64 = 1024;

#[derive(Debug, Clone, Copy)]
pub(super) enum Sequence {
    Character,
    Item,
    /// Entries of the coins' journal.
    Entry,
}

impl Sequence {
    fn name(self) -> &'static str {
        match self {
            Self::Character => "character",
            Self::Item => "item",
            Self::Entry => "entry",
        }
    }
}

/// The unused rest of the block of each sequence.
#[derive(Debug, Default)]
pub(super) struct IdBlocks([Mutex<Range<u64>>; 3]);

impl IdBlocks {
    /// Takes `count` ids. Must not be called inside a transaction: on SQLite it would wait for itself.
    pub(super) async fn take(
        &self,
        database: &Database,
        sequence: Sequence,
        count: usize,
    ) -> Result<Vec<u64>, Error> {
        let count = count as u64;
        let block = &self.0[sequence as usize];
        let mut ids = take_ids(&mut block.lock(), count);
        let missing = count - ids.len() as u64;
        if missing > 0 {
            let mut fresh = reserve(database, sequence, missing.max(BLOCK)).await?;
            ids.extend(take_ids(&mut fresh, missing));
            // Another task may have reserved a block as well. The larger rest stays, the other is lost.
            let mut block = block.lock();
            if fresh.end - fresh.start > block.end - block.start {
                *block = fresh;
            }
        }
        Ok(ids)
    }
}

fn take_ids(block: &mut Range<u64>, count: u64) -> Vec<u64> {
    let end = block.end.min(block.start + count);
    let ids = (block.start..end).collect();
    block.start = end;
    ids
}

/// Reserves a block in a separate transaction.
async fn reserve(database: &Database, sequence: Sequence, count: u64) -> Result<Range<u64>, Error> {
    let query = sql("INSERT INTO sequences (name, next) VALUES ($1, 1 + $2)
         ON CONFLICT (name) DO UPDATE SET next = sequences.next + $2 RETURNING next");
    let rows = database.execute_returning(query.bind(sequence.name()).bind(count)).await?;
    let mut row =
        rows.into_iter().next().ok_or_else(|| Error::Corrupt("a sequence yields nothing".to_owned()))?;
    let next: u64 = row.take()?;
    Ok(next - count..next)
}
