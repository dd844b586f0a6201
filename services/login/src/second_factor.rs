//! Codes of the second factor: looked at one by one against the account's secret, each usable once, wrong ones few.

use shardkeep_auth::totp;
use shardkeep_store::accounts::second_factor::{self as table, Tries};
use shardkeep_types::AccountId;

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

/// Checks a code. The first one puts a new factor in force.
pub(crate) async fn check(door: &Door, account: AccountId, typed: &str) -> Result<(), LoginError> {
    let checked = look_at(door, account, typed).await;
    metrics::second_factor(checked.as_ref().map_or_else(LoginError::label, |()| "ok"));
    if let Err(LoginError::WrongCode) = checked {
        shardkeep_daemon::event!("second_factor_denied", account = account.0);
    }
    checked
}

async fn look_at(door: &Door, account: AccountId, typed: &str) -> Result<(), LoginError> {
    let database = &door.database;
    let tries = Tries { burst: door.config.codes.burst, every: door.config.codes.every };
    let factor = table::find(database, account).await?;
    let factor = factor.ok_or(LoginError::Refused("this account has no second factor"))?;
    if !table::charge(database, account, tries).await? {
        return Err(LoginError::Throttled { limit: "codes", wait: tries.every });
    }
    let secret = door.vault.open(account, factor.secret.expose())?;
    let step = totp::step_of(secret.expose(), typed, random::unix_millis()).ok_or(LoginError::WrongCode)?;
    if !factor.confirmed {
        authority::confirm_factor(door, account, &secret).await?;
    }
    if table::accept(database, account, step, tries).await? { Ok(()) } else { Err(LoginError::WrongCode) }
}
