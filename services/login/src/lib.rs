//! The door: proves players' passwords by SRP6a, shows them the worlds, and sends each with a single-use ticket to a
//! gateway; hands the published release to clients that are too old. Talks to players over TCP, QUIC and WebSockets; to
//! gateways, billing and the registry over gRPC; owns the accounts.

mod account_batcher;
mod account_details;
mod accounts;
mod authority;
mod central;
mod config;
mod connection;
mod context;
mod error;
mod gateways;
mod generation_watchers;
mod groups;
mod handshake;
mod lifecycle;
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
mod secret_cipher;
mod select;
mod serve;
mod step_gate;
pub mod update;
mod verifiers;
mod worlds;

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use secret_cipher::SecretCipher;
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

pub use central::Config as CentralConfig;
use central::{CentralAccounts, CentralService};
pub use config::{Bucket, Config, DuplicateLogins, Hybrid, Limits, Puzzle, PuzzleMode, RegistrationMode};
use context::{LoginContext, Stores};
use error::LoginError;

/// How often the registries learn how busy this replica is.
const LOAD_REPORT_INTERVAL: Duration = Duration::from_secs(1);

pub struct Login;

impl Service for Login {
    const KIND: DaemonKind = DaemonKind::Login;
    type Config = Config;

    async fn run(settings: Settings<Config>, daemon: Daemon) -> anyhow::Result<()> {
        metrics::describe();
        let config = settings.service.clone();
        let listener = Listener::bind(&config.listen, &config.lanes, lifecycle::IDLE_TIMEOUT)
            .await
            .context("players: no socket (login.listen moves it)")?;
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
        if let Some(store) = central_store.as_ref().filter(|_| config.central.adopt) {
            store.adopt(&config.central.region, &database).await.context("login.central.adopt")?;
        }
        central::join(&config.central, &database).await?;
        let central = CentralAccounts::new(&config.central, central_store.clone(), &node);
        let (list, worlds) = watch::channel(Arc::new(WorldList::default()));
        let directory = node.directory(DaemonKind::World);
        let background_stop = CancellationToken::new();
        let (view, closed) = watch::channel(maintenance::Closed::default());
        daemon.spawn("maintenance", maintenance::follow(database.clone(), view, background_stop.clone()));
        daemon.spawn("world list", worlds::follow(directory, closed.clone(), list, background_stop.clone()));
        let deployment = &settings.cluster.deployment;
        let stores = Stores { database: database.clone(), secret_cipher: secret_cipher(&config)?, central };
        let context = LoginContext::new(config, deployment, stores, worlds, &node, daemon.clone());
        let context = Arc::new(context.await?);

        daemon.spawn("patches", context.patches.clone().follow(background_stop.clone()));
        let (groups_context, stop) = (context.clone(), background_stop.clone());
        daemon.spawn("groups of accounts", async move {
            groups_context.groups.follow(&groups_context, stop).await
        });
        if context.central.is_some() {
            daemon.spawn(
                "changes of accounts",
                central::follow::follow(context.clone(), background_stop.clone()),
            );
        }
        let revocations = context.revocations.clone();
        daemon
            .spawn("revocations", revocations::watch(database.clone(), revocations, background_stop.clone()));
        let accounts = Routes::new(accounts::AccountsService::server(context.clone()));
        let followed = revocations::RevocationsService::server(context.clone(), closed, daemon.draining());
        let mut routes = accounts.add_service(followed);
        if let Some(store) = &central_store {
            daemon.spawn("the centre", store.clone().watch(background_stop.clone()));
            routes = routes.add_service(CentralService::server(store.clone(), daemon.draining()));
        }
        node.serve(routes);
        daemon.spawn("load report", report(node, context.clone(), daemon.clone()));
        serve::serve(listener, context, &daemon, settings.daemon.grace).await;
        background_stop.cancel();
        database.close().await;
        if let Some(store) = central_store {
            store.close().await;
        }
        Ok(())
    }
}

/// The accounts and, in the home region, the centre; waits for databases that are away.
async fn open(settings: &Settings<Config>) -> anyhow::Result<(Database, Option<Arc<central::Store>>)> {
    let url = store_url(settings);
    let database = Database::open_with_retry(&url, Schema::Accounts).await.context("login.store")?;
    let config = &settings.service;
    let central_store = match config.central.store.as_str() {
        "" => None,
        url => {
            let opened = central::Store::open(url, secret_cipher(config)?);
            Some(opened.await.context("login.central.store")?)
        }
    };
    Ok((database, central_store))
}

fn store_url(settings: &Settings<Config>) -> String {
    match settings.service.store.as_str() {
        "" => format!("sqlite:{}", settings.daemon.data_dir.join("login.db").display()),
        url => url.to_owned(),
    }
}

fn secret_cipher(config: &Config) -> anyhow::Result<SecretCipher> {
    Ok(SecretCipher::new(config.second_factor_key().map_err(anyhow::Error::msg)?.as_ref())?)
}

async fn report(node: Node, context: Arc<LoginContext>, daemon: Daemon) -> anyhow::Result<()> {
    let mut ticks = tokio::time::interval(LOAD_REPORT_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while daemon.draining().run_until_cancelled(ticks.tick()).await.is_some() {
        node.set_load(context.pool.load().max(context.connection_limiter.load()));
        metrics::pool_waiting(context.pool.waiting());
        if let Some(central) = &context.central {
            metrics::central_lag(central.lag());
        }
        metrics::puzzle_bits(context.puzzles.bits(context.pool.load()).unwrap_or_default());
    }
    Ok(())
}
