//! Who is on the way in, where a second login is refused instead of taking the first one's place: an open connection
//! to login holds a lease on its generation. It is renewed while the connection stands and given back at its end; if
//! login dies it runs out by itself, so nobody is locked out for longer than that.

use std::time::Duration;

use super::AccountGeneration;
use crate::{Database, Error, Rows, Tx, sql};

pub(super) async fn take(tx: &mut Tx, of: &[AccountGeneration], lifetime: Duration) -> Result<(), Error> {
    let upsert = sql("INSERT INTO login_leases (account, generation, until_ms) \
         SELECT r.account, r.generation, {now_ms} + $1 FROM {rows} WHERE true ON CONFLICT (account) \
         DO UPDATE SET generation = excluded.generation, until_ms = excluded.until_ms");
    let rows = Rows::new()
        .ints("account", of.iter().map(|it| it.id.0))
        .ints("generation", of.iter().map(|it| it.generation.0));
    tx.execute(upsert.bind(millis(lifetime)).rows(rows)).await.map(drop)
}

/// `false`: the generation has passed, or the lease was given back.
pub async fn renew(database: &Database, of: AccountGeneration, lifetime: Duration) -> Result<bool, Error> {
    let update =
        sql("UPDATE login_leases SET until_ms = {now_ms} + $3 WHERE account = $1 AND generation = $2");
    let update = update.bind(of.id.0).bind(of.generation.0).bind(millis(lifetime));
    Ok(database.execute(update).await? > 0)
}

/// The connection goes on under a new generation.
pub async fn move_to(database: &Database, to: AccountGeneration, lifetime: Duration) -> Result<(), Error> {
    let update = sql("UPDATE login_leases SET generation = $2, until_ms = {now_ms} + $3 \
         WHERE account = $1 AND generation <= $2");
    database.execute(update.bind(to.id.0).bind(to.generation.0).bind(millis(lifetime))).await.map(drop)
}

pub async fn release(database: &Database, of: AccountGeneration) -> Result<(), Error> {
    let delete = sql("DELETE FROM login_leases WHERE account = $1 AND generation = $2");
    database.execute(delete.bind(of.id.0).bind(of.generation.0)).await.map(drop)
}

/// How long the lease on this generation still lasts; `None`: it is free.
pub async fn remaining(database: &Database, of: AccountGeneration) -> Result<Option<Duration>, Error> {
    let select = sql("SELECT until_ms - {now_ms} FROM login_leases WHERE account = $1 AND generation = $2");
    let row = database.fetch_optional(select.bind(of.id.0).bind(of.generation.0)).await?;
    let left: Option<i64> = row.map(|mut row| row.take()).transpose()?;
    Ok(left.and_then(|left| u64::try_from(left).ok()).filter(|left| *left > 0).map(Duration::from_millis))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::from(u32::MAX))
}
