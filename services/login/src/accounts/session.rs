//! A connection's login: the account, and the session generation under which the connection acts.

use std::net::IpAddr;

use shardkeep_auth::AccountName;
use shardkeep_store::{
    Database,
    accounts::{self, AccountGeneration},
};
use shardkeep_types::AccountId;

use crate::{
    accounts::{presence::Lease, revocations::watchers::GenerationWatcher},
    error::LoginError,
    random,
};

pub(crate) struct LoginSession {
    current: AccountGeneration,
    name: AccountName,
    address: IpAddr,
    watcher: GenerationWatcher,
    /// Refuses other logins, if the settings say so.
    lease: Option<Lease>,
}

impl LoginSession {
    pub(crate) fn new(
        current: AccountGeneration,
        name: AccountName,
        address: IpAddr,
        watcher: GenerationWatcher,
        lease: Option<Lease>,
    ) -> Self {
        Self { current, name, address, watcher, lease }
    }

    pub(crate) fn id(&self) -> AccountId {
        self.current.id
    }

    pub(crate) fn name(&self) -> &AccountName {
        &self.name
    }

    /// The client's address.
    pub(crate) fn address(&self) -> IpAddr {
        self.address
    }

    pub(crate) fn generation(&self) -> AccountGeneration {
        self.current
    }

    /// Waits until a higher generation of the account is known.
    pub(crate) async fn superseded(&mut self) {
        self.watcher.wait_above(self.current.generation).await;
    }

    /// Asks the store whether this generation is still the account's last one.
    pub(crate) async fn is_current(&self, database: &Database) -> Result<bool, LoginError> {
        let found = accounts::generations(database, &[self.current.id]).await?;
        Ok(found == [Some(self.current.generation)])
    }

    /// This connection continues under the generation that the player's own request has raised. `None`: another
    /// change raised the generation first.
    pub(crate) fn adopt(
        &mut self,
        raised: Option<AccountGeneration>,
    ) -> Result<AccountGeneration, LoginError> {
        let raised = raised.ok_or(LoginError::Displaced)?;
        self.current.generation = raised.generation;
        if let Some(lease) = &self.lease {
            lease.move_to(raised.generation);
        }
        Ok(raised)
    }

    /// Why this connection's generation is no longer the last one.
    pub(crate) async fn end_reason(&self, database: &Database) -> Result<LoginError, LoginError> {
        let Some(account) = accounts::by_id(database, self.current.id).await? else {
            return Ok(LoginError::Displaced);
        };
        let ban = account.effective_ban();
        if ban.until_ms > random::unix_millis() {
            return Ok(LoginError::Banned { until_ms: ban.until_ms, reason: ban.reason });
        }
        Ok(LoginError::Displaced)
    }
}
