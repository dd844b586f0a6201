//! Changes of an account at the centre. Each says how the account is afterwards, and what is so already stays as it is,
//! version included.

use shardkeep_types::AccountId;

use super::{Account, lock};
use crate::{
    Database, Error, Query, Tx,
    accounts::{Ban, Proof, ban_until, bind_verifier},
    sql, transact,
};

/// What came of a change.
pub enum ChangeOutcome {
    Current(Box<Account>),
    Unknown,
    /// Somebody else has changed it since the version that the caller knows.
    Conflict,
}

/// A new password. With `expected_version`, only if that is still the account's version.
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

/// Another second factor, or none. Whether it is the present one in another cipher the caller knows.
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

/// A ban in all regions; its end with [`Ban::default`].
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

/// Locks the account, and says whether there is anything to do.
async fn lock_and_check(
    tx: &mut Tx,
    id: AccountId,
    expected_version: Option<u64>,
    already_applied: impl Fn(&Account) -> bool,
) -> Result<Precheck, Error> {
    Ok(match lock(tx, id).await? {
        None => Precheck::Done(ChangeOutcome::Unknown),
        // Before the versions are compared: a repeat knows the version before its first attempt.
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
