//! Mutes of characters, owned by `gm`. A mute is stored before it takes effect, so it outlives the chat daemons.

use crate::{Database, Error, sql};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mute {
    /// Names are compared as `shardkeep_names::fold` describes.
    pub name: String,
    /// Milliseconds since the Unix epoch; 0 unmutes.
    pub until_ms: u64,
    /// When the operator gave the command. The latest command for a name counts.
    pub issued_ms: u64,
}

/// Stores a mute or an unmute, unless a later one is stored.
pub async fn put(database: &Database, mute: &Mute) -> Result<(), Error> {
    let upsert = sql("INSERT INTO mutes (name_key, until_ms, issued_ms) VALUES ($1, $2, $3) \
         ON CONFLICT (name_key) DO UPDATE SET until_ms = excluded.until_ms, issued_ms = excluded.issued_ms \
         WHERE mutes.issued_ms < excluded.issued_ms");
    let upsert = upsert.bind(shardkeep_names::fold(&mute.name)).bind(mute.until_ms).bind(mute.issued_ms);
    database.execute(upsert).await.map(drop)
}

/// Mutes that have not expired at `now_ms`: at most `limit` whose names follow `after`, sorted by name.
pub async fn active(database: &Database, now_ms: u64, after: &str, limit: u32) -> Result<Vec<Mute>, Error> {
    let select = sql("SELECT name_key, until_ms, issued_ms FROM mutes \
         WHERE until_ms > $1 AND name_key > $2 ORDER BY name_key LIMIT $3");
    let rows = database.fetch_all(select.bind(now_ms).bind(after).bind(limit)).await?;
    let mute =
        |mut row: crate::Row| Ok(Mute { name: row.take()?, until_ms: row.take()?, issued_ms: row.take()? });
    rows.into_iter().map(mute).collect()
}

/// Deletes mutes that have expired at `now_ms`.
pub async fn delete_expired(database: &Database, now_ms: u64) -> Result<u64, Error> {
    database.execute(sql("DELETE FROM mutes WHERE until_ms <= $1").bind(now_ms)).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Schema;

    #[tokio::test]
    async fn latest_mute_of_a_name_counts_until_it_expires() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("gm.db").display());
        let database = Database::open(&url, Schema::Gm).await.unwrap();
        let mute = |name: &str, until_ms, issued_ms| Mute { name: name.into(), until_ms, issued_ms };
        for mute in [mute("Ann", 100, 1), mute("ann", 50, 0), mute("Bob", 200, 1), mute("Cid", 200, 1)] {
            put(&database, &mute).await.unwrap();
        }
        put(&database, &mute("BOB", 0, 2)).await.unwrap();
        let active_at = async |now_ms, after: &str| active(&database, now_ms, after, 10).await.unwrap();
        assert_eq!(active_at(99, "").await, [mute("ann", 100, 1), mute("cid", 200, 1)]);
        assert_eq!(active_at(99, "ann").await, [mute("cid", 200, 1)]);
        assert_eq!(active_at(100, "").await, [mute("cid", 200, 1)]);
        assert_eq!(delete_expired(&database, 100).await.unwrap(), 2);
    }
}
