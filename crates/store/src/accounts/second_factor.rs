//! Second factors of accounts: the secret, the last code taken, and a token bucket of wrong ones. All three are
//! changed by single statements, so that login's replicas can not be played off against each other.

use std::time::Duration;

use shardkeep_types::{AccountId, Secret};

use crate::{Database, Error, sql};

pub struct Factor {
    /// As login stored it.
    pub secret: Secret<Vec<u8>>,
    /// In force.
    pub confirmed: bool,
}

/// How many wrong codes at once, and one more every so often.
#[derive(Debug, Clone, Copy)]
pub struct Tries {
    pub burst: u32,
    pub every: Duration,
}

impl Tries {
    fn every_ms(self) -> u64 {
        u64::try_from(self.every.as_millis()).unwrap_or(u64::from(u32::MAX))
    }
}

/// A secret that counts from its first code on; replaces one that was begun before. `false`: one is in force.
pub async fn begin(database: &Database, account: AccountId, secret: &[u8]) -> Result<bool, Error> {
    let upsert = sql("INSERT INTO second_factors (account, secret, confirmed, last_step, full_at_ms) \
         VALUES ($1, $2, 0, 0, 0) ON CONFLICT (account) DO UPDATE SET secret = excluded.secret \
         WHERE second_factors.confirmed = 0");
    Ok(database.execute(upsert.bind(account.0).bind(secret)).await? > 0)
}

/// A secret in force at once, in place of any other: by an operator.
pub async fn set(database: &Database, account: AccountId, secret: &[u8]) -> Result<(), Error> {
    let upsert = sql("INSERT INTO second_factors (account, secret, confirmed, last_step, full_at_ms) \
         VALUES ($1, $2, 1, 0, 0) ON CONFLICT (account) DO UPDATE SET secret = excluded.secret, \
         confirmed = 1, last_step = 0, full_at_ms = 0");
    database.execute(upsert.bind(account.0).bind(secret)).await.map(drop)
}

pub async fn find(database: &Database, account: AccountId) -> Result<Option<Factor>, Error> {
    let select = sql("SELECT secret, confirmed FROM second_factors WHERE account = $1");
    let row = database.fetch_optional(select.bind(account.0)).await?;
    row.map(|mut row| Ok(Factor { secret: Secret::new(row.take()?), confirmed: row.take()? })).transpose()
}

/// A code is about to be looked at: it counts as wrong until [`accept`] says otherwise. `false`: too many were.
pub async fn charge(database: &Database, account: AccountId, tries: Tries) -> Result<bool, Error> {
    let update = sql("UPDATE second_factors SET full_at_ms = \
         CASE WHEN full_at_ms > {now_ms} THEN full_at_ms ELSE {now_ms} END + $2 \
         WHERE account = $1 AND full_at_ms <= {now_ms} + $3");
    // There is a token while at most burst − 1 are gone.
    let room = tries.every_ms().saturating_mul(u64::from(tries.burst.saturating_sub(1)));
    let update = update.bind(account.0).bind(tries.every_ms()).bind(room);
    Ok(database.execute(update).await? > 0)
}

/// The code of this time step was right: it is used up, and cost nothing. `false`: it was used before.
pub async fn accept(database: &Database, account: AccountId, step: u64, tries: Tries) -> Result<bool, Error> {
    let update =
        sql("UPDATE second_factors SET last_step = $2, confirmed = 1, full_at_ms = full_at_ms - $3 \
         WHERE account = $1 AND last_step < $2");
    let update = update.bind(account.0).bind(step).bind(tries.every_ms());
    Ok(database.execute(update).await? > 0)
}

/// Whether there was one.
pub async fn remove(database: &Database, account: AccountId) -> Result<bool, Error> {
    let delete = sql("DELETE FROM second_factors WHERE account = $1");
    Ok(database.execute(delete.bind(account.0)).await? > 0)
}
