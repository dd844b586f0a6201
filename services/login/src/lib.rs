//! The login daemon. It proves passwords by SRP6a, shows players the worlds, and sends each player to a gateway with a
//! single-use ticket. Outdated clients get the published release. Players connect over TCP, QUIC and WebSockets; login
//! calls gateways, billing and the registry over gRPC, and owns the accounts.

mod accounts;
mod app;
mod central;
mod config;
mod door;
mod error;
mod logon;
mod metrics;
mod outage;
mod random;
mod replies;
mod worlds;

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use shardkeep_cluster::Node;
use shardkeep_daemon::{ConnectionLimiter, ConnectionLimits, Daemon, OverflowPolicy, Service, Settings};
use shardkeep_lanes::Listener;
use shardkeep_store::{Database, Schema, store_url};
use shardkeep_types::DaemonKind;
use shardkeep_wire::payload::WorldList;
use tokio::{sync::watch, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::info;

use accounts::secret_cipher::SecretCipher;
use app::{App, Stores, WorldViews};
use central::{accounts::CentralAccounts, service::CentralService, store::Store};
use door::accept::Door;

pub use central::config::Config as CentralConfig;
pub use config::{Bucket, Config, DuplicateLogins, Hybrid, Limits, Puzzle, PuzzleMode, RegistrationMode};

/// How often the registries are told the load of this replica.
const LOAD_REPORT_INTERVAL: Duration = Duration::from_secs(1);

pub struct Login;

impl Service for Login {
    const KIND: DaemonKind = DaemonKind::Login;
    type Config = Config;

    async fn run(settings: Settings<Config>, daemon: Daemon) -> anyhow::Result<()> {
        metrics::describe();
        let config = settings.service.clone();
        let listener = Listener::bind(&config.listen, &config.lanes, worlds::browse::IDLE_TIMEOUT)
            .await
            .context("cannot listen for players (login.listen sets the address)")?;
        let bound = listener.local_addr()?;
        let node = Node::join(&settings, &daemon, Self::KIND).await?;
        let advertised = node.advertise(config.advertise.as_deref(), bound);
        info!(address = %bound, advertised, "players' socket bound");
        node.set_client_address(advertised);

        let opened = open(&settings);
        let Some(opened) = daemon.draining().run_until_cancelled(opened).await else { return Ok(()) };
        let (database, central_store) = opened?;
        let mut identities = vec![database.identity().await.context("login.store")?];
        if let Some(store) = &central_store {
            identities.push(store.identity().await.context("login.central.store")?);
        }
        if !node.ensure_same_store(&identities).await {
            return Ok(());
        }
        monitor(&daemon, "store", &database);
        if let Some(store) = &central_store {
            monitor(&daemon, "central store", store.database());
        }
        if let Some(store) = central_store.as_ref().filter(|_| config.central.adopt) {
            store.adopt(&config.central.region, &database).await.context("login.central.adopt")?;
        }
        central::join::join(&config.central, &database).await?;
        let central = CentralAccounts::new(&config.central, central_store.clone(), &node).map(Arc::new);

        let background_stop = CancellationToken::new();
        let (list, worlds) = watch::channel(Arc::new(WorldList::default()));
        let (view, closed) = watch::channel(worlds::closures::Closed::default());
        let directory = node.directory(DaemonKind::World);
        let closures = worlds::closures::follow(database.clone(), view, background_stop.clone());
        daemon.spawn("maintenance", closures);
        let follow_list = worlds::list::follow(directory, closed.clone(), list, background_stop.clone());
        daemon.spawn("world list", follow_list);

        let limiter = ConnectionLimiter::new(ConnectionLimits {
            all: config.max_connections,
            per_origin: config.max_connections_per_address,
            // Logins wait in a queue, so a newcomer never replaces a client of the same prefix.
            overflow: OverflowPolicy::RefuseNewcomer,
        });
        let stores = Stores {
            database: database.clone(),
            cipher: Arc::new(secret_cipher(&config)?),
            central: central.clone(),
        };
        let (app, mut routes) = App::start(
            &config,
            &settings.cluster.deployment,
            stores,
            WorldViews { worlds, closed },
            limiter.clone(),
            &node,
            &daemon,
            &background_stop,
        )
        .await?;
        let app = Arc::new(app);
        if let Some(store) = &central_store {
            daemon.spawn("the centre", store.clone().watch(background_stop.clone()));
            routes = routes.add_service(CentralService::server(store.clone(), daemon.draining()));
        }
        node.serve(routes);
        daemon.spawn("load report", report(node, app.clone(), limiter.clone(), central, daemon.clone()));
        Door::new(listener, limiter, config.trusted_balancers)
            .serve(app, &daemon, settings.daemon.grace)
            .await;
        background_stop.cancel();
        database.close().await;
        if let Some(store) = central_store {
            store.close().await;
        }
        Ok(())
    }
}

/// Opens this region's accounts and, in the home region, those of the centre. Waits for databases that do not answer.
async fn open(settings: &Settings<Config>) -> anyhow::Result<(Database, Option<Arc<Store>>)> {
    let url = store_url(&settings.service.store, &settings.daemon.data_dir, "login.db");
    let database = Database::open_with_retry(&url, Schema::Accounts).await.context("login.store")?;
    let config = &settings.service;
    let central_store = match config.central.store.as_str() {
        "" => None,
        url => {
            let opened = Store::open(url, secret_cipher(config)?);
            Some(opened.await.context("login.central.store")?)
        }
    };
    Ok((database, central_store))
}

/// Keeps the daemon from being ready while the database is unavailable.
fn monitor(daemon: &Daemon, source: &'static str, database: &Database) {
    let handle = daemon.clone();
    let report = move |cause| handle.not_ready_because(source, cause);
    daemon.spawn("store monitor", database.clone().monitor(daemon.draining().cancelled_owned(), report));
}

fn secret_cipher(config: &Config) -> anyhow::Result<SecretCipher> {
    Ok(SecretCipher::new(config.second_factor_key().map_err(anyhow::Error::msg)?.as_ref())?)
}

async fn report(
    node: Node,
    app: Arc<App>,
    limiter: ConnectionLimiter,
    central: Option<Arc<CentralAccounts>>,
    daemon: Daemon,
) -> anyhow::Result<()> {
    let mut ticks = tokio::time::interval(LOAD_REPORT_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while daemon.draining().run_until_cancelled(ticks.tick()).await.is_some() {
        node.set_load(app.report_load().max(limiter.load()));
        if let Some(central) = &central {
            metrics::central_lag(central.lag());
        }
    }
    Ok(())
}
