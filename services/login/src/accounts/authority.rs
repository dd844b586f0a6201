//! New accounts, and changes of passwords, second factors and bans in all regions. Without a centre this region's
//! store decides. With a centre, the centre decides first and this region's copy follows. If the update of the copy
//! fails, the stream of changes repairs the copy. If the centre does not answer, this region's copy stays as it is.
//! The centre may have made the change all the same; repeating the request settles that.

use std::{net::IpAddr, ops::RangeInclusive, sync::Arc};

use shardkeep_auth::AccountName;
use shardkeep_store::{
    Database,
    accounts::{
        self, AccountGeneration, Ban, Credentials, Proof, RevocationCause,
        invitations::{self, Registered},
        second_factor::{self as factors, Factor, FactorUpdate},
    },
    central::Account,
};
use shardkeep_types::{AccountId, Secret};

use crate::{
    accounts::{regional_copy::RegionalCopy, secret_cipher::SecretCipher},
    central::{accounts::CentralAccounts, error::CentralError},
    error::LoginError,
    metrics,
};

/// An account that an operator changed.
pub(crate) struct AccountChange {
    pub(crate) id: AccountId,
    /// Its generation, if it is active in this region.
    pub(crate) local: Option<AccountGeneration>,
}

pub(crate) struct Authority {
    database: Database,
    central: Option<Arc<CentralAccounts>>,
    copy: RegionalCopy,
    cipher: Arc<SecretCipher>,
}

impl Authority {
    pub(crate) fn new(
        database: Database,
        central: Option<Arc<CentralAccounts>>,
        copy: RegionalCopy,
        cipher: Arc<SecretCipher>,
    ) -> Self {
        Self { database, central, copy, cipher }
    }

