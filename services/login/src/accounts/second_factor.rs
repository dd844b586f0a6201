//! Codes of the second factor, each valid once. A single code can be guessed, so each account has a limit on wrong ones,
//! whichever client sends them. A client that knows the password could use up this limit for ever and keep the owner out.
//! Two codes in a row cannot be guessed, and are therefore checked even above the limit.

use std::{ops::RangeInclusive, sync::Arc};

use shardkeep_auth::totp;
use shardkeep_store::{
    Database,
    accounts::{
        AccountGeneration, RevocationCause,
        second_factor::{self as table, AttemptLimit, FactorUpdate},
    },
};
use shardkeep_types::{AccountId, Secret};

use crate::{
    accounts::{authority::Authority, secret_cipher::SecretCipher},
    config::Config,
    error::LoginError,
    metrics, random,
};

/// A new secret.
pub(crate) struct Enrolment {
    secret: [u8; totp::SECRET_BYTES],
    uri: String,
}

impl Enrolment {
    pub(crate) fn secret(&self) -> &[u8] {
        &self.secret
    }

    /// The text of the QR code for authenticator apps.
    pub(crate) fn uri(&self) -> &str {
        &self.uri
    }
}

/// Right codes, and the limit that they were counted against.
struct ValidCodes {
    steps: RangeInclusive<u64>,
    charged: Option<AttemptLimit>,
}

pub(crate) struct SecondFactors {
    database: Database,
    cipher: Arc<SecretCipher>,
    authority: Arc<Authority>,
    issuer: String,
    tries: AttemptLimit,
}

impl SecondFactors {
    pub(crate) fn new(
        config: &Config,
        database: Database,
        cipher: Arc<SecretCipher>,
        authority: Arc<Authority>,
    ) -> Self {
        let tries = AttemptLimit { burst: config.codes.burst, every: config.codes.every };
        Self { database, cipher, authority, issuer: config.issuer.clone(), tries }
    }

    pub(crate) fn enrol(&self, name: &str) -> Result<Enrolment, LoginError> {
        let secret = random::bytes()?;
        let uri = totp::uri(&self.issuer, name, &secret);
        Ok(Enrolment { secret, uri })
    }

    /// Stores a new secret, which is not in force before [`Self::confirm`].
    pub(crate) async fn begin(
        &self,
        session: AccountGeneration,
        enrolment: &Enrolment,
    ) -> Result<FactorUpdate, LoginError> {
        let stored = self.cipher.seal(session.id, &enrolment.secret)?;
        Ok(table::begin(&self.database, session, &stored).await?)
    }

    /// Checks one code or two codes in a row of the factor with this secret, and uses them up.
    pub(crate) async fn verify(
        &self,
        account: AccountId,
        secret: &Secret<Vec<u8>>,
        typed: &str,
    ) -> Result<(), LoginError> {
        with_metrics(account, async {
            let ValidCodes { steps, charged } = self.check_codes(account, secret, typed).await?;
            match table::accept(&self.database, account, secret, &steps, charged).await? {
                true => Ok(()),
                false if charged.is_none() => Err(LoginError::WrongCodes),
                false => Err(LoginError::WrongCode),
            }
        })
        .await
    }

    /// Puts the stored secret in force. A wrong code is not counted, because only a client that has seen the secret can
    /// know a right one. `None`: the session is no longer the last one.
    pub(crate) async fn confirm(
        &self,
        session: AccountGeneration,
        typed: &str,
        cause: &RevocationCause,
    ) -> Result<Option<AccountGeneration>, LoginError> {
        with_metrics(session.id, async {
            let factor = table::find(&self.database, session.id).await?;
            let factor = factor.ok_or(LoginError::Refused("no second factor was begun; begin one first"))?;
            if factor.confirmed {
                return Err(LoginError::Refused("a second factor is in force; remove it first"));
            }
            let secret = self.cipher.open(session.id, factor.secret.expose())?;
            let step = totp::matching_step(secret.expose(), typed, random::unix_millis());
            let step = step.ok_or(LoginError::WrongCode)?;
            let update = self.authority.confirm_factor(session, &factor, &secret, step, cause).await?;
            applied(update)
        })
        .await
    }

    /// Removes the second factor. `None`: the session is no longer the last one.
    pub(crate) async fn remove(
        &self,
        session: AccountGeneration,
        typed: &str,
    ) -> Result<Option<()>, LoginError> {
        with_metrics(session.id, async {
            let factor = table::find(&self.database, session.id).await?.filter(|factor| factor.confirmed);
            let factor = factor.ok_or(LoginError::Refused("this account has no second factor"))?;
            let ValidCodes { steps, .. } = self.check_codes(session.id, &factor.secret, typed).await?;
            applied(self.authority.remove_factor(session, &factor, &steps).await?)
        })
        .await
    }

    async fn check_codes(
        &self,
        account: AccountId,
        secret: &Secret<Vec<u8>>,
        typed: &str,
    ) -> Result<ValidCodes, LoginError> {
        let secret = self.cipher.open(account, secret.expose())?;
        let now_ms = random::unix_millis();
        if totp::is_code_pair(typed) {
            let steps = totp::steps_of_code_pair(secret.expose(), typed, now_ms);
            return Ok(ValidCodes { steps: steps.ok_or(LoginError::WrongCodes)?, charged: None });
        }
        if !table::charge_attempt(&self.database, account, self.tries).await? {
            metrics::throttled("codes");
            return Err(LoginError::TwoCodesNeeded { wait: self.tries.every });
        }
        let step = totp::matching_step(secret.expose(), typed, now_ms).ok_or(LoginError::WrongCode)?;
        Ok(ValidCodes { steps: step..=step, charged: Some(self.tries) })
    }
}

fn applied<T>(update: FactorUpdate<T>) -> Result<Option<T>, LoginError> {
    match update {
        FactorUpdate::Done(done) => Ok(Some(done)),
        FactorUpdate::SessionOutdated => Ok(None),
        // The code was right, but was used meanwhile, or the secret was replaced.
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
