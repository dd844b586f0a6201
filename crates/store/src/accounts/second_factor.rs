//! Second factors: the secret, the last used code, and a token bucket for wrong codes. Each change compares its
//! preconditions (the player's session, the secret of the code) in the same statement, so that concurrent replicas or
//! an outdated session cannot get around them.

use std::{ops::RangeInclusive, time::Duration};

use shardkeep_types::{AccountId, Secret};

use super::{AccountGeneration, RevocationCause, is_current_session, raise_generation_in};
use crate::{Database, Error, sql, transact};

pub struct Factor {
    /// The secret as login stored it.
    pub secret: Secret<Vec<u8>>,
    /// Whether the player has confirmed the factor by a first code.
    pub confirmed: bool,
}

/// The limit of wrong codes: a burst, and the time until one more is allowed.
#[derive(Debug, Clone, Copy)]
pub struct AttemptLimit {
    pub burst: u32,
    pub every: Duration,
}

impl AttemptLimit {
    fn refill_ms(self) -> u64 {
        u64::try_from(self.every.as_millis()).unwrap_or(u64::from(u32::MAX))
    }
}

/// The outcome of a player's request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FactorUpdate<T = ()> {
    Done(T),
    /// The player's session no longer has the account's current generation.
    SessionOutdated,
    /// The stored factor is not the one that the request refers to.
    FactorMismatch,
}

/// Stores a secret that its first code will confirm. It replaces an unconfirmed one; a confirmed one stays.
pub async fn begin(database: &Database, of: AccountGeneration, secret: &[u8]) -> Result<FactorUpdate, Error> {
    transact!(database, |tx| async {
        let upsert = sql("INSERT INTO second_factors (account, secret, confirmed, last_step, full_at_ms) \
             VALUES ($1, $2, 0, 0, 0) ON CONFLICT (account) DO UPDATE SET secret = excluded.secret, \
             last_step = 0 WHERE second_factors.confirmed = 0");
        if !is_current_session(&mut tx, of).await? {
            return Ok(FactorUpdate::SessionOutdated);
        }
        done(tx.execute(upsert.bind(of.id.0).bind(secret)).await?)
    })
}

/// Confirms a secret by its first code, and uses the code up. The generation rises, so sessions that only gave a
/// password end.
pub async fn confirm(
    database: &Database,
    of: AccountGeneration,
    secret: &Secret<Vec<u8>>,
    step: u64,
    cause: &RevocationCause,
) -> Result<FactorUpdate<AccountGeneration>, Error> {
    transact!(database, |tx| async {
        let update = sql("UPDATE second_factors SET confirmed = 1, last_step = $3, full_at_ms = 0 \
             WHERE account = $1 AND secret = $2 AND confirmed = 0 AND last_step < $3");
        if !is_current_session(&mut tx, of).await? {
            return Ok(FactorUpdate::SessionOutdated);
        }
        let update = update.bind(of.id.0).bind(secret.expose().clone()).bind(step);
        if tx.execute(update).await? == 0 {
            return Ok(FactorUpdate::FactorMismatch);
        }
        Ok::<_, Error>(
            raise_generation_in(&mut tx, of.id, cause)
                .await?
                .map_or(FactorUpdate::SessionOutdated, FactorUpdate::Done),
        )
    })
}

/// Puts a secret in force at once, in place of any other, at an operator's request. The generation rises. `None`:
/// there is no such account.
pub async fn set(
    database: &Database,
    account: AccountId,
    secret: &[u8],
    cause: &RevocationCause,
) -> Result<Option<AccountGeneration>, Error> {
    transact!(database, |tx| async {
        let raised = raise_generation_in(&mut tx, account, cause).await?;
        if raised.is_some() {
            let upsert =
                sql("INSERT INTO second_factors (account, secret, confirmed, last_step, full_at_ms) \
                 VALUES ($1, $2, 1, 0, 0) ON CONFLICT (account) DO UPDATE SET secret = excluded.secret, \
                 confirmed = 1, last_step = 0, full_at_ms = 0");
            tx.execute(upsert.bind(account.0).bind(secret)).await?;
        }
        Ok::<_, Error>(raised)
    })
}

