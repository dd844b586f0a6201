//! The door: proves players' passwords by SRP6a, shows them the worlds, and sends each with a single-use ticket to a
//! gateway; hands the published release to clients that are too old. Talks to players over TCP, QUIC and WebSockets; to
//! gateways, billing and the registry over gRPC; owns the accounts.

mod accounts;
mod authority;
mod central;
mod config;
mod connection;
mod conversation;
mod door;
mod error;
mod evenly;
mod floors;
mod gateways;
mod gathered;
mod groups;
mod handshake;
mod known;
mod limits;
mod logon;
mod maintenance;
mod metrics;
mod outage;
mod pool;
mod presence;
mod puzzle;
mod queue;
mod random;
mod register;
mod requests;
mod revocations;
mod second_factor;
mod select;
mod serve;
pub mod update;
mod vault;
mod verifiers;
mod worlds;

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use shardkeep_cluster::Node;
use shardkeep_daemon::{Daemon, Service, Settings};
use shardkeep_lanes::Listener;
use shardkeep_store::{Database, Schema};
use shardkeep_types::DaemonKind;
use shardkeep_wire::payload::WorldList;
use tokio::{sync::watch, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tracing::info;
use vault::Vault;

pub use central::Config as CentralConfig;
use central::{CentralService, Centre};
pub use config::{Bucket, Config, DuplicateLogins, Hybrid, Limits, Puzzle, PuzzleMode, Registrations};
use door::{Door, Stores};
use error::LoginError;

/// How often the registries learn how busy this replica is.
const REPORT: Duration = Duration::from_secs(1);

pub struct Login;

impl Service for Login {
    const KIND: DaemonKind = DaemonKind::Login;
    type Config = Config;

    async fn run(settings: Settings<Config>, daemon: Daemon) -> anyhow::Result<()> {
        metrics::describe();
        let config = settings.service.clone();
        let listener = Listener::bind(&config.listen, &config.lanes, conversation::SILENT_AFTER)
            .await
            .context("players: no socket (login.listen moves it)")?;
        let bound = listener.local_addr()?;
        let node = Node::join(&settings, &daemon, Self::KIND).await?;
        let advertised = config.advertise.clone().unwrap_or_else(|| node.advertise(bound));
        info!(address = %bound, advertised, "players' socket bound");
        node.set_client_address(advertised);

        let opened = open(&settings);
        let Some(opened) = daemon.draining().run_until_cancelled(opened).await else { return Ok(()) };
        let (database, home) = opened?;
        let mut marks = vec![database.mark().await.context("login.store")?];
        if let Some(store) = &home {
            marks.push(store.mark().await.context("login.central.store")?);
        }
        if !node.share_stores(&marks).await {
            return Ok(());
        }
        if let Some(store) = home.as_ref().filter(|_| config.central.adopt) {
            store.adopt(&config.central.region, &database).await.context("login.central.adopt")?;
        }
        central::join(&config.central, &database).await?;
        let centre = Centre::new(&config.central, home.clone(), &node);
        let (list, worlds) = watch::channel(Arc::new(WorldList::default()));
        let directory = node.directory(DaemonKind::World);
        let served = CancellationToken::new();
        let (view, closed) = watch::channel(maintenance::Closed::default());
        daemon.spawn("maintenance", maintenance::follow(database.clone(), view, served.clone()));
        daemon.spawn("world list", worlds::follow(directory, closed.clone(), list, served.clone()));
        let deployment = &settings.cluster.deployment;
        let stores = Stores { database: database.clone(), vault: vault(&config)?, centre };
        let door = Door::new(config, deployment, stores, worlds, &node, daemon.clone());
        let door = Arc::new(door.await?);

        daemon.spawn("patches", door.patches.clone().follow(served.clone()));
        let (counted, stop) = (door.clone(), served.clone());
        daemon.spawn("groups of accounts", async move { counted.groups.follow(&counted, stop).await });
        if door.centre.is_some() {
            daemon.spawn("changes of accounts", central::follow::follow(door.clone(), served.clone()));
        }
        let revocations = door.revocations.clone();
        daemon.spawn("revocations", revocations::watch(database.clone(), revocations, served.clone()));
        let accounts = Routes::new(accounts::AccountsService::server(door.clone()));
        let followed = revocations::RevocationsService::server(door.clone(), closed, daemon.draining());
        let mut routes = accounts.add_service(followed);
        if let Some(store) = &home {
            daemon.spawn("the centre", store.clone().watch(served.clone()));
            routes = routes.add_service(CentralService::server(store.clone(), daemon.draining()));
        }
        node.serve(routes);
        daemon.spawn("load report", report(node, door.clone(), daemon.clone()));
        serve::serve(listener, door, &daemon, settings.daemon.grace).await;
        served.cancel();
        database.close().await;
        if let Some(store) = home {
            store.close().await;
        }
        Ok(())
    }
}

/// The accounts and, in the home region, the centre; waits for databases that are away.
async fn open(settings: &Settings<Config>) -> anyhow::Result<(Database, Option<Arc<central::Store>>)> {
    let url = store_url(settings);
    let database = Database::open_patiently(&url, Schema::Accounts).await.context("login.store")?;
    let config = &settings.service;
    let home = match config.central.store.as_str() {
        "" => None,
        url => {
            let opened = central::Store::open(url, vault(config)?);
            Some(opened.await.context("login.central.store")?)
        }
    };
    Ok((database, home))
}

fn store_url(settings: &Settings<Config>) -> String {
    match settings.service.store.as_str() {
        "" => format!("sqlite:{}", settings.daemon.data_dir.join("login.db").display()),
        url => url.to_owned(),
    }
}

fn vault(config: &Config) -> anyhow::Result<Vault> {
    Ok(Vault::new(config.second_factor_key().map_err(anyhow::Error::msg)?.as_ref())?)
}

async fn report(node: Node, door: Arc<Door>, daemon: Daemon) -> anyhow::Result<()> {
    let mut ticks = tokio::time::interval(REPORT);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while daemon.draining().run_until_cancelled(ticks.tick()).await.is_some() {
        node.set_load(door.pool.load().max(door.crowd.load()));
        metrics::pool_waiting(door.pool.waiting());
        if let Some(centre) = &door.centre {
            metrics::central_behind(centre.behind());
        }
        metrics::puzzle_bits(door.puzzles.bits(door.pool.load()).unwrap_or_default());
    }
    Ok(())
}
