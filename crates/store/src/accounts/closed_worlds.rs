//! Worlds that operators have closed to players, and what players are told of it.

use shardkeep_types::WorldId;

use crate::{Database, Error, sql};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    pub world: WorldId,
    pub note: String,
}

pub async fn close(database: &Database, closed: &Closed) -> Result<(), Error> {
    let upsert = sql("INSERT INTO closed_worlds (world, note, since_ms) VALUES ($1, $2, {now_ms}) \
         ON CONFLICT (world) DO UPDATE SET note = excluded.note");
    database.execute(upsert.bind(closed.world.0).bind(&closed.note)).await.map(drop)
}

/// Whether it was closed.
pub async fn open(database: &Database, world: WorldId) -> Result<bool, Error> {
    let delete = sql("DELETE FROM closed_worlds WHERE world = $1");
    Ok(database.execute(delete.bind(world.0)).await? > 0)
}

/// All of them, by number.
pub async fn list(database: &Database) -> Result<Vec<Closed>, Error> {
    let rows = database.fetch_all(sql("SELECT world, note FROM closed_worlds ORDER BY world")).await?;
    let closed =
        rows.into_iter().map(|mut row| Ok(Closed { world: WorldId(row.take()?), note: row.take()? }));
    closed.collect()
}
