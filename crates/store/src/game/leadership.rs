//! The leader of a world: one row, taken by compare-and-set on the database's clock. Its term fences everything that the
//! world does to characters.

use std::time::Duration;

use shardkeep_types::{Term, WorldId};

use super::{
    refusal::{GameError, Refusal},
    tables::Game,
};
use crate::{Error, Row, Tx, database::read_once, sql};

/// How much later than its duration a lease may end. Clocks that are adjusted in small steps stay within this.
const CLOCK_TOLERANCE_MS: i64 = 1_000;

/// A request to lead a world, or to renew the lease.
#[derive(Debug, Clone)]
pub struct LeadershipBid {
    pub world: WorldId,
    pub holder: String,
    pub incarnation: u64,
    /// Duration of the lease in milliseconds; 0 releases it.
    pub ttl_ms: u32,
}

/// The present leader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leadership {
    /// Whether the bidder leads.
    pub leader: bool,
    pub term: Term,
    pub holder: String,
    /// Time until the lease ends, on the database's clock.
    pub left_ms: u64,
}

/// A lease that ends later than its duration from now: the database's clock was set back after it was granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseFault {
    pub world: WorldId,
    pub holder: String,
    pub term: Term,
    /// How much too late the lease ends, which is about how far the clock was set back.
    pub offset: Duration,
}

/// The row of one world.
struct LeaseRow {
    holder: String,
    incarnation: u64,
    term: Term,
    left_ms: i64,
    ttl_ms: i64,
}

impl LeaseRow {
    fn read(row: &mut Row) -> Result<Self, Error> {
        Ok(Self {
            holder: row.take()?,
            incarnation: row.take()?,
            term: Term(row.take()?),
            left_ms: row.take()?,
            ttl_ms: row.take()?,
        })
    }

    fn fault(&self, world: WorldId) -> Option<LeaseFault> {
        let excess = u64::try_from(self.left_ms - self.ttl_ms).ok()?;
        let offset = Duration::from_millis(excess);
        (offset > Duration::from_millis(CLOCK_TOLERANCE_MS.unsigned_abs())).then(|| LeaseFault {
            world,
            holder: self.holder.clone(),
            term: self.term,
            offset,
        })
    }
}

impl Game {
    /// Takes the lease if it is free or has ended, and renews it for its holder; a later incarnation of the holder
    /// proves that the earlier one is dead. The term rises when holder or incarnation change, and only then. A lease
    /// with a clock fault is taken over, because waiting for its end would close the world for the difference.
    pub async fn lead(&self, bid: &LeadershipBid) -> Result<Leadership, Error> {
        if let Some(leadership) = self.take_free_lease(bid).await? {
            return Ok(leadership);
        }
        let query = sql(
            "SELECT holder, incarnation, term, until_ms - {now_ms}, ttl_ms FROM leadership WHERE world = $1",
        );
        let row = self.database().fetch_optional(query.bind(bid.world.0)).await?;
        let mut row = row.ok_or_else(|| Error::Corrupt("a leadership row is missing".to_owned()))?;
        let current = LeaseRow::read(&mut row)?;
        if let Some(fault) = current.fault(bid.world)
            && let Some(leadership) = self.take_faulty_lease(bid, &current).await?
        {
            tracing::error!(
                world = bid.world.0,
                holder = fault.holder,
                offset = ?fault.offset,
                new_holder = bid.holder,
                term = leadership.term.0,
                "the lease of the world ended too far in the future and was taken over: the database's clock was set back"
            );
            return Ok(leadership);
        }
        let left_ms = u64::try_from(current.left_ms).unwrap_or(0);
        Ok(Leadership { leader: false, term: current.term, holder: current.holder, left_ms })
    }