pub async fn find(database: &Database, account: AccountId) -> Result<Option<Factor>, Error> {
    let select = sql("SELECT secret, confirmed FROM second_factors WHERE account = $1");
    let row = database.fetch_optional(select.bind(account.0)).await?;
    row.map(|mut row| Ok(Factor { secret: Secret::new(row.take()?), confirmed: row.take()? })).transpose()
}

/// Charges an attempt before its code is checked; [`accept`] refunds a right one. `false`: too many wrong attempts. A
/// bucket that is full later than it can be was charged before the clock was set back, and counts as full now.
pub async fn charge_attempt(
    database: &Database,
    account: AccountId,
    tries: AttemptLimit,
) -> Result<bool, Error> {
    let update = sql("UPDATE second_factors SET full_at_ms = \
         CASE WHEN full_at_ms > {now_ms} AND full_at_ms <= {now_ms} + $3 THEN full_at_ms ELSE {now_ms} END + $2 \
         WHERE account = $1 AND (full_at_ms <= {now_ms} + $3 OR full_at_ms > {now_ms} + $3 + $2 + 1000)");
    // A token is left while at most burst − 1 are used.
    let room = tries.refill_ms().saturating_mul(u64::from(tries.burst.saturating_sub(1)));
    let update = update.bind(account.0).bind(tries.refill_ms()).bind(room);
    Ok(database.execute(update).await? > 0)
}

/// Uses up codes of a confirmed secret, by their time steps, and refunds the attempt. `false`: a code was used
/// before, or the secret has changed.
pub async fn accept(
    database: &Database,
    account: AccountId,
    secret: &Secret<Vec<u8>>,
    steps: &RangeInclusive<u64>,
    charged: Option<AttemptLimit>,
) -> Result<bool, Error> {
    let update = sql("UPDATE second_factors SET last_step = $4, full_at_ms = full_at_ms - $5 \
         WHERE account = $1 AND secret = $2 AND confirmed = 1 AND last_step < $3");
    let update = update.bind(account.0).bind(secret.expose().clone()).bind(*steps.start());
    let update = update.bind(*steps.end()).bind(charged.map_or(0, AttemptLimit::refill_ms));
    Ok(database.execute(update).await? > 0)
}

/// Uses up codes of a factor that the centre is about to change. `factor` says whether it is confirmed.
pub async fn consume_codes(
    database: &Database,
    of: AccountGeneration,
    factor: &Factor,
    steps: &RangeInclusive<u64>,
) -> Result<FactorUpdate, Error> {
    transact!(database, |tx| async {
        let update = sql("UPDATE second_factors SET last_step = $5 \
             WHERE account = $1 AND secret = $2 AND confirmed = $3 AND last_step < $4");
        if !is_current_session(&mut tx, of).await? {
            return Ok(FactorUpdate::SessionOutdated);
        }
        let update = update.bind(of.id.0).bind(factor.secret.expose().clone()).bind(factor.confirmed);
        done(tx.execute(update.bind(*steps.start()).bind(*steps.end())).await?)
    })
}

/// Removes the factor at the player's request, with right codes of its secret.
pub async fn disable(
    database: &Database,
    of: AccountGeneration,
    secret: &Secret<Vec<u8>>,
    steps: &RangeInclusive<u64>,
) -> Result<FactorUpdate, Error> {
    transact!(database, |tx| async {
        let delete = sql("DELETE FROM second_factors \
             WHERE account = $1 AND secret = $2 AND confirmed = 1 AND last_step < $3");
        if !is_current_session(&mut tx, of).await? {
            return Ok(FactorUpdate::SessionOutdated);
        }
        let delete = delete.bind(of.id.0).bind(secret.expose().clone()).bind(*steps.start());
        done(tx.execute(delete).await?)
    })
}

/// Removes the factor at an operator's request. `false`: there was none.
pub async fn remove(database: &Database, account: AccountId) -> Result<bool, Error> {
    let delete = sql("DELETE FROM second_factors WHERE account = $1");
    Ok(database.execute(delete.bind(account.0)).await? > 0)
}

fn done(rows: u64) -> Result<FactorUpdate, Error> {
    Ok(if rows > 0 { FactorUpdate::Done(()) } else { FactorUpdate::FactorMismatch })
}
