//! Why generations of accounts were raised, for gateways that hold older sessions. A gateway that was unreachable
//! asks later, with the sessions that it holds.

use shardkeep_types::{AccountId, Generation};

use super::{AccountGeneration, RevocationCause, logins::Process};
use crate::{Database, Error, Row, Rows, Tx, sql};

/// All sessions of the account below this generation are revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    pub account: AccountId,
    pub below: Generation,
    pub cause: RevocationCause,
    /// Milliseconds since the Unix epoch, on the database's clock.
    pub at_ms: u64,
}

/// Records why this transaction has raised the generation.
pub(super) async fn record_cause(
    tx: &mut Tx,
    raised: AccountGeneration,
    cause: &RevocationCause,
) -> Result<(), Error> {
    let update = sql("UPDATE accounts SET revoked_code = $2, revoked_detail = $3, revoked_ms = {now_ms}, \
         revoked_by = 0 WHERE id = $1");
    tx.execute(update.bind(raised.id.0).bind(cause.code).bind(&cause.detail)).await.map(drop)
}

/// The database's clock, from which a follower begins.
pub async fn now(database: &Database) -> Result<u64, Error> {
    let row = database.fetch_optional(sql("SELECT {now_ms}")).await?;
    row.ok_or_else(missing_clock_error)?.take()
}

/// The result of one read.
#[derive(Debug)]
pub struct RevocationPage {
    /// The database's clock.
    pub now_ms: u64,
    /// Sorted by time, oldest first.
    pub found: Vec<Revocation>,
}

/// Revocations recorded since a time, except those by logins of `except_process`. A row holds the time of its
/// statement, which precedes its commit, so begin a little before the previous read.
pub async fn since(
    database: &Database,
    at_ms: u64,
    except_process: Process,
    limit: u32,
) -> Result<RevocationPage, Error> {
    let select = sql("SELECT clock.now_ms, news.id, news.generation, news.revoked_code, \
         news.revoked_detail, news.revoked_ms FROM (SELECT {now_ms} AS now_ms) AS clock LEFT JOIN \
         (SELECT id, generation, revoked_code, revoked_detail, revoked_ms FROM accounts \
         WHERE revoked_ms >= $1 AND revoked_by <> $2 ORDER BY revoked_ms LIMIT $3) AS news ON 1 = 1 \
         ORDER BY news.revoked_ms");
    let rows = database.fetch_all(select.bind(at_ms).bind(except_process.0).bind(limit)).await?;
    let (mut now_ms, mut found) = (None, Vec::new());
    for mut row in rows {
        now_ms = Some(row.take()?);
        // Without revocations, the statement returns one row without an account.
        if let Some(id) = row.take()? {
            found.push(revocation(AccountId(id), row)?);
        }
    }
    Ok(RevocationPage { now_ms: now_ms.ok_or_else(missing_clock_error)?, found })
}

fn missing_clock_error() -> Error {
    Error::Corrupt("the database tells no time".to_owned())
}

/// Those of these sessions whose generation is outdated.
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
    let select = sql("SELECT accounts.id, accounts.generation, accounts.revoked_code, \
         accounts.revoked_detail, accounts.revoked_ms FROM {rows} \
         JOIN accounts ON accounts.id = r.account WHERE accounts.generation > r.generation");
    let rows = database.fetch_all(select.rows(rows)).await?;
    rows.into_iter().map(|mut row| revocation(AccountId(row.take()?), row)).collect()
}

fn revocation(account: AccountId, mut row: Row) -> Result<Revocation, Error> {
    Ok(Revocation {
        account,
        below: Generation(row.take()?),
        cause: RevocationCause { code: row.take()?, detail: row.take()? },
        at_ms: row.take()?,
    })
}