    async fn take_free_lease(&self, bid: &LeadershipBid) -> Result<Option<Leadership>, Error> {
        let query = sql("INSERT INTO leadership (world, holder, incarnation, term, until_ms, ttl_ms)
             VALUES ($1, $2, $3, 1, {now_ms} + $4, $4)
             ON CONFLICT (world) DO UPDATE SET holder = excluded.holder, incarnation = excluded.incarnation,
                 until_ms = excluded.until_ms, ttl_ms = excluded.ttl_ms,
                 term = leadership.term + CASE WHEN leadership.holder = excluded.holder
                     AND leadership.incarnation = excluded.incarnation THEN 0 ELSE 1 END
             WHERE leadership.until_ms <= {now_ms}
                 OR (leadership.holder = excluded.holder AND leadership.incarnation <= excluded.incarnation)
             RETURNING term");
        let query = query.bind(bid.world.0).bind(&bid.holder).bind(bid.incarnation).bind(bid.ttl_ms);
        granted(bid, self.database().execute_returning(query).await?)
    }

    /// `None`: another bidder was faster.
    async fn take_faulty_lease(
        &self,
        bid: &LeadershipBid,
        faulty: &LeaseRow,
    ) -> Result<Option<Leadership>, Error> {
        let query = sql("UPDATE leadership SET holder = $2, incarnation = $3, term = term + 1,
                 until_ms = {now_ms} + $4, ttl_ms = $4
             WHERE world = $1 AND holder = $5 AND incarnation = $6 AND term = $7
                 AND until_ms > {now_ms} + ttl_ms + $8
             RETURNING term");
        let query = query.bind(bid.world.0).bind(&bid.holder).bind(bid.incarnation).bind(bid.ttl_ms);
        let query = query.bind(&faulty.holder).bind(faulty.incarnation).bind(faulty.term.0);
        granted(bid, self.database().execute_returning(query.bind(CLOCK_TOLERANCE_MS)).await?)
    }
}

/// The leases of a game database with a clock fault. `url` is as for [`Database::open`](crate::Database::open), but the
/// owner of an SQLite file may keep it open meanwhile.
///
/// # Errors
/// When the database cannot be read. A file without tables has no leases.
pub async fn find_lease_faults(url: &str) -> Result<Vec<LeaseFault>, Error> {
    let query = sql("SELECT world, holder, incarnation, term, until_ms - {now_ms}, ttl_ms FROM leadership");
    let mut faults = Vec::new();
    for mut row in read_once(url, query).await? {
        let world = WorldId(row.take()?);
        faults.extend(LeaseRow::read(&mut row)?.fault(world));
    }
    Ok(faults)
}

fn granted(bid: &LeadershipBid, rows: Vec<Row>) -> Result<Option<Leadership>, Error> {
    let Some(mut row) = rows.into_iter().next() else { return Ok(None) };
    let (term, left_ms) = (Term(row.take()?), bid.ttl_ms.into());
    Ok(Some(Leadership { leader: true, term, holder: bid.holder.clone(), left_ms }))
}

/// Refuses a term that is not the world's. The row stays locked until the end of the transaction, so that no new term
/// begins meanwhile.
pub(super) async fn check_term(tx: &mut Tx, world: WorldId, term: Term) -> Result<(), GameError> {
    let query = sql("SELECT term FROM leadership WHERE world = $1 {for_share}").bind(world.0);
    let current = match tx.fetch_optional(query).await? {
        Some(mut row) => Term(row.take()?),
        None => Term(0),
    };
    if current == term && term != Term(0) { Ok(()) } else { Err(Refusal::StaleTerm(current).into()) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use shardkeep_testkit::Postgres;

    use super::*;
    use crate::{Database, Schema, game::NoCache};

    fn bid(holder: &str, incarnation: u64) -> LeadershipBid {
        LeadershipBid { world: WorldId(1), holder: holder.to_owned(), incarnation, ttl_ms: 4_000 }
    }

    /// Changes the row as a clock that is set back does: the lease then ends that much later.
    async fn set_clock_back(game: &Game, ms: u64) {
        let update = sql("UPDATE leadership SET until_ms = until_ms + $1");
        assert_eq!(game.database().execute(update.bind(ms)).await.unwrap(), 1);
    }

    async fn lease_from_before_clock_was_set_back_is_taken_over(url: &str) {
        let game = Game::new(Database::open(url, Schema::Game).await.unwrap(), Arc::new(NoCache));
        let old = game.lead(&bid("world-1", 9)).await.unwrap();
        assert_eq!(find_lease_faults(url).await.unwrap(), []);
        set_clock_back(&game, 500).await;
        let other = game.lead(&bid("world-2", 1)).await.unwrap();
        assert_eq!((other.leader, other.holder.as_str()), (false, "world-1"), "half a second is no fault");

        set_clock_back(&game, 3_600_000).await;
        let faults = find_lease_faults(url).await.unwrap();
        assert_eq!((faults.len(), faults[0].holder.as_str(), faults[0].world), (1, "world-1", WorldId(1)));
        assert!((3_590..=3_601).contains(&faults[0].offset.as_secs()), "{:?}", faults[0].offset);
        // The same instance starts again, and its clock gives it a lower incarnation.
        let new = game.lead(&bid("world-1", 2)).await.unwrap();
        assert_eq!((new.leader, new.term), (true, old.term.next()));
        set_clock_back(&game, 3_600_000).await;
        let other = game.lead(&bid("world-2", 1)).await.unwrap();
        assert_eq!((other.leader, other.term, other.holder.as_str()), (true, new.term.next(), "world-2"));
        assert!(!game.lead(&bid("world-1", 2)).await.unwrap().leader, "the new lease is a normal one");
        assert_eq!(find_lease_faults(url).await.unwrap(), []);
    }

    #[tokio::test]
    async fn sqlite_lease_from_before_clock_was_set_back_is_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("game.db").display());
        lease_from_before_clock_was_set_back_is_taken_over(&url).await;
    }

    #[tokio::test]
    async fn postgres_lease_from_before_clock_was_set_back_is_taken_over() {
        let server = Postgres::start().await;
        lease_from_before_clock_was_set_back_is_taken_over(&server.url()).await;
    }
}
