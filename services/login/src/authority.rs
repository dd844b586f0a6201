//! Who decides what proves an account, and whom it shuts out everywhere: this region's store, where there is no centre;
//! otherwise the centre first, and then the region's copy. If the copy fails, it comes by the stream of changes; if
//! the centre does not answer, nothing is changed here, and asking again settles what has become of it there.

use std::net::IpAddr;

use shardkeep_auth::AccountName;
use shardkeep_store::{
    accounts::{
        self, Ban, Cause, Credentials, Proof, Raised,
        invitations::{self, Registered},
        second_factor as factors,
    },
    central::Account,
};
use shardkeep_types::{AccountId, Secret};

use crate::{
    LoginError,
    central::{CentralError, Centre, follow::apply},
    door::Door,
    metrics,
};

/// An account that an operator's command was applied to; the generation, if it is active here.
pub(crate) struct Told {
    pub(crate) id: AccountId,
    pub(crate) here: Option<Raised>,
}

/// Makes an account; `None`: the name is taken.
pub(crate) async fn create(
    door: &Door,
    name: &AccountName,
    proof: &Proof,
) -> Result<Option<AccountId>, LoginError> {
    let Some(centre) = &door.centre else {
        return Ok(accounts::create(&door.database, name.as_str(), proof).await?);
    };
    match centre.create(name.as_str(), proof).await {
        Ok(account) => {
            apply(door, &account).await?;
            Ok(Some(account.id))
        }
        Err(CentralError::Taken) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Makes an account and uses an invitation of this region once; both or neither.
pub(crate) async fn register(
    door: &Door,
    invitation: &[u8; 32],
    name: &AccountName,
    proof: &Proof,
) -> Result<Registered, LoginError> {
    let database = &door.database;
    if door.centre.is_none() {
        return Ok(invitations::register(database, invitation, name.as_str(), proof).await?);
    }
    if !invitations::take(database, invitation).await? {
        return Ok(Registered::NotInvited);
    }
    let made = create(door, name, proof).await;
    if let Ok(Some(id)) = made {
        return Ok(Registered::As(id));
    }
    invitations::give_back(database, invitation).await?;
    made.map(|_| Registered::NameTaken)
}

/// A new password, by an operator. `None`: there is no such account.
pub(crate) async fn set_proof(
    door: &Door,
    name: &AccountName,
    proof: &Proof,
    cause: &Cause,
) -> Result<Option<Told>, LoginError> {
    let Some(centre) = &door.centre else {
        let raised = accounts::set_proof(&door.database, name.as_str(), proof, cause).await?;
        return Ok(raised.map(|raised| Told { id: raised.id, here: Some(raised) }));
    };
    let Some(id) = id_of(centre, name).await? else { return Ok(None) };
    let account = centre.set_proof(id, None, proof).await?;
    copy_if_active(door, &account).await.map(Some)
}

/// The same by the player, whose session still has to be the last one; `None`: it is not.
pub(crate) async fn change_proof(
    door: &Door,
    of: Raised,
    proof: &Proof,
    cause: &Cause,
) -> Result<Option<Raised>, LoginError> {
    let database = &door.database;
    let Some(centre) = &door.centre else {
        return Ok(accounts::change_proof(database, of.id, of.generation, proof, cause).await?);
    };
    let here = accounts::by_id(database, of.id).await?;
    let Some(here) = here.filter(|here| here.generation == of.generation) else { return Ok(None) };
    // Who has stolen a session elsewhere, and is about to lose it, must not be quicker than the news of that.
    let account = centre.set_proof(of.id, Some(here.central_version), proof).await?;
    apply(door, &account).await?;
    // This change may have come by the stream before; nothing else may have.
    let here = accounts::by_id(database, of.id).await?;
    let raised = Raised { id: of.id, generation: of.generation.next() };
    let ours = |here: &accounts::Account| {
        here.generation == raised.generation && here.central_version == account.version
    };
    Ok(here.filter(ours).map(|_| raised))
}

/// A second factor in force at once, in place of any other, or none; by an operator. `None`: no such account.
pub(crate) async fn set_factor(
    door: &Door,
    name: &AccountName,
    factor: Option<&Secret<Vec<u8>>>,
) -> Result<Option<AccountId>, LoginError> {
    let Some(centre) = &door.centre else {
        let Some(account) = accounts::by_name(&door.database, name.as_str()).await? else { return Ok(None) };
        match factor {
            Some(secret) => {
                let sealed = door.vault.seal(account.id, secret.expose())?;
                factors::set(&door.database, account.id, &sealed).await?;
            }
            None => drop(factors::remove(&door.database, account.id).await?),
        }
        return Ok(Some(account.id));
    };
    let Some(id) = id_of(centre, name).await? else { return Ok(None) };
    let account = centre.set_factor(id, None, factor).await?;
    copy_if_active(door, &account).await.map(|told| Some(told.id))
}

/// The player has given the first code of a new second factor: it is in force. Without a centre the code itself does
/// that.
pub(crate) async fn confirm_factor(
    door: &Door,
    id: AccountId,
    secret: &Secret<Vec<u8>>,
) -> Result<(), LoginError> {
    let Some(centre) = &door.centre else { return Ok(()) };
    change_factor(door, centre, id, Some(secret)).await
}

/// The player has none any more.
pub(crate) async fn remove_factor(door: &Door, id: AccountId) -> Result<(), LoginError> {
    match &door.centre {
        None => drop(factors::remove(&door.database, id).await?),
        Some(centre) => change_factor(door, centre, id, None).await?,
    }
    Ok(())
}

async fn change_factor(
    door: &Door,
    centre: &Centre,
    id: AccountId,
    factor: Option<&Secret<Vec<u8>>>,
) -> Result<(), LoginError> {
    let here = accounts::by_id(&door.database, id).await?.ok_or(LoginError::Displaced)?;
    let account = centre.set_factor(id, Some(here.central_version), factor).await?;
    apply(door, &account).await.map(drop)
}

/// A ban in all regions, or its end by [`Ban::default`]. `None`: no such account.
pub(crate) async fn ban_everywhere(
    door: &Door,
    name: &AccountName,
    ban: &Ban,
) -> Result<Option<Told>, LoginError> {
    let centre = door.centre.as_ref().ok_or(LoginError::Refused(
        "this cluster belongs to no region of a centre (login.central): a ban here is a ban everywhere",
    ))?;
    let Some(id) = id_of(centre, name).await? else { return Ok(None) };
    let account = centre.set_ban(id, ban).await?;
    copy_if_active(door, &account).await.map(Some)
}

/// Somebody has proven the password of an account that only the centre knew: from now on it is active here. Told to
/// the centre before it is written here, so that no change of the account falls between.
pub(crate) async fn activate(
    door: &Door,
    name: &AccountName,
    proven: &Account,
    address: IpAddr,
) -> Result<Credentials, LoginError> {
    let centre = door.centre.as_ref().ok_or(LoginError::Internal("an account of no centre"))?;
    let now = match centre.activate(proven.id).await {
        Err(CentralError::Unknown) => Err(LoginError::Denied),
        now => Ok(now?),
    }?;
    if now.proof != proven.proof {
        return Err(LoginError::Denied);
    }
    apply(door, &now).await?;
    let here = accounts::credentials(&door.database, name.as_str()).await?.ok_or(LoginError::Denied)?;
    if here.proof != proven.proof {
        return Err(LoginError::Denied);
    }
    metrics::central_activated();
    shardkeep_daemon::event!("account_activated", account = here.id.0, region = centre.region(), %address);
    Ok(here)
}

async fn id_of(centre: &Centre, name: &AccountName) -> Result<Option<AccountId>, LoginError> {
    match centre.id_of(name.as_str()).await {
        Err(CentralError::Unknown) => Ok(None),
        id => Ok(Some(id?)),
    }
}

/// An operator's command does not make an account active here.
async fn copy_if_active(door: &Door, account: &Account) -> Result<Told, LoginError> {
    let id = account.id;
    if accounts::by_id(&door.database, id).await?.is_none() {
        return Ok(Told { id, here: None });
    }
    apply(door, account).await?;
    let here = accounts::by_id(&door.database, id).await?;
    Ok(Told { id, here: here.map(|here| Raised { id, generation: here.generation }) })
}
