//! Codes of the second factor, each usable once. One code can be guessed, so wrong ones are few: for the account as a whole,
//! whoever gives them. Whoever knows the password could use that up for ever and keep the owner out; so two codes in a row,
//! which nobody guesses, are looked at however many were wrong.

use std::ops::RangeInclusive;

use shardkeep_auth::totp;
use shardkeep_store::accounts::{
    Cause, Raised,
    second_factor::{self as table, Tries, Wish},
};
use shardkeep_types::{AccountId, Secret};

use crate::{LoginError, authority, door::Door, metrics, random};

/// A new secret, and what an authenticator app reads.
pub(crate) struct Enrolment {
    pub(crate) secret: [u8; totp::SECRET_BYTES],
    pub(crate) uri: String,
}

impl Enrolment {
    pub(crate) fn new(door: &Door, name: &str) -> Result<Self, LoginError> {
        let secret = random::bytes()?;
        let uri = totp::uri(&door.config.issuer, name, &secret);
        Ok(Self { secret, uri })
    }

    /// As the store keeps it.
    pub(crate) fn stored(&self, door: &Door, account: AccountId) -> Result<Vec<u8>, LoginError> {
        door.vault.seal(account, &self.secret)
    }
}

/// Codes that are right, and what they were charged.
struct Right {
    steps: RangeInclusive<u64>,
    charged: Option<Tries>,
}

/// A code, or two, of the factor in force that has this secret. Uses them up.
pub(crate) async fn verify(
    door: &Door,
    account: AccountId,
    secret: &Secret<Vec<u8>>,
    typed: &str,
) -> Result<(), LoginError> {
    counted(account, async {
        let Right { steps, charged } = look_at(door, account, secret, typed).await?;
        match table::accept(&door.database, account, secret, &steps, charged).await? {
            true => Ok(()),
            false if charged.is_none() => Err(LoginError::WrongCodes),
            false => Err(LoginError::WrongCode),
        }
    })
    .await
}

/// Puts the factor in force that was begun. Who gives its first code has seen its secret, so nothing is charged. `None`:
/// the session has passed.
pub(crate) async fn confirm(
    door: &Door,
    of: Raised,
    typed: &str,
    cause: &Cause,
) -> Result<Option<Raised>, LoginError> {
    counted(of.id, async {
        let factor = table::find(&door.database, of.id).await?;
        let factor = factor.ok_or(LoginError::Refused("no second factor was begun"))?;
        if factor.confirmed {
            return Err(LoginError::Refused("a second factor is in force; remove it first"));
        }
        let secret = door.vault.open(of.id, factor.secret.expose())?;
        let step = totp::step_of(secret.expose(), typed, random::unix_millis());
        let step = step.ok_or(LoginError::WrongCode)?;
        granted(authority::confirm_factor(door, of, &factor, &secret, step, cause).await?)
    })
    .await
}

/// The player has none any more. `None`: the session has passed.
pub(crate) async fn give_up(door: &Door, of: Raised, typed: &str) -> Result<Option<()>, LoginError> {
    counted(of.id, async {
        let factor = table::find(&door.database, of.id).await?.filter(|factor| factor.confirmed);
        let factor = factor.ok_or(LoginError::Refused("this account has no second factor"))?;
        let Right { steps, .. } = look_at(door, of.id, &factor.secret, typed).await?;
        granted(authority::remove_factor(door, of, &factor, &steps).await?)
    })
    .await
}

fn granted<T>(wish: Wish<T>) -> Result<Option<T>, LoginError> {
    match wish {
        Wish::Done(done) => Ok(Some(done)),
        Wish::Passed => Ok(None),
        // Its code was right, and was used meanwhile, or the secret is another one.
        Wish::Otherwise => Err(LoginError::WrongCode),
    }
}

async fn counted<T>(
    account: AccountId,
    checked: impl Future<Output = Result<T, LoginError>>,
) -> Result<T, LoginError> {
    let checked = checked.await;
    metrics::second_factor(checked.as_ref().map_or_else(LoginError::label, |_| "ok"));
    if let Err(LoginError::WrongCode | LoginError::WrongCodes) = checked {
        shardkeep_daemon::event!("second_factor_denied", account = account.0);
    }
    checked
}

async fn look_at(
    door: &Door,
    account: AccountId,
    secret: &Secret<Vec<u8>>,
    typed: &str,
) -> Result<Right, LoginError> {
    let secret = door.vault.open(account, secret.expose())?;
    if totp::are_two(typed) {
        let steps = totp::steps_of_two(secret.expose(), typed, random::unix_millis());
        return Ok(Right { steps: steps.ok_or(LoginError::WrongCodes)?, charged: None });
    }
    let tries = Tries { burst: door.config.codes.burst, every: door.config.codes.every };
    if !table::charge(&door.database, account, tries).await? {
        metrics::throttled("codes");
        return Err(LoginError::TwoCodesNeeded { wait: tries.every });
    }
    let step = totp::step_of(secret.expose(), typed, random::unix_millis()).ok_or(LoginError::WrongCode)?;
    Ok(Right { steps: step..=step, charged: Some(tries) })
}
