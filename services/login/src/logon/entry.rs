//! The last step of a login: it raises the account's session generation, which displaces every other login of the
//! account, and collects what the welcome tells the player.

use std::{net::IpAddr, sync::Arc};

use shardkeep_auth::AccountName;
use shardkeep_store::accounts::{AccountGeneration, Ban, Credentials};
use shardkeep_types::{AccountId, Secret};

use crate::{
    accounts::{
        presence::Presence, queries::AccountQueries, revocations::hub::Revocations, session::LoginSession,
    },
    error::LoginError,
    random,
    worlds::{details::AccountDetails, list::Viewer},
};

/// Attempts to raise the generation, when logins of the account race.
const MAX_RACES: u32 = 8;

pub(crate) struct Entrance {
    queries: Arc<AccountQueries>,
    revocations: Arc<Revocations>,
    details: Arc<AccountDetails>,
    presence: Presence,
}

/// A client that has proved its password.
pub(crate) struct ProvenClient {
    name: AccountName,
    address: IpAddr,
    account: Credentials,
    /// The second factor of which the client has given a code.
    verified: Option<Secret<Vec<u8>>>,
}

/// The outcome of a login.
pub(crate) struct Entered {
    pub(crate) session: LoginSession,
    pub(crate) viewer: Viewer,
    pub(crate) play_time_left_ms: Option<u64>,
}

impl ProvenClient {
    pub(crate) fn new(name: AccountName, address: IpAddr, account: Credentials) -> Self {
        Self { name, address, account, verified: None }
    }

    pub(crate) fn id(&self) -> AccountId {
        self.account.id
    }

    /// The second factor of which the client still has to give a code.
    pub(crate) fn missing_factor(&self) -> Option<&Secret<Vec<u8>>> {
        self.account.second_factor.as_ref().filter(|factor| self.verified.as_ref() != Some(factor))
    }

    /// The client has given a code of this factor.
    pub(crate) fn factor_verified(&mut self, factor: Secret<Vec<u8>>) {
        self.verified = Some(factor);
    }
}

impl Entrance {
    pub(crate) fn new(
        queries: Arc<AccountQueries>,
        revocations: Arc<Revocations>,
        details: Arc<AccountDetails>,
        presence: Presence,
    ) -> Self {
        Self { queries, revocations, details, presence }
    }

    /// Logs the client in; the client itself comes back if it needs a code of a second factor that was added meanwhile.
    pub(crate) async fn enter(
        &self,
        mut client: ProvenClient,
    ) -> Result<Result<Entered, ProvenClient>, LoginError> {
        let id = client.id();
        // Watching begins before the generation is raised, so that no revocation is missed.
        let watcher = self.revocations.watchers().watch(id);
        let details = async { tokio::join!(self.details.play_time_left(id), self.details.characters(id)) };
        let (raised, (play_time_left_ms, characters)) =
            tokio::join!(self.raise_generation(&mut client), details);
        let Some(generation) = raised? else { return Ok(Err(client)) };
        let ProvenClient { name, address, account, .. } = client;
        shardkeep_daemon::event!(
            "login",
            account = id.0,
            name = name.as_str(),
            generation = generation.generation.0,
            %address
        );
        let lease = self.presence.hold_lease(generation);
        let viewer = Viewer { staff: account.staff, characters: characters.unwrap_or_default() };
        let session = LoginSession::new(generation, name, address, watcher, lease);
        Ok(Ok(Entered { session, viewer, play_time_left_ms }))
    }

    /// Compare-and-set. If another login, a ban, a new password or a second factor changed the account meanwhile, it is
    /// read again. `None`: a code is needed.
    async fn raise_generation(
        &self,
        client: &mut ProvenClient,
    ) -> Result<Option<AccountGeneration>, LoginError> {
        for _ in 0..MAX_RACES {
            if client.missing_factor().is_some() {
                return Ok(None);
            }
            let account = &client.account;
            let current = AccountGeneration { id: account.id, generation: account.generation };
            if let Some(wait) = self.presence.conflict(current).await? {
                let address = client.address;
                shardkeep_daemon::event!("login_refused", account = account.id.0, reason = "logged in already", %address);
                return Err(LoginError::AlreadyLoggedIn { wait });
            }
            if let Some(raised) = self.queries.log_in(current).await? {
                return Ok(Some(raised));
            }
            let now = self.queries.credentials(client.name.as_str()).await?.ok_or(LoginError::Denied)?;
            if now.proof != account.proof {
                return Err(LoginError::Denied);
            }
            check_ban(now.id, &now.ban, client.address)?;
            client.account = now;
        }
        Err(LoginError::Busy("logins of this account"))
    }
}

pub(crate) fn check_ban(account: AccountId, ban: &Ban, address: IpAddr) -> Result<(), LoginError> {
    if ban.until_ms <= random::unix_millis() {
        return Ok(());
    }
    shardkeep_daemon::event!("login_banned", account = account.0, until_ms = ban.until_ms, %address);
    Err(LoginError::Banned { until_ms: ban.until_ms, reason: ban.reason.clone() })
}
