//! Worlds that operators have closed to players, the note that players see, and when players inside must have left.

use std::time::Duration;

use shardkeep_types::{AccountId, WorldId};

use crate::{Database, Error, sql};

/// The most accounts that [`staff`] lists.
const MAX_STAFF: u32 = 10_000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    pub world: WorldId,
    pub note: String,
    /// When players must have left, on the store's clock.
    pub ends_ms: u64,
    /// Time until then when the row was read; zero once it has passed.
    pub left: Duration,
}

/// Closes a world. Players inside may stay for `grace`. Closing a closed world starts `grace` again.
pub async fn close(database: &Database, world: WorldId, note: &str, grace: Duration) -> Result<(), Error> {
    let upsert = sql(
        "INSERT INTO closed_worlds (world, note, since_ms, ends_ms) VALUES ($1, $2, {now_ms}, {now_ms} + $3) \
         ON CONFLICT (world) DO UPDATE SET note = excluded.note, ends_ms = excluded.ends_ms",
    );
    let grace = i64::try_from(grace.as_millis()).unwrap_or(i64::MAX);
    database.execute(upsert.bind(world.0).bind(note).bind(grace)).await.map(drop)
}

/// `false`: the world was not closed.
pub async fn open(database: &Database, world: WorldId) -> Result<bool, Error> {
    let delete = sql("DELETE FROM closed_worlds WHERE world = $1");
    Ok(database.execute(delete.bind(world.0)).await? > 0)
}

/// All closed worlds, by number.
pub async fn list(database: &Database) -> Result<Vec<Closed>, Error> {
    let select = sql("SELECT world, note, ends_ms, {now_ms} FROM closed_worlds ORDER BY world");
    let rows = database.fetch_all(select).await?;
    let closed = rows.into_iter().map(|mut row| {
        let (world, note, ends_ms) = (WorldId(row.take()?), row.take()?, row.take()?);
        let left = Duration::from_millis(u64::saturating_sub(ends_ms, row.take()?));
        Ok(Closed { world, note, ends_ms, left })
    });
    closed.collect()
}

/// Accounts that may enter closed worlds and stay there.
pub async fn staff(database: &Database) -> Result<Vec<AccountId>, Error> {
    let select = sql("SELECT id FROM accounts WHERE staff = 1 ORDER BY id LIMIT $1");
    let rows = database.fetch_all(select.bind(MAX_STAFF)).await?;
    rows.into_iter().map(|mut row| row.take().map(AccountId)).collect()
}
