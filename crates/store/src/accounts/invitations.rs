//! Invitations to register an account. The table holds only hashes of their tokens, so that a reader of the table
//! cannot use them.

use std::time::Duration;

use shardkeep_types::AccountId;

use super::{Proof, insert};
use crate::{Database, Error, sql, transact};

/// The outcome of a registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registered {
    Created(AccountId),
    NameTaken,
    /// The invitation is unknown, used up or expired.
    NotInvited,
}

pub async fn invite(
    database: &Database,
    hash: &[u8; 32],
    uses: u32,
    lifetime: Duration,
) -> Result<(), Error> {
    let insert = sql("INSERT INTO invitations (hash, uses_left, until_ms, created_ms) \
         VALUES ($1, $2, {now_ms} + $3, {now_ms})");
    let lifetime = u64::try_from(lifetime.as_millis()).unwrap_or(u64::from(u32::MAX));
    database.execute(insert.bind(*hash).bind(uses).bind(lifetime)).await?;
    // Removes expired invitations.
    database
        .execute(sql("DELETE FROM invitations WHERE uses_left < 1 OR until_ms <= {now_ms}"))
        .await
        .map(drop)
}

const TAKE: &str = "UPDATE invitations SET uses_left = uses_left - 1 \
     WHERE hash = $1 AND uses_left > 0 AND until_ms > {now_ms}";

/// Uses the invitation once, for an account that another store creates. `false`: it is unknown, used up or expired.
pub async fn take(database: &Database, hash: &[u8; 32]) -> Result<bool, Error> {
    Ok(database.execute(sql(TAKE).bind(*hash)).await? > 0)
}

/// Gives a use back, because the account was not created.
pub async fn return_use(database: &Database, hash: &[u8; 32]) -> Result<(), Error> {
    let update = sql("UPDATE invitations SET uses_left = uses_left + 1 WHERE hash = $1");
    database.execute(update.bind(*hash)).await.map(drop)
}

/// Creates an account and uses the invitation once, in one transaction.
pub async fn register(
    database: &Database,
    hash: &[u8; 32],
    name: &str,
    proof: &Proof,
) -> Result<Registered, Error> {
    let created: Result<Registered, Error> = transact!(database, |tx| async {
        if tx.execute(sql(TAKE).bind(*hash)).await? == 0 {
            return Ok(Registered::NotInvited);
        }
        Ok::<_, Error>(Registered::Created(insert(&mut tx, name, proof).await?))
    });
    match created {
        Err(error) if error.is_duplicate() => Ok(Registered::NameTaken),
        created => created,
    }
}
