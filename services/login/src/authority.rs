//! Who decides what proves an account, and whom it shuts out everywhere: this region's store, where there is no centre;
//! otherwise the centre first, and then the region's copy. If the copy fails, it comes by the stream of changes; if
//! the centre does not answer, nothing is changed here, and asking again settles what has become of it there.

use std::{net::IpAddr, ops::RangeInclusive};

use shardkeep_auth::AccountName;
use shardkeep_store::{
    accounts::{
        self, AccountGeneration, Ban, Credentials, Proof, RevocationCause,
        invitations::{self, Registered},
        second_factor::{self as factors, Factor, FactorUpdate},
    },
    central::Account,
};
use shardkeep_types::{AccountId, Secret};

use crate::{
    LoginError,
    central::{CentralAccounts, CentralError, follow::apply},
    context::LoginContext,
    metrics,
};

/// An account that an operator's command was applied to; the generation, if it is active here.
pub(crate) struct AccountChange {
    pub(crate) id: AccountId,
    pub(crate) local: Option<AccountGeneration>,
}

/// Makes an account; `None`: the name is taken.
pub(crate) async fn create(
    context: &LoginContext,
    name: &AccountName,
    proof: &Proof,
) -> Result<Option<AccountId>, LoginError> {
    let Some(central) = &context.central else {
        return Ok(accounts::create(&context.database, name.as_str(), proof).await?);
    };
    match central.create(name.as_str(), proof).await {
        Ok(account) => {
            apply(context, &account).await?;
            Ok(Some(account.id))
        }
        Err(CentralError::NameTaken) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Makes an account and uses an invitation of this region once; both or neither. If it stays unknown whether the account
/// was made, the invitation is used: nobody gets two accounts for one.
pub(crate) async fn register(
    context: &LoginContext,
    invitation: &[u8; 32],
    name: &AccountName,
    proof: &Proof,
) -> Result<Registered, LoginError> {
    let database = &context.database;
    if context.central.is_none() {
        return Ok(invitations::register(database, invitation, name.as_str(), proof).await?);
    }
    if !invitations::take(database, invitation).await? {
        return Ok(Registered::NotInvited);
    }
    match create(context, name, proof).await {
        Ok(Some(id)) => Ok(Registered::Created(id)),
        Ok(None) => {
            invitations::return_use(database, invitation).await?;
            Ok(Registered::NameTaken)
        }
        Err(error) => {
            if let LoginError::Central(CentralError::Refused(_) | CentralError::Unknown) = error {
                invitations::return_use(database, invitation).await?;
            }
            Err(error)
        }
    }
}

/// A new password, by an operator. `None`: there is no such account.
pub(crate) async fn set_proof(
    context: &LoginContext,
    name: &AccountName,
    proof: &Proof,
    cause: &RevocationCause,
) -> Result<Option<AccountChange>, LoginError> {
    let Some(central) = &context.central else {
        let raised = accounts::set_proof(&context.database, name.as_str(), proof, cause).await?;
        return Ok(raised.map(|raised| AccountChange { id: raised.id, local: Some(raised) }));
    };
    let Some(id) = id_of(central, name).await? else { return Ok(None) };
    let account = central.set_proof(id, None, proof).await?;
    copy_if_active(context, &account).await.map(Some)
}

/// The same by the player, whose session still has to be the last one; `None`: it is not.
pub(crate) async fn change_proof(
    context: &LoginContext,
    session: AccountGeneration,
    proof: &Proof,
    cause: &RevocationCause,
) -> Result<Option<AccountGeneration>, LoginError> {
    let database = &context.database;
    let Some(central) = &context.central else {
        return Ok(accounts::change_proof(database, session.id, session.generation, proof, cause).await?);
    };
    let Some(expected_version) = known_version(context, session).await? else { return Ok(None) };
    let account = central.set_proof(session.id, Some(expected_version), proof).await?;
    apply_own_change(context, session, &account).await
}

/// The version of the centre's account that this region knows, if the player's session is still the last one. Who has
/// stolen a session elsewhere, and is about to lose it, must not be quicker than the news of that.
async fn known_version(
    context: &LoginContext,
    session: AccountGeneration,
) -> Result<Option<u64>, LoginError> {
    let local = accounts::by_id(&context.database, session.id).await?;
    Ok(local.filter(|local| local.generation == session.generation).map(|local| local.central_version))
}

/// The player has changed the account so that the generation rises; `None`: something else has raised it too.
async fn apply_own_change(
    context: &LoginContext,
    session: AccountGeneration,
    account: &Account,
) -> Result<Option<AccountGeneration>, LoginError> {
    apply(context, account).await?;
    // This change may have come by the stream before; nothing else may have.
    let local = accounts::by_id(&context.database, session.id).await?;
    let raised = AccountGeneration { id: session.id, generation: session.generation.next() };
    let ours = |local: &accounts::Account| {
        local.generation == raised.generation && local.central_version == account.version
    };
    Ok(local.filter(ours).map(|_| raised))
}

/// A second factor in force at once, in place of any other, or none; by an operator. `None`: no such account.
pub(crate) async fn set_factor(
    context: &LoginContext,
    name: &AccountName,
    factor: Option<&Secret<Vec<u8>>>,
    cause: &RevocationCause,
) -> Result<Option<AccountChange>, LoginError> {
    let Some(central) = &context.central else {
        let Some(account) = accounts::by_name(&context.database, name.as_str()).await? else {
            return Ok(None);
        };
        let local = match factor {
            Some(secret) => {
                let sealed = context.secret_cipher.seal(account.id, secret.expose())?;
                factors::set(&context.database, account.id, &sealed, cause).await?
            }
            None => {
                factors::remove(&context.database, account.id).await?;
                None
            }
        };
        return Ok(Some(AccountChange { id: account.id, local }));
    };
    let Some(id) = id_of(central, name).await? else { return Ok(None) };
    let account = central.set_factor(id, None, factor).await?;
    copy_if_active(context, &account).await.map(Some)
}

/// The player has given the first code of the second factor that was begun, whose `secret` this is: it is in force, and
/// whoever is here by the password alone is not any longer.
pub(crate) async fn confirm_factor(
    context: &LoginContext,
    session: AccountGeneration,
    factor: &Factor,
    secret: &Secret<Vec<u8>>,
    step: u64,
    cause: &RevocationCause,
) -> Result<FactorUpdate<AccountGeneration>, LoginError> {
    let database = &context.database;
    let Some(central) = &context.central else {
        return Ok(factors::confirm(database, session, &factor.secret, step, cause).await?);
    };
    // Before the code is used up: what changes the factor after that is newer than this version.
    let Some(expected_version) = known_version(context, session).await? else {
        return Ok(FactorUpdate::SessionOutdated);
    };
    match factors::consume_codes(database, session, factor, &(step..=step)).await? {
        FactorUpdate::Done(()) => {}
        FactorUpdate::SessionOutdated => return Ok(FactorUpdate::SessionOutdated),
        FactorUpdate::FactorMismatch => return Ok(FactorUpdate::FactorMismatch),
    }
    let account = central.set_factor(session.id, Some(expected_version), Some(secret)).await?;
    Ok(apply_own_change(context, session, &account)
        .await?
        .map_or(FactorUpdate::SessionOutdated, FactorUpdate::Done))
}

/// The player has given right codes of the second factor and has none any more.
pub(crate) async fn remove_factor(
    context: &LoginContext,
    session: AccountGeneration,
    factor: &Factor,
    steps: &RangeInclusive<u64>,
) -> Result<FactorUpdate, LoginError> {
    let database = &context.database;
    let Some(central) = &context.central else {
        return Ok(factors::disable(database, session, &factor.secret, steps).await?);
    };
    let Some(expected_version) = known_version(context, session).await? else {
        return Ok(FactorUpdate::SessionOutdated);
    };
    let used = factors::consume_codes(database, session, factor, steps).await?;
    if used == FactorUpdate::Done(()) {
        let account = central.set_factor(session.id, Some(expected_version), None).await?;
        apply(context, &account).await?;
    }
    Ok(used)
}

/// A ban in all regions, or its end by [`Ban::default`]. `None`: no such account.
pub(crate) async fn ban_everywhere(
    context: &LoginContext,
    name: &AccountName,
    ban: &Ban,
) -> Result<Option<AccountChange>, LoginError> {
    let central = context.central.as_ref().ok_or(LoginError::Refused(
        "this cluster belongs to no region of a centre (login.central): a ban here is a ban everywhere",
    ))?;
    let Some(id) = id_of(central, name).await? else { return Ok(None) };
    let account = central.set_ban(id, ban).await?;
    copy_if_active(context, &account).await.map(Some)
}

/// Somebody has proven the password of an account that only the centre knew: from now on it is active here. Told to
/// the centre before it is written here, so that no change of the account falls between.
pub(crate) async fn activate(
    context: &LoginContext,
    name: &AccountName,
    proven: &Account,
    address: IpAddr,
) -> Result<Credentials, LoginError> {
    let central = context.central.as_ref().ok_or(LoginError::Internal("an account of no centre"))?;
    let now = match central.activate(proven.id).await {
        Err(CentralError::Unknown) => Err(LoginError::Denied),
        now => Ok(now?),
    }?;
    if now.proof != proven.proof {
        return Err(LoginError::Denied);
    }
    apply(context, &now).await?;
    let local = accounts::credentials(&context.database, name.as_str()).await?.ok_or(LoginError::Denied)?;
    if local.proof != proven.proof {
        return Err(LoginError::Denied);
    }
    metrics::central_activated();
    shardkeep_daemon::event!("account_activated", account = local.id.0, region = central.region(), %address);
    Ok(local)
}

async fn id_of(central: &CentralAccounts, name: &AccountName) -> Result<Option<AccountId>, LoginError> {
    match central.id_of(name.as_str()).await {
        Err(CentralError::Unknown) => Ok(None),
        id => Ok(Some(id?)),
    }
}

/// An operator's command does not make an account active here.
async fn copy_if_active(context: &LoginContext, account: &Account) -> Result<AccountChange, LoginError> {
    let id = account.id;
    if accounts::by_id(&context.database, id).await?.is_none() {
        return Ok(AccountChange { id, local: None });
    }
    apply(context, account).await?;
    let local = accounts::by_id(&context.database, id).await?;
    Ok(AccountChange { id, local: local.map(|local| AccountGeneration { id, generation: local.generation }) })
}
