//! Changes of an account at the centre. Each states the wanted result. A change that is already in place has no
//! effect, not even on the version.

use shardkeep_types::AccountId;

use super::{Account, lock};
use crate::{
    Database, Error, Query, Tx,
    accounts::{Ban, Proof, ban_until, bind_verifier},
    sql, transact,
};

/// The outcome of a change.
pub enum ChangeOutcome {
    Current(Box<Account>),
    Unknown,
    /// Another change came after the version that the caller knows.
    Conflict,
}

/// Sets a new password. With `expected_version`, only if the account still has that version.
pub async fn set_proof(
    database: &Database,
    id: AccountId,
    expected_version: Option<u64>,
    proof: &Proof,
) -> Result<ChangeOutcome, Error> {
    transact!(database, |tx| async {
        let account =
            match lock_and_check(&mut tx, id, expected_version, |account| account.proof == *proof).await? {
                Precheck::Proceed(account) => account,
                Precheck::Done(outcome) => return Ok(outcome),
            };
        let update =
            sql("UPDATE central_accounts SET version = $2, srp_group = $3, salt = $4, verifier = $5 \
             WHERE id = $1");
        let version = next_version(&mut tx).await?;
        tx.execute(bind_verifier(update.bind(id.0).bind(version), proof)).await?;
        Ok::<_, Error>(current(Account { proof: proof.clone(), version, ..account }))
    })
}

/// Sets or removes the second factor. The caller knows whether this is the present one under another key.
pub async fn set_factor(
    database: &Database,
    id: AccountId,
    expected_version: Option<u64>,
    factor: Option<&[u8]>,
) -> Result<ChangeOutcome, Error> {
    transact!(database, |tx| async {
        let nothing = |account: &Account| account.factor.is_none() && factor.is_none();
        let account = match lock_and_check(&mut tx, id, expected_version, nothing).await? {
            Precheck::Proceed(account) => account,
            Precheck::Done(outcome) => return Ok(outcome),
        };
        let version = next_version(&mut tx).await?;
        let update =
            sql("UPDATE central_accounts SET version = $2, factor_version = $2, second_factor = $3 \
             WHERE id = $1");
        tx.execute(update.bind(id.0).bind(version).bind(factor.unwrap_or_default())).await?;
        let factor = factor.map(|factor| factor.to_vec().into());
        Ok::<_, Error>(current(Account { factor, factor_version: version, version, ..account }))
    })
}

/// Sets a ban in all regions; [`Ban::default`] ends it.
pub async fn set_ban(database: &Database, id: AccountId, ban: &Ban) -> Result<ChangeOutcome, Error> {
    transact!(database, |tx| async {
        let account = match lock_and_check(&mut tx, id, None, |account| account.ban == *ban).await? {
            Precheck::Proceed(account) => account,
            Precheck::Done(outcome) => return Ok(outcome),
        };
        let version = next_version(&mut tx).await?;
        let update = sql("UPDATE central_accounts SET version = $2, banned_until_ms = $3, ban_reason = $4 \
             WHERE id = $1");
        let update: Query = update.bind(id.0).bind(version).bind(ban_until(ban)).bind(&ban.reason);
        tx.execute(update).await?;
        Ok::<_, Error>(current(Account { ban: ban.clone(), version, ..account }))
    })
}

enum Precheck {
    Proceed(Account),
    Done(ChangeOutcome),
}

/// Locks the account, and returns whether there is anything to change.
async fn lock_and_check(
    tx: &mut Tx,
    id: AccountId,
    expected_version: Option<u64>,
    already_applied: impl Fn(&Account) -> bool,
) -> Result<Precheck, Error> {
    Ok(match lock(tx, id).await? {
        None => Precheck::Done(ChangeOutcome::Unknown),
        // Checked before the versions, because a repeat carries the version from before its first attempt.
        Some(account) if already_applied(&account) => Precheck::Done(current(account)),
        Some(account)
            if expected_version.is_some_and(|expected_version| expected_version != account.version) =>
        {
            Precheck::Done(ChangeOutcome::Conflict)
        }
        Some(account) => Precheck::Proceed(account),
    })
}

fn current(account: Account) -> ChangeOutcome {
    ChangeOutcome::Current(Box::new(account))
}

async fn next_version(tx: &mut Tx) -> Result<u64, Error> {
    let next = sql("UPDATE central_numbers SET version = version + 1 WHERE one = 1 RETURNING version");
    super::version_in(tx.fetch_optional(next).await?)
}
