//! The operators' console: a web site and a gRPC service over the same commands. Every command goes one way,
//! through [`Console::execute`]: parsed, written to the audit, authorised, carried out, its result written down.
//!
//! It talks to `login` (accounts), `world`, `gateway`, `chat`, `billing`, `registry`, `logs`, and watches every zone
//! for the live map. It owns the operators and the audit, in SQLite or PostgreSQL.

mod clock;
mod commands;
mod config;
mod console;
mod costs;
mod error;
mod grpc;
mod map;
mod metrics;
mod password;
mod peers;
mod players;
mod role;
mod sessions;
mod signin;
mod throttle;
mod token;
mod web;
mod worlds;

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use shardkeep_cluster::Node;
use shardkeep_daemon::{Daemon, Service, Settings};
use shardkeep_store::{Database, Schema};
use shardkeep_types::DaemonKind;
use tokio::net::TcpListener;
use tonic::service::Routes;
use tracing::info;

pub use config::Config;

use console::Console;
use peers::Peers;

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

        let store = config.store_url(&settings.daemon.data_dir);
        let opened = Database::open_with_retry(&store, Schema::Gm);
        let Some(opened) = daemon.draining().run_until_cancelled(opened).await else { return Ok(()) };
        let database = opened.context("gm.store")?;
        let identity = database.identity().await.context("gm.store")?;
        if !node.ensure_same_store(&[identity]).await {
            return Ok(());
        }
        let url = config.public_url(address);
        info!(%url, "console");

        let peers = Peers::new(&node, settings.cluster.registries.clone());
        let console = Arc::new(Console::new(config, url, database, peers));
        let draining = daemon.draining();
        daemon.spawn(
            "players",
            players::follow(console.peers.clone(), console.players.clone(), draining.clone()),
        );
        daemon.spawn("map", map::follow(console.peers.clone(), console.map.clone(), draining.clone()));
        daemon.spawn("web", web::serve(web, Arc::clone(&console), draining.clone()));
        node.serve(Routes::new(grpc::GmService::new(Arc::clone(&console)).into_server()));

        let mut sweeps = tokio::time::interval(Duration::from_secs(60));
        while draining.run_until_cancelled(sweeps.tick()).await.is_some() {
            console.sweep().await;
        }
        Ok(())
    }
}
