//! Puts the parts of login together, and routes each connection through them.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use shardkeep_auth::registration::RegionKey;
use shardkeep_cluster::Node;
use shardkeep_connection::{Connection, ConnectionError};
use shardkeep_daemon::{ConnectionLimiter, Daemon};
use shardkeep_lanes::Upgrade;
use shardkeep_store::{
    Database,
    accounts::{
        self as table,
        logins::{LoginRules, Process},
    },
};
use shardkeep_types::DaemonKind;
use shardkeep_update::Patches;
use shardkeep_wire::preface::{self, Preface, Service};
use tokio::{sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::{
    accounts::{
        authority::Authority,
        causes,
        own_account::OwnAccount,
        presence::Presence,
        queries::AccountQueries,
        regional_copy::RegionalCopy,
        registration::Registrations,
        revocations::{hub::Revocations, poller, service::RevocationsService},
        second_factor::SecondFactors,
        secret_cipher::SecretCipher,
        service::{AccountsService, OperatorAccess},
        session_ender::SessionEnder,
    },
    central::{accounts::CentralAccounts, follow::ChangeFollower},
    config::{Config, DuplicateLogins},
    door::{drain::Drain, puzzle::Puzzles, slot::ConnectionSlot},
    error::LoginError,
    logon::{
        decoys::{self, Decoys},
        entry::Entrance,
        handshake::Handshake,
        lookup::AccountDirectory,
        pool::Pool,
        step_gate::StepGate,
        steps::{LogonParts, Logons},
    },
    metrics, random,
    replies::End,
    worlds::{
        browse::WorldBrowser,
        closures::Closed,
        details::AccountDetails,
        gateways::Gateways,
        list::Worlds,
        prepaid::{self, PrepaidList},
        tickets::TicketOffice,
    },
};

/// Protocol section 4.
pub(crate) const PREFACE_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) struct App {
    /// Of the services on this port.
    prefaces: [Preface; 2],
    patches: Patches,
    logons: Arc<Logons>,
    handshake: Handshake,
    browser: WorldBrowser,
    pool: Pool,
}

/// The account stores, and what reads them.
pub(crate) struct Stores {
    pub(crate) database: Database,
    pub(crate) cipher: Arc<SecretCipher>,
    pub(crate) central: Option<Arc<CentralAccounts>>,
}

/// The views of worlds that background tasks keep.
pub(crate) struct WorldViews {
    pub(crate) worlds: Worlds,
    pub(crate) closed: watch::Receiver<Closed>,
}

