//! What raised the generations of accounts, so that whoever holds sessions of a lower one can be told, also later:
//! gateways that could not be reached at the moment ask again with what they hold.

use shardkeep_types::{AccountId, Generation};

use super::{Cause, Raised};
use crate::{Database, Error, Row, Rows, Tx, sql};

/// Everything of the account below the generation is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    pub account: AccountId,
    pub below: Generation,
    pub cause: Cause,
    /// Milliseconds since the Unix epoch, by the database's clock.
    pub at_ms: u64,
}

pub(super) async fn note(tx: &mut Tx, raised: Raised, cause: &Cause) -> Result<(), Error> {
    let upsert = sql("INSERT INTO revocations (account, below_generation, code, detail, at_ms) \
         VALUES ($1, $2, $3, $4, {now_ms}) ON CONFLICT (account) DO UPDATE SET \
         below_generation = excluded.below_generation, code = excluded.code, detail = excluded.detail, \
         at_ms = excluded.at_ms");
    let upsert = upsert.bind(raised.id.0).bind(raised.generation.0);
    tx.execute(upsert.bind(cause.code).bind(&cause.detail)).await.map(drop)
}

/// The database's clock, from which a follower begins.
pub async fn now(database: &Database) -> Result<u64, Error> {
    let row = database.fetch_optional(sql("SELECT {now_ms}")).await?;
    row.ok_or_else(|| Error::Corrupt("the database tells no time".to_owned()))?.take()
}

/// Those written down since then, oldest first. The moment is of the statement, not of its commit: look back a
/// little further than the newest one seen.
pub async fn since(database: &Database, at_ms: u64, limit: u32) -> Result<Vec<Revocation>, Error> {
    let select = sql("SELECT account, below_generation, code, detail, at_ms FROM revocations \
         WHERE at_ms >= $1 ORDER BY at_ms LIMIT $2");
    let rows = database.fetch_all(select.bind(at_ms).bind(limit)).await?;
    rows.into_iter().map(revocation).collect()
}

/// Of these sessions, those whose generation has passed.
pub async fn outdated(
    database: &Database,
    held: &[(AccountId, Generation)],
) -> Result<Vec<Revocation>, Error> {
    if held.is_empty() {
        return Ok(Vec::new());
    }
    let rows = Rows::new()
        .ints("account", held.iter().map(|(account, _)| account.0))
        .ints("generation", held.iter().map(|(_, generation)| generation.0));
    let select = sql("SELECT accounts.id, accounts.generation, COALESCE(revocations.code, 0), \
         COALESCE(revocations.detail, ''), COALESCE(revocations.at_ms, 0) FROM {rows} \
         JOIN accounts ON accounts.id = r.account \
         LEFT JOIN revocations ON revocations.account = accounts.id \
         WHERE accounts.generation > r.generation");
    let rows = database.fetch_all(select.rows(rows)).await?;
    rows.into_iter().map(revocation).collect()
}

fn revocation(mut row: Row) -> Result<Revocation, Error> {
    Ok(Revocation {
        account: AccountId(row.take()?),
        below: Generation(row.take()?),
        cause: Cause { code: row.take()?, detail: row.take()? },
        at_ms: row.take()?,
    })
}
