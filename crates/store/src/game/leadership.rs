//! Who leads a world: one row, taken by compare-and-set on the database's clock. Its term fences everything that a
//! world does to characters.

use shardkeep_types::{Term, WorldId};

use super::{Game, GameError, Refusal};
use crate::{Error, Tx, sql};

/// A wish to lead a world, or to go on leading it.
#[derive(Debug, Clone)]
pub struct LeadershipBid {
    pub world: WorldId,
    pub holder: String,
    pub incarnation: u64,
    /// How long the lease runs from now, in milliseconds; 0 gives it up.
    pub ttl_ms: u32,
}

/// Who leads now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leadership {
    /// Whether it is the one who asked.
    pub leader: bool,
    pub term: Term,
    pub holder: String,
    /// What is left of the lease, on the database's clock.
    pub left_ms: u64,
}

impl Game {
    /// Takes or renews the lease if it is free, ended, or one's own (a later start of the same holder knows that the
    /// one before is dead). The term rises when holder or incarnation change, and only then.
    pub async fn lead(&self, bid: &LeadershipBid) -> Result<Leadership, Error> {
        let query = sql("INSERT INTO leadership (world, holder, incarnation, term, until_ms)
             VALUES ($1, $2, $3, 1, {now_ms} + $4)
             ON CONFLICT (world) DO UPDATE SET holder = excluded.holder, incarnation = excluded.incarnation,
                 until_ms = excluded.until_ms,
                 term = leadership.term + CASE WHEN leadership.holder = excluded.holder
                     AND leadership.incarnation = excluded.incarnation THEN 0 ELSE 1 END
             WHERE leadership.until_ms <= {now_ms}
                 OR (leadership.holder = excluded.holder AND leadership.incarnation <= excluded.incarnation)
             RETURNING term");
        let query = query.bind(bid.world.0).bind(&bid.holder).bind(bid.incarnation).bind(bid.ttl_ms);
        if let Some(mut row) = self.database.execute_returning(query).await?.into_iter().next() {
            let left_ms = bid.ttl_ms.into();
            return Ok(Leadership {
                leader: true,
                term: Term(row.take()?),
                holder: bid.holder.clone(),
                left_ms,
            });
        }
        let query = sql("SELECT holder, term, until_ms - {now_ms} FROM leadership WHERE world = $1");
        let row = self.database.fetch_optional(query.bind(bid.world.0)).await?;
        let mut row = row.ok_or_else(|| Error::Corrupt("a leadership row has vanished".to_owned()))?;
        let (holder, term, left) = (row.take()?, Term(row.take()?), row.take::<i64>()?);
        Ok(Leadership { leader: false, term, holder, left_ms: u64::try_from(left).unwrap_or(0) })
    }
}

/// Refuses a term that is not the world's. Locked until the end of the transaction, so that no new term begins in
/// the middle of it.
pub(super) async fn check_term(tx: &mut Tx, world: WorldId, term: Term) -> Result<(), GameError> {
    let query = sql("SELECT term FROM leadership WHERE world = $1 {for_share}").bind(world.0);
    let current = match tx.fetch_optional(query).await? {
        Some(mut row) => Term(row.take()?),
        None => Term(0),
    };
    if current == term && term != Term(0) { Ok(()) } else { Err(Refusal::StaleTerm(current).into()) }
}
