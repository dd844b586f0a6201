//! The operators' console: web pages and a gRPC interface that execute the same commands. `Console::execute` writes
//! each command to the audit, checks the operator's role, runs the command and records its result.
//!
//! The console calls `login` (accounts), `world`, `gateway`, `chat`, `billing`, `dbcache`, `registry` and `logs`. It
//! observes zones for the live map. It owns the operators and the audit, in SQLite or PostgreSQL.

mod audit_log;
mod commands;
mod config;
mod console;
mod costs;
mod error;
mod grpc;
mod map;
mod metrics;
mod mutes;
mod origin;
mod password;
mod peers;
mod players;
mod role;
mod sessions;
mod sign_in;
mod throttle;
mod token;
mod web;
mod worlds;

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use shardkeep_cluster::Node;
use shardkeep_daemon::{Daemon, Service, Settings};
use shardkeep_store::{Database, Schema, store_url};
use shardkeep_types::DaemonKind;
use tokio::net::TcpListener;
use tonic::service::Routes;
use tracing::info;

pub use config::Config;

use console::Console;
use peers::Peers;

/// Time between two deletions of ended sessions.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// The `gm` daemon.
pub struct Gm;

impl Service for Gm {
    const KIND: DaemonKind = DaemonKind::Gm;
    type Config = Config;

    async fn run(settings: Settings<Config>, daemon: Daemon) -> anyhow::Result<()> {
        metrics::describe();
        let config = settings.service.clone();
        let web = TcpListener::bind(&config.web).await.with_context(|| format!("gm.web: {}", config.web))?;
        let address = web.local_addr()?;
        let node = Node::join(&settings, &daemon, Self::KIND).await?;
        node.set_client_address(node.advertise(None, address));

        let store = store_url(&config.store, &settings.daemon.data_dir, "gm.db");
        let opened = Database::open_with_retry(&store, Schema::Gm);
        let Some(opened) = daemon.draining().run_until_cancelled(opened).await else { return Ok(()) };
        let database = opened.context("gm.store")?;
        let identity = database.identity().await.context("gm.store")?;
        if !node.ensure_same_store(&[identity]).await {
            return Ok(());
        }
        let handle = daemon.clone();
        let report = move |cause| handle.not_ready_because("store", cause);
        daemon.spawn("store monitor", database.clone().monitor(daemon.draining().cancelled_owned(), report));
        let url = config.public_url(address);
        info!(%url, "console bound");

        let peers = Peers::new(&node, settings.cluster.registries.clone());
        let console = Arc::new(Console::new(config, url, database, peers));
        let draining = daemon.draining();
        daemon.spawn(
            "players",
            players::follow(console.peers().clone(), console.players().clone(), draining.clone()),
        );
        daemon.spawn("map", map::follow(console.peers().clone(), console.map().clone(), draining.clone()));
        daemon.spawn(
            "mutes",
            mutes::follow(console.peers().clone(), console.database().clone(), draining.clone()),
        );
        daemon.spawn("web", web::serve(web, Arc::clone(&console), draining.clone()));
        node.serve(Routes::new(grpc::GmService::server(Arc::clone(&console))));

        let mut sweeps = tokio::time::interval(SWEEP_INTERVAL);
        while draining.run_until_cancelled(sweeps.tick()).await.is_some() {
            console.sweep().await;
        }
        Ok(())
    }
}