impl App {
    /// Builds the parts, starts their background tasks until `stop`, and returns the gRPC services.
    pub(crate) async fn start(
        config: &Config,
        deployment: &str,
        stores: Stores,
        views: WorldViews,
        connections: ConnectionLimiter,
        node: &Node,
        daemon: &Daemon,
        stop: &CancellationToken,
    ) -> anyhow::Result<(Self, Routes)> {
        let Stores { database, cipher, central } = stores;
        let key = table::shared_secret(&database, "region key", &random::key()?).await?;
        let region = RegionKey::new(&key).context("the region's key")?;
        let puzzle_seed = table::shared_secret(&database, "puzzle seed", &random::key()?).await?;
        let decoys = Arc::new(Decoys::load(&database, central.is_some()).await?);

        let process = Process::new(random::bytes()?);
        let lease = (config.duplicate_logins == DuplicateLogins::Refuse).then_some(config.login_lease);
        let rules = LoginRules { lease, cause: causes::displaced(), login_process: process };
        let revocations = Arc::new(Revocations::new(process));
        let bound = config.max_connections;
        let queries = Arc::new(AccountQueries::new(&database, rules, revocations.clone(), bound));
        let gateways = Arc::new(Gateways::new(node, &database, bound));
        let prepaid_list = Arc::new(PrepaidList::default());
        let details = Arc::new(AccountDetails::new(node, prepaid_list.clone(), bound));
        let copy = RegionalCopy::new(database.clone(), cipher.clone());
        let authority =
            Arc::new(Authority::new(database.clone(), central.clone(), copy.clone(), cipher.clone()));
        let factors = Arc::new(SecondFactors::new(config, database.clone(), cipher, authority.clone()));
        let ender = SessionEnder::new(revocations.clone(), gateways.clone());
        let pool = Pool::new(config);
        let registrations = Arc::new(Registrations::new(config, region, pool.clone(), authority.clone()));
        let patches = Patches::new(&config.patches)?;

        let presence = Presence::new(database.clone(), gateways.clone(), daemon.clone(), lease);
        let parts = LogonParts {
            puzzles: Puzzles::new(config.puzzle.clone(), puzzle_seed),
            step_gate: StepGate::new(daemon).context("no thread for the step gate")?,
            directory: AccountDirectory::new(queries.clone(), central.clone()),
            entrance: Entrance::new(queries, revocations.clone(), details.clone(), presence),
        };
        let logons = Arc::new(Logons::new(
            config,
            pool.clone(),
            patches.clone(),
            decoys.clone(),
            authority.clone(),
            factors.clone(),
            parts,
        ));

        let billings = node.directory(DaemonKind::Billing);
        daemon.spawn("prepaid accounts", prepaid::follow(node.clone(), billings, prepaid_list, stop.clone()));
        daemon.spawn("patches", patches.clone().follow(stop.clone()));
        daemon.spawn(
            "groups of accounts",
            decoys::follow_groups(decoys, database.clone(), central.clone(), stop.clone()),
        );
        if let Some(central) = &central {
            let follower = ChangeFollower::new(database.clone(), central.clone(), copy, revocations.clone());
            daemon.spawn("changes of accounts", follower.run(stop.clone()));
        }
        daemon.spawn("revocations", poller::follow(database.clone(), revocations.clone(), stop.clone()));

        let access = OperatorAccess {
            authority: authority.clone(),
            factors: factors.clone(),
            gateways: gateways.clone(),
            registrations: registrations.clone(),
            central,
            pool: pool.clone(),
            ender: ender.clone(),
        };
        let accounts = AccountsService::server(database.clone(), access);
        let followed =
            RevocationsService::server(database.clone(), revocations, views.closed, daemon.draining());
        let routes = Routes::new(accounts).add_service(followed);

        let own_account =
            OwnAccount::new(database.clone(), authority, factors, gateways.clone(), pool.clone(), ender);
        let tickets = TicketOffice::new(gateways, config.ticket_lifetime);
        let browser = WorldBrowser::new(
            views.worlds,
            config.connection_lifetime,
            database,
            details,
            tickets,
            own_account,
        );
        let handshake = Handshake::new(logons.clone(), registrations, connections, config.code_timeout);
        let tag = preface::deployment_tag(deployment);
        let prefaces = [Service::Update, Service::Login].map(|service| Preface::new(service, tag));
        Ok((Self { prefaces, patches, logons, handshake, browser, pool }, routes))
    }

    /// Serves one connection until it ends, which is always an error. The slot stays with the caller, because the
    /// connection still has to be closed.
    pub(crate) async fn serve(
        &self,
        connection: &mut Connection,
        drain: &Drain,
        slot: &mut Option<ConnectionSlot>,
        upgrade: Option<&Upgrade>,
    ) -> Result<Infallible, End> {
        let started = Instant::now();
        let preface = timeout(PREFACE_TIMEOUT, connection.preface(&self.prefaces, upgrade)).await;
        let preface = preface.unwrap_or(Err(ConnectionError::Timeout("send a preface")));
        let (service, preface) =
            preface.inspect_err(|error| metrics::login(connection.lane(), error.label()))?;
        if service == Service::Update {
            // The update service has its own slots.
            drop(slot.take());
            return Ok(shardkeep_update::serve(connection, &self.patches, drain.started()).await?);
        }
        let logged_on = Box::pin(self.handshake.run(connection, &preface, started)).await;
        let outcome = logged_on.as_ref().map_or_else(|end| end.error.label(), |_| "ok");
        metrics::login(connection.lane(), outcome);
        if let Err(End { error: LoginError::Throttled { limit, .. }, .. }) = &logged_on {
            metrics::throttled(limit);
        }
        let (entered, chain) = logged_on?;
        if let Some(slot) = slot {
            slot.mark_authenticated();
        }
        // On the heap, so that connections before login, and those that fetch patches, do not reserve its memory.
        Box::pin(self.browser.serve(connection, entered, chain, drain)).await
    }

    /// How full the queue for exponentiations is: 0.0 to 1.0. Updates the gauges of the queue and of puzzles.
    pub(crate) fn report_load(&self) -> f64 {
        metrics::pool_waiting(self.pool.waiting());
        metrics::puzzle_bits(self.logons.puzzle_bits().unwrap_or_default());
        self.pool.load()
    }
}