    /// Creates an account; `None`: the name is taken.
    pub(crate) async fn create(
        &self,
        name: &AccountName,
        proof: &Proof,
    ) -> Result<Option<AccountId>, LoginError> {
        let Some(central) = &self.central else {
            return Ok(accounts::create(&self.database, name.as_str(), proof).await?);
        };
        match central.create(name.as_str(), proof).await {
            Ok(account) => {
                self.copy.apply(&account).await?;
                Ok(Some(account.id))
            }
            Err(CentralError::NameTaken) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Creates an account and uses up one use of an invitation of this region; both or neither. If it stays unknown
    /// whether the account was created, the use is gone, so that one invitation never makes two accounts.
    pub(crate) async fn register(
        &self,
        invitation: &[u8; 32],
        name: &AccountName,
        proof: &Proof,
    ) -> Result<Registered, LoginError> {
        let database = &self.database;
        if self.central.is_none() {
            return Ok(invitations::register(database, invitation, name.as_str(), proof).await?);
        }
        if !invitations::take(database, invitation).await? {
            return Ok(Registered::NotInvited);
        }
        match self.create(name, proof).await {
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

    /// An operator sets a password. `None`: there is no such account.
    pub(crate) async fn set_proof(
        &self,
        name: &AccountName,
        proof: &Proof,
        cause: &RevocationCause,
    ) -> Result<Option<AccountChange>, LoginError> {
        let Some(central) = &self.central else {
            let raised = accounts::set_proof(&self.database, name.as_str(), proof, cause).await?;
            return Ok(raised.map(|raised| AccountChange { id: raised.id, local: Some(raised) }));
        };
        let Some(id) = id_of(central, name).await? else { return Ok(None) };
        let account = central.set_proof(id, None, proof).await?;
        self.copy_if_active(&account).await.map(Some)
    }

    /// The player changes the password. `None`: the session is no longer the last one.
    pub(crate) async fn change_proof(
        &self,
        session: AccountGeneration,
        proof: &Proof,
        cause: &RevocationCause,
    ) -> Result<Option<AccountGeneration>, LoginError> {
        let database = &self.database;
        let Some(central) = &self.central else {
            let AccountGeneration { id, generation } = session;
            return Ok(accounts::change_proof(database, id, generation, proof, cause).await?);
        };
        let Some(expected_version) = self.known_version(session).await? else { return Ok(None) };
        let account = central.set_proof(session.id, Some(expected_version), proof).await?;
        self.apply_own_change(session, &account).await
    }

    /// The version of the centre's account that this region knows, if the player's session is still the last one. The
    /// centre compares this version: if another change has already ended a thief's session, the thief must not be
    /// able to act before this region hears of that change.
    async fn known_version(&self, session: AccountGeneration) -> Result<Option<u64>, LoginError> {
        let local = accounts::by_id(&self.database, session.id).await?;
        Ok(local.filter(|local| local.generation == session.generation).map(|local| local.central_version))
    }

    /// Copies a change by the player that raises the generation. `None`: something else raised it too.
    async fn apply_own_change(
        &self,
        session: AccountGeneration,
        account: &Account,
    ) -> Result<Option<AccountGeneration>, LoginError> {
        self.copy.apply(account).await?;
        // The stream of changes may have brought this change first, but no other change may have come.
        let local = accounts::by_id(&self.database, session.id).await?;
        let raised = AccountGeneration { id: session.id, generation: session.generation.next() };
        let ours = |local: &accounts::Account| {
            local.generation == raised.generation && local.central_version == account.version
        };
        Ok(local.filter(ours).map(|_| raised))
    }

    /// An operator replaces the second factor, or removes it. `None`: there is no such account.
    pub(crate) async fn set_factor(
        &self,
        name: &AccountName,
        factor: Option<&Secret<Vec<u8>>>,
        cause: &RevocationCause,
    ) -> Result<Option<AccountChange>, LoginError> {
        let Some(central) = &self.central else {
            let Some(account) = accounts::by_name(&self.database, name.as_str()).await? else {
                return Ok(None);
            };
            let local = match factor {
                Some(secret) => {
                    let sealed = self.cipher.seal(account.id, secret.expose())?;
                    factors::set(&self.database, account.id, &sealed, cause).await?
                }
                None => {
                    factors::remove(&self.database, account.id).await?;
                    None
                }
            };
            return Ok(Some(AccountChange { id: account.id, local }));
        };
        let Some(id) = id_of(central, name).await? else { return Ok(None) };
        let account = central.set_factor(id, None, factor).await?;
        self.copy_if_active(&account).await.map(Some)
    }

    /// Puts the second factor in force that the player began. `secret` is its readable secret, and `step` the time step of
    /// the code. The account's other sessions end, because they logged in with the password alone.
    pub(crate) async fn confirm_factor(
        &self,
        session: AccountGeneration,
        factor: &Factor,
        secret: &Secret<Vec<u8>>,
        step: u64,
        cause: &RevocationCause,
    ) -> Result<FactorUpdate<AccountGeneration>, LoginError> {
        let database = &self.database;
        let Some(central) = &self.central else {
            return Ok(factors::confirm(database, session, &factor.secret, step, cause).await?);
        };
        // The version is read before the code is used up: every later change of the factor has a newer version.
        let Some(expected_version) = self.known_version(session).await? else {
            return Ok(FactorUpdate::SessionOutdated);
        };
        match factors::consume_codes(database, session, factor, &(step..=step)).await? {
            FactorUpdate::Done(()) => {}
            FactorUpdate::SessionOutdated => return Ok(FactorUpdate::SessionOutdated),
            FactorUpdate::FactorMismatch => return Ok(FactorUpdate::FactorMismatch),
        }
        let account = central.set_factor(session.id, Some(expected_version), Some(secret)).await?;
        let raised = self.apply_own_change(session, &account).await?;
        Ok(raised.map_or(FactorUpdate::SessionOutdated, FactorUpdate::Done))
    }

    /// Removes the second factor, of which the player has given right codes.
    pub(crate) async fn remove_factor(
        &self,
        session: AccountGeneration,
        factor: &Factor,
        steps: &RangeInclusive<u64>,
    ) -> Result<FactorUpdate, LoginError> {
        let database = &self.database;
        let Some(central) = &self.central else {
            return Ok(factors::disable(database, session, &factor.secret, steps).await?);
        };
        let Some(expected_version) = self.known_version(session).await? else {
            return Ok(FactorUpdate::SessionOutdated);
        };
        let used = factors::consume_codes(database, session, factor, steps).await?;
        if used == FactorUpdate::Done(()) {
            let account = central.set_factor(session.id, Some(expected_version), None).await?;
            self.copy.apply(&account).await?;
        }
        Ok(used)
    }

    /// Bans an account in all regions, or ends such a ban with [`Ban::default`]. `None`: there is no such account.
    pub(crate) async fn ban_everywhere(
        &self,
        name: &AccountName,
        ban: &Ban,
    ) -> Result<Option<AccountChange>, LoginError> {
        let central = self.central.as_ref().ok_or(LoginError::Refused(
            "this cluster is not a region of a centre (login.central); leave out `--everywhere`",
        ))?;
        let Some(id) = id_of(central, name).await? else { return Ok(None) };
        let account = central.set_ban(id, ban).await?;
        self.copy_if_active(&account).await.map(Some)
    }

    /// Makes an account active in this region after a client proved its password. The centre is called before the copy is
    /// written, so that no later change of the account is missed.
    pub(crate) async fn activate(
        &self,
        name: &AccountName,
        proven: &Account,
        address: IpAddr,
    ) -> Result<Credentials, LoginError> {
        let central =
            self.central.as_ref().ok_or(LoginError::Internal("an account of a centre, without a centre"))?;
        let now = match central.activate(proven.id).await {
            Err(CentralError::Unknown) => Err(LoginError::Denied),
            now => Ok(now?),
        }?;
        if now.proof != proven.proof {
            return Err(LoginError::Denied);
        }
        self.copy.apply(&now).await?;
        let local = accounts::credentials(&self.database, name.as_str()).await?.ok_or(LoginError::Denied)?;
        if local.proof != proven.proof {
            return Err(LoginError::Denied);
        }
        metrics::central_activated();
        shardkeep_daemon::event!("account_activated", account = local.id.0, region = central.region(), %address);
        Ok(local)
    }

    /// Updates the copy of an account that is active here. An operator's command does not make an account active.
    async fn copy_if_active(&self, account: &Account) -> Result<AccountChange, LoginError> {
        let id = account.id;
        if accounts::by_id(&self.database, id).await?.is_none() {
            return Ok(AccountChange { id, local: None });
        }
        self.copy.apply(account).await?;
        let local = accounts::by_id(&self.database, id).await?;
        let local = local.map(|local| AccountGeneration { id, generation: local.generation });
        Ok(AccountChange { id, local })
    }
}

async fn id_of(central: &CentralAccounts, name: &AccountName) -> Result<Option<AccountId>, LoginError> {
    match central.id_of(name.as_str()).await {
        Err(CentralError::Unknown) => Ok(None),
        id => Ok(Some(id?)),
    }
}
