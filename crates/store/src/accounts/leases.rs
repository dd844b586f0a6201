//! Leases of open login connections, for clusters that refuse a second login instead of displacing the first. Login
//! renews the lease of a connection and releases it at its end. If login dies, the lease ends by itself. A lease that
//! ends later than its lifetime from now counts as ended: the clock was set back after it was granted.

use std::time::Duration;

use super::AccountGeneration;
use crate::{Database, Error, Rows, Tx, sql};

pub(super) async fn take(tx: &mut Tx, of: &[AccountGeneration], lifetime: Duration) -> Result<(), Error> {
    let upsert = sql("INSERT INTO login_leases (account, generation, until_ms, ttl_ms) \
         SELECT r.account, r.generation, {now_ms} + $1, $1 FROM {rows} WHERE true ON CONFLICT (account) DO UPDATE \
         SET generation = excluded.generation, until_ms = excluded.until_ms, ttl_ms = excluded.ttl_ms");
    let rows = Rows::new()
        .ints("account", of.iter().map(|it| it.id.0))
        .ints("generation", of.iter().map(|it| it.generation.0));
    tx.execute(upsert.bind(millis(lifetime)).rows(rows)).await.map(drop)
}

/// `false`: the account has a later generation, or the lease was released.
pub async fn renew(database: &Database, of: AccountGeneration, lifetime: Duration) -> Result<bool, Error> {
    let update = sql(
        "UPDATE login_leases SET until_ms = {now_ms} + $3, ttl_ms = $3 WHERE account = $1 AND generation = $2",
    );
    let update = update.bind(of.id.0).bind(of.generation.0).bind(millis(lifetime));
    Ok(database.execute(update).await? > 0)
}

/// Moves the lease to the connection's new generation.
pub async fn move_to(database: &Database, to: AccountGeneration, lifetime: Duration) -> Result<(), Error> {
    let update = sql("UPDATE login_leases SET generation = $2, until_ms = {now_ms} + $3, ttl_ms = $3 \
         WHERE account = $1 AND generation <= $2");
    database.execute(update.bind(to.id.0).bind(to.generation.0).bind(millis(lifetime))).await.map(drop)
}

pub async fn release(database: &Database, of: AccountGeneration) -> Result<(), Error> {
    let delete = sql("DELETE FROM login_leases WHERE account = $1 AND generation = $2");
    database.execute(delete.bind(of.id.0).bind(of.generation.0)).await.map(drop)
}

/// The time until the lease on this generation ends; `None` if there is no lease.
pub async fn remaining(database: &Database, of: AccountGeneration) -> Result<Option<Duration>, Error> {
    let select = sql("SELECT until_ms - {now_ms} FROM login_leases WHERE account = $1 AND generation = $2 \
         AND until_ms <= {now_ms} + ttl_ms + 1000");
    let row = database.fetch_optional(select.bind(of.id.0).bind(of.generation.0)).await?;
    let left: Option<i64> = row.map(|mut row| row.take()).transpose()?;
    Ok(left.and_then(|left| u64::try_from(left).ok()).filter(|left| *left > 0).map(Duration::from_millis))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::from(u32::MAX))
}
