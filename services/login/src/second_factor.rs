//! Codes of the second factor, each usable once. One code can be guessed, so wrong ones are few: for the account as a whole,
//! whoever gives them. Whoever knows the password could use that up for ever and keep the owner out; so two codes in a row,
//! which nobody guesses, are looked at however many were wrong.

use std::ops::RangeInclusive;

use shardkeep_auth::totp;
use shardkeep_store::accounts::{
    AccountGeneration, RevocationCause,
    second_factor::{self as table, AttemptLimit, FactorUpdate},
};
use shardkeep_types::{AccountId, Secret};

use crate::{LoginError, authority, context::LoginContext, metrics, random};

/// A new secret, and what an authenticator app reads.
pub(crate) struct Enrolment {
    pub(crate) secret: [u8; totp::SECRET_BYTES],
    pub(crate) uri: String,
}

impl Enrolment {
    pub(crate) fn new(context: &LoginContext, name: &str) -> Result<Self, LoginError> {
        let secret = random::bytes()?;
        let uri = totp::uri(&context.config.issuer, name, &secret);
        Ok(Self { secret, uri })
    }

    /// As the store keeps it.
    pub(crate) fn stored(&self, context: &LoginContext, account: AccountId) -> Result<Vec<u8>, LoginError> {
        context.secret_cipher.seal(account, &self.secret)
    }
}

/// Codes that are right, and what they were charged.
struct ValidCodes {
    steps: RangeInclusive<u64>,
    charged: Option<AttemptLimit>,
}

/// A code, or two, of the factor in force that has this secret. Uses them up.
pub(crate) async fn verify(
    context: &LoginContext,
    account: AccountId,
    secret: &Secret<Vec<u8>>,
    typed: &str,
) -> Result<(), LoginError> {
    with_metrics(account, async {
        let ValidCodes { steps, charged } = check_codes(context, account, secret, typed).await?;
        match table::accept(&context.database, account, secret, &steps, charged).await? {
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
    context: &LoginContext,
    session: AccountGeneration,
    typed: &str,
    cause: &RevocationCause,
) -> Result<Option<AccountGeneration>, LoginError> {
    with_metrics(session.id, async {
        let factor = table::find(&context.database, session.id).await?;
        let factor = factor.ok_or(LoginError::Refused("no second factor was begun"))?;
        if factor.confirmed {
            return Err(LoginError::Refused("a second factor is in force; remove it first"));
        }
        let secret = context.secret_cipher.open(session.id, factor.secret.expose())?;
        let step = totp::matching_step(secret.expose(), typed, random::unix_millis());
        let step = step.ok_or(LoginError::WrongCode)?;
        wish_result(authority::confirm_factor(context, session, &factor, &secret, step, cause).await?)
    })
    .await
}

/// The player has none any more. `None`: the session has passed.
pub(crate) async fn remove_factor(
    context: &LoginContext,
    session: AccountGeneration,
    typed: &str,
) -> Result<Option<()>, LoginError> {
    with_metrics(session.id, async {
        let factor = table::find(&context.database, session.id).await?.filter(|factor| factor.confirmed);
        let factor = factor.ok_or(LoginError::Refused("this account has no second factor"))?;
        let ValidCodes { steps, .. } = check_codes(context, session.id, &factor.secret, typed).await?;
        wish_result(authority::remove_factor(context, session, &factor, &steps).await?)
    })
    .await
}

fn wish_result<T>(wish: FactorUpdate<T>) -> Result<Option<T>, LoginError> {
    match wish {
        FactorUpdate::Done(done) => Ok(Some(done)),
        FactorUpdate::SessionOutdated => Ok(None),
        // Its code was right, and was used meanwhile, or the secret is another one.
        FactorUpdate::FactorMismatch => Err(LoginError::WrongCode),
    }
}

async fn with_metrics<T>(
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

async fn check_codes(
    context: &LoginContext,
    account: AccountId,
    secret: &Secret<Vec<u8>>,
    typed: &str,
) -> Result<ValidCodes, LoginError> {
    let secret = context.secret_cipher.open(account, secret.expose())?;
    if totp::is_code_pair(typed) {
        let steps = totp::steps_of_code_pair(secret.expose(), typed, random::unix_millis());
        return Ok(ValidCodes { steps: steps.ok_or(LoginError::WrongCodes)?, charged: None });
    }
    let tries = AttemptLimit { burst: context.config.codes.burst, every: context.config.codes.every };
    if !table::charge_attempt(&context.database, account, tries).await? {
        metrics::throttled("codes");
        return Err(LoginError::TwoCodesNeeded { wait: tries.every });
    }
    let step =
        totp::matching_step(secret.expose(), typed, random::unix_millis()).ok_or(LoginError::WrongCode)?;
    Ok(ValidCodes { steps: step..=step, charged: Some(tries) })
}
