//! The gateway: the proxy between game clients and backends. It holds sessions, delivers each client's messages to the
//! backend to which the session is bound, and fans out what backends publish to groups. It knows nothing of games.
//!
//! `domain` holds what a gateway knows and decides. `edge` holds connections, links, calls and tasks. `app` routes effects
//! between them.

mod app;
mod config;
mod domain;
mod edge;
mod error;
mod metrics;

use std::sync::Arc;

use anyhow::Context;
use shardkeep_cluster::Node;
use shardkeep_daemon::{Daemon, Service as DaemonService, Settings};
use shardkeep_lanes::Listener;
use shardkeep_rpc::gateway::gateway_server::GatewayServer;
use shardkeep_types::DaemonKind;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::service::Routes;
use tracing::info;

pub use config::{AdvertisedLane, Config};

use crate::{
    app::App,
    edge::{
        billing, connection, drain, follow::follow_backends, grpc::Service, present::present_sessions,
        revocations, sweep, worlds::Worlds,
    },
};

/// Kinds of daemons that serve links.
const BACKENDS: [DaemonKind; 4] =
    [DaemonKind::World, DaemonKind::Zone, DaemonKind::Chat, DaemonKind::Backend];

pub struct Gateway;

impl DaemonService for Gateway {
    const KIND: DaemonKind = DaemonKind::Gateway;
    type Config = Config;

    /// Half of the cores: a gateway spends its time in the kernel and in passing work from one socket to another, which
    /// costs least on one thread. A cluster with more players runs more gateways.
    fn threads(cores: usize) -> usize {
        cores.div_ceil(2)
    }

    async fn run(settings: Settings<Config>, daemon: Daemon) -> anyhow::Result<()> {
        metrics::describe();
        let config = settings.service.clone();
        let listener = Listener::bind(&config.listen, &config.lanes, config.idle)
            .await
            .context("players: no socket (gateway.listen moves it)")?;
        let node = Node::join(&settings, &daemon, Self::KIND).await?;
        let bound = listener.local_addr()?;
        let address = node.advertise(config.advertise.as_deref(), bound);
        info!(%bound, advertised = address, "players' socket bound");
        node.set_client_address(address.clone());
        for lane in config.lane_addresses() {
            let (key, value) = lane.to_attribute();
            node.set_attribute(&key, value);
        }
        let app = App::new(config, &settings.cluster, &node.id().name, address, daemon.clone());
        let worlds = Arc::new(Worlds::new(&node));
        let (stop, connections) = (CancellationToken::new(), TaskTracker::new());
        for kind in BACKENDS {
            let follow = follow_backends(app.clone(), node.clone(), kind, stop.clone());
            spawn(&daemon, "backends", follow);
        }
        spawn(&daemon, "present sessions", present_sessions(app.clone(), worlds.clone(), stop.clone()));
        spawn(&daemon, "billing", billing::run(app.clone(), node.clone(), stop.clone()));
        spawn(&daemon, "revocations", revocations::follow(app.clone(), node.clone(), stop.clone()));
        spawn(&daemon, "sweep", sweep::run(app.clone(), node.clone(), worlds.clone(), stop.clone()));
        let accept =
            connection::run(app.clone(), worlds.clone(), listener, connections.clone(), stop.clone());
        spawn(&daemon, "accept", accept);
        node.serve(Routes::new(GatewayServer::new(Service::new(app.clone()))));
        daemon.draining().cancelled().await;
        drain::run(&app, &worlds, settings.daemon.grace).await;
        stop.cancel();
        connections.close();
        connections.wait().await;
        Ok(())
    }
}

/// Runs a task of the daemon. The daemon waits for it when it stops, and fails if it panics.
fn spawn(daemon: &Daemon, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
    daemon.spawn(name, async move {
        task.await;
        Ok(())
    });
}
