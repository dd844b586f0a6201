//! The audit of operators' commands. An entry is written before its command runs and completed afterwards, so each
//! command leaves a trace. Entries are never removed, and a completed one never changes.

use crate::{Database, Error, Row, sql, transact};

/// An entry before its command runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    pub at_ms: u64,
    pub operator: String,
    /// Origin of the command, for example `web 203.0.113.9`.
    pub origin: String,
    pub command: String,
    pub reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub id: u64,
    pub invocation: Invocation,
    /// `invocation` (the outcome is unknown), `done`, `denied` or `failed`.
    pub outcome: String,
    pub result: String,
}

/// Writes the entry and returns its number.
pub async fn begin(database: &Database, entry: &Invocation) -> Result<u64, Error> {
    let next = sql("UPDATE audit_numbers SET next = next + 1 WHERE one = 1 RETURNING next - 1");
    transact!(database, |tx| async {
        let row = tx.fetch_optional(next.clone()).await?;
        let id: u64 = row.ok_or_else(|| Error::Corrupt("no audit number".to_owned()))?.take()?;
        let insert =
            sql("INSERT INTO audit (id, at_ms, operator, origin, command, reason, outcome, result) \
             VALUES ($1, $2, $3, $4, $5, $6, 'begun', '')");
        let insert = insert.bind(id).bind(entry.at_ms).bind(&entry.operator).bind(&entry.origin);
        tx.execute(insert.bind(&entry.command).bind(&entry.reason)).await?;
        Ok::<u64, Error>(id)
    })
}

/// Completes an entry, once.
pub async fn finish(database: &Database, id: u64, outcome: &str, result: &str) -> Result<(), Error> {
    let update = sql("UPDATE audit SET outcome = $2, result = $3 WHERE id = $1 AND outcome = 'begun'");
    database.execute(update.bind(id).bind(outcome).bind(result)).await.map(drop)
}

/// The latest entries with numbers below `before` (0: all), newest first. With `operator`, only the entries of that
/// one.
pub async fn page(database: &Database, before: u64, operator: &str, limit: u32) -> Result<Vec<Entry>, Error> {
    let select = sql("SELECT id, at_ms, operator, origin, command, reason, outcome, result FROM audit \
         WHERE ($1 = 0 OR id < $1) AND ($2 = '' OR operator = $2) ORDER BY id DESC LIMIT $3");
    let rows = database.fetch_all(select.bind(before).bind(operator).bind(limit)).await?;
    rows.into_iter().map(entry).collect()
}

fn entry(mut row: Row) -> Result<Entry, Error> {
    Ok(Entry {
        id: row.take()?,
        invocation: Invocation {
            at_ms: row.take()?,
            operator: row.take()?,
            origin: row.take()?,
            command: row.take()?,
            reason: row.take()?,
        },
        outcome: row.take()?,
        result: row.take()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Schema;

    #[tokio::test]
    async fn audit_page_is_newest_first_and_finish_applies_once() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("gm.db").display());
        let database = Database::open(&url, Schema::Gm).await.unwrap();
        for operator in ["ann", "bob", "ann"] {
            let invocation = Invocation {
                at_ms: 5,
                operator: operator.into(),
                origin: "web 127.0.0.1".into(),
                command: "kick character Mallory".into(),
                reason: "spam".into(),
            };
            let id = begin(&database, &invocation).await.unwrap();
            finish(&database, id, "done", "1 session ended").await.unwrap();
            finish(&database, id, "failed", "rewritten").await.unwrap();
        }
        let all = page(&database, 0, "", 10).await.unwrap();
        assert_eq!(all.iter().map(|entry| entry.id).collect::<Vec<_>>(), [3, 2, 1]);
        assert_eq!((all[0].outcome.as_str(), all[0].result.as_str()), ("done", "1 session ended"));
        assert_eq!(page(&database, 3, "ann", 10).await.unwrap().len(), 1);
    }
}
