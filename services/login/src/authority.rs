//! Who decides what proves an account, and whom it shuts out everywhere: this region's store, where there is no centre;
//! otherwise the centre first, and then the region's copy. If the copy fails, it comes by the stream of changes; if
//! the centre does not answer, nothing is changed here, and asking again settles what has become of it there.

use std::{net::IpAddr, ops::RangeInclusive};

use shardkeep_auth::AccountName;
use shardkeep_store::{
    accounts::{
        self, Ban, Cause, Credentials, Proof, Raised,
        invitations::{self, Registered},
        second_factor::{self as factors, Factor, Wish},
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

/// Makes an account and uses an invitation of this region once; both or neither. If it stays unknown whether the account
/// was made, the invitation is used: nobody gets two accounts for one.
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
    match create(door, name, proof).await {
        Ok(Some(id)) => Ok(Registered::As(id)),
        Ok(None) => {
            invitations::give_back(database, invitation).await?;
            Ok(Registered::NameTaken)
        }
        Err(error) => {
            if let LoginError::Central(CentralError::Refused(_) | CentralError::Unknown) = error {
                invitations::give_back(database, invitation).await?;
            }
            Err(error)
        }
    }
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
    let Some(known) = known_version(door, of).await? else { return Ok(None) };
    let account = centre.set_proof(of.id, Some(known), proof).await?;
    go_on(door, of, &account).await
}

/// The version of the centre's account that this region knows, if the player's session is still the last one. Who has
/// stolen a session elsewhere, and is about to lose it, must not be quicker than the news of that.
async fn known_version(door: &Door, of: Raised) -> Result<Option<u64>, LoginError> {
    let here = accounts::by_id(&door.database, of.id).await?;
    Ok(here.filter(|here| here.generation == of.generation).map(|here| here.central_version))
}

/// The player has changed the account so that the generation rises; `None`: something else has raised it too.
async fn go_on(door: &Door, of: Raised, account: &Account) -> Result<Option<Raised>, LoginError> {
    apply(door, account).await?;
    // This change may have come by the stream before; nothing else may have.
    let here = accounts::by_id(&door.database, of.id).await?;
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
    cause: &Cause,
) -> Result<Option<Told>, LoginError> {
    let Some(centre) = &door.centre else {
        let Some(account) = accounts::by_name(&door.database, name.as_str()).await? else { return Ok(None) };
        let here = match factor {
            Some(secret) => {
                let sealed = door.vault.seal(account.id, secret.expose())?;
                factors::set(&door.database, account.id, &sealed, cause).await?
            }
            None => {
                factors::remove(&door.database, account.id).await?;
                None
            }
        };
        return Ok(Some(Told { id: account.id, here }));
    };
    let Some(id) = id_of(centre, name).await? else { return Ok(None) };
    let account = centre.set_factor(id, None, factor).await?;
    copy_if_active(door, &account).await.map(Some)
}

/// The player has given the first code of the second factor that was begun, whose `secret` this is: it is in force, and
/// whoever is here by the password alone is not any longer.
pub(crate) async fn confirm_factor(
    door: &Door,
    of: Raised,
    factor: &Factor,
    secret: &Secret<Vec<u8>>,
    step: u64,
    cause: &Cause,
) -> Result<Wish<Raised>, LoginError> {
    let database = &door.database;
    let Some(centre) = &door.centre else {
        return Ok(factors::confirm(database, of, &factor.secret, step, cause).await?);
    };
    // Before the code is used up: what changes the factor after that is newer than this version.
    let Some(known) = known_version(door, of).await? else { return Ok(Wish::Passed) };
    match factors::use_up(database, of, factor, &(step..=step)).await? {
        Wish::Done(()) => {}
        Wish::Passed => return Ok(Wish::Passed),
        Wish::Otherwise => return Ok(Wish::Otherwise),
    }
    let account = centre.set_factor(of.id, Some(known), Some(secret)).await?;
    Ok(go_on(door, of, &account).await?.map_or(Wish::Passed, Wish::Done))
}

/// The player has given right codes of the second factor and has none any more.
pub(crate) async fn remove_factor(
    door: &Door,
    of: Raised,
    factor: &Factor,
    steps: &RangeInclusive<u64>,
) -> Result<Wish, LoginError> {
    let database = &door.database;
    let Some(centre) = &door.centre else {
        return Ok(factors::give_up(database, of, &factor.secret, steps).await?);
    };
    let Some(known) = known_version(door, of).await? else { return Ok(Wish::Passed) };
    let used = factors::use_up(database, of, factor, steps).await?;
    if used == Wish::Done(()) {
        let account = centre.set_factor(of.id, Some(known), None).await?;
        apply(door, &account).await?;
    }
    Ok(used)
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
