//! Changes of an account at the centre. Each says how the account is afterwards, and what is so already stays as it is,
//! version included.

use shardkeep_types::AccountId;

use super::{Account, lock};
use crate::{
    Database, Error, Query, Tx,
    accounts::{Ban, Proof, ban_until, bind_proof},
    sql, transact,
};

/// What came of a change.
pub enum Changed {
    Is(Box<Account>),
    Unknown,
    /// Somebody else has changed it since the version that the caller knows.
    Meanwhile,
}

/// A new password. With `known`, only if that is still the account's version.
pub async fn set_proof(
    database: &Database,
    id: AccountId,
    known: Option<u64>,
    proof: &Proof,
) -> Result<Changed, Error> {
    transact!(database, |tx| async {
        let account = match look(&mut tx, id, known, |account| account.proof == *proof).await? {
            Look::Change(account) => account,
            Look::Done(outcome) => return Ok(outcome),
        };
        let update =
            sql("UPDATE central_accounts SET version = $2, srp_group = $3, salt = $4, verifier = $5 \
             WHERE id = $1");
        let version = next_version(&mut tx).await?;
        tx.execute(bind_proof(update.bind(id.0).bind(version), proof)).await?;
        Ok::<_, Error>(is(Account { proof: proof.clone(), version, ..account }))
    })
}

/// Another second factor, or none. Whether it is the present one in another cipher the caller knows.
pub async fn set_factor(
    database: &Database,
    id: AccountId,
    known: Option<u64>,
    factor: Option<&[u8]>,
) -> Result<Changed, Error> {
    transact!(database, |tx| async {
        let nothing = |account: &Account| account.factor.is_none() && factor.is_none();
        let account = match look(&mut tx, id, known, nothing).await? {
            Look::Change(account) => account,
            Look::Done(outcome) => return Ok(outcome),
        };
        let version = next_version(&mut tx).await?;
        let update =
            sql("UPDATE central_accounts SET version = $2, factor_version = $2, second_factor = $3 \
             WHERE id = $1");
        tx.execute(update.bind(id.0).bind(version).bind(factor.unwrap_or_default())).await?;
        let factor = factor.map(|factor| factor.to_vec().into());
        Ok::<_, Error>(is(Account { factor, factor_version: version, version, ..account }))
    })
}

/// A ban in all regions; its end with [`Ban::default`].
pub async fn set_ban(database: &Database, id: AccountId, ban: &Ban) -> Result<Changed, Error> {
    transact!(database, |tx| async {
        let account = match look(&mut tx, id, None, |account| account.ban == *ban).await? {
            Look::Change(account) => account,
            Look::Done(outcome) => return Ok(outcome),
        };
        let version = next_version(&mut tx).await?;
        let update = sql("UPDATE central_accounts SET version = $2, banned_until_ms = $3, ban_reason = $4 \
             WHERE id = $1");
        let update: Query = update.bind(id.0).bind(version).bind(ban_until(ban)).bind(&ban.reason);
        tx.execute(update).await?;
        Ok::<_, Error>(is(Account { ban: ban.clone(), version, ..account }))
    })
}

enum Look {
    Change(Account),
    Done(Changed),
}

/// Locks the account, and says whether there is anything to do.
async fn look(
    tx: &mut Tx,
    id: AccountId,
    known: Option<u64>,
    so_already: impl Fn(&Account) -> bool,
) -> Result<Look, Error> {
    Ok(match lock(tx, id).await? {
        None => Look::Done(Changed::Unknown),
        // Before the versions are compared: a repeat knows the version before its first attempt.
        Some(account) if so_already(&account) => Look::Done(is(account)),
        Some(account) if known.is_some_and(|known| known != account.version) => {
            Look::Done(Changed::Meanwhile)
        }
        Some(account) => Look::Change(account),
    })
}

fn is(account: Account) -> Changed {
    Changed::Is(Box::new(account))
}

async fn next_version(tx: &mut Tx) -> Result<u64, Error> {
    let next = sql("UPDATE central_numbers SET version = version + 1 WHERE one = 1 RETURNING version");
    super::version_in(tx.fetch_optional(next).await?)
}
