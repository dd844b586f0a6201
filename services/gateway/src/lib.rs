//! The reverse proxy of game clients. It holds sessions, delivers each client's messages along a route to the
//! backend the session is bound to, and fans out what backends publish to groups; it knows nothing of games.
//!
//! It talks to clients (`connection`), to backends over links (`backend`), to `world` about sessions that come and go, to
//! other gateways about sessions that move, to `billing` about play time, and is asked by `login` and operators
//! (`service`). The life of a session is in `core`, its queues and bindings in `session`, groups in `groups`.

mod backend;
mod balance;
mod billing;
mod closures;
mod config;
mod connection;
mod core;
mod costs;
mod drain;
mod error;
mod groups;
mod incoming_sessions;
mod metrics;
mod moves;
mod revocations;
mod service;
mod session;
mod table;
mod tickets;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use ::metrics::gauge;
use anyhow::Context;
use futures::FutureExt;
use shardkeep_cluster::Node;
use shardkeep_daemon::{Daemon, Service as DaemonService, Settings};
use shardkeep_lanes::Listener;
use shardkeep_rpc::gateway::gateway_server::GatewayServer;
use shardkeep_types::DaemonKind;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::service::Routes;
use tracing::info;

pub use config::Config;

use crate::{backend::Worlds, core::Core, service::Service};

/// Kinds of daemons that serve links.
const BACKENDS: [DaemonKind; 4] =
    [DaemonKind::World, DaemonKind::Zone, DaemonKind::Chat, DaemonKind::Backend];
/// How often the load is told and what has expired is swept.
const SWEEP_INTERVAL: Duration = Duration::from_millis(500);

pub struct Gateway;

impl DaemonService for Gateway {
    const KIND: DaemonKind = DaemonKind::Gateway;
    type Config = Config;

    /// Half of the cores: a gateway spends its time in the kernel and in handing work from one socket to another,
    /// which costs least on the thread that has it. More players need more gateways.
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
        let core = Core::new(config, &settings.cluster, &node.id().name, address, daemon.clone());
        let worlds = Arc::new(Worlds::new(&node));
        // Cancelled after the drain. The daemon joins these tasks, and a panic in one of them ends it.
        let stop = CancellationToken::new();
        let ended = |()| anyhow::Ok(());
        for kind in BACKENDS {
            let follow = backend::follow(core.clone(), node.clone(), kind, stop.clone());
            daemon.spawn("backends", follow.map(ended));
        }
        let present = backend::present_sessions(core.clone(), worlds.clone(), stop.clone());
        daemon.spawn("present sessions", present.map(ended));
        daemon.spawn("billing", billing::run(core.clone(), node.clone(), stop.clone()).map(ended));
        daemon.spawn("revocations", revocations::follow(core.clone(), node.clone(), stop.clone()).map(ended));
        let sweep = sweep(core.clone(), node.clone(), worlds.clone(), stop.clone());
        daemon.spawn("sweep", sweep.map(ended));
        let connections = TaskTracker::new();
        let accept =
            connection::run(core.clone(), worlds.clone(), listener, connections.clone(), stop.clone());
        daemon.spawn("accept", accept.map(ended));
        node.serve(Routes::new(GatewayServer::new(Service::new(core.clone()))));
        daemon.draining().cancelled().await;
        drain::run(&core, &worlds, settings.daemon.grace).await;
        stop.cancel();
        connections.close();
        connections.wait().await;
        Ok(())
    }
}

/// Tells the load, and forgets tickets that nobody used and sessions whose clients stay away.
async fn sweep(core: Arc<Core>, node: Node, worlds: Arc<Worlds>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(SWEEP_INTERVAL) => {}
        }
        let waiting = {
            let mut tickets = core.tickets.lock();
            tickets.expire(Instant::now());
            tickets.len()
        };
        metrics::HOT.tickets.set(waiting as f64);
        let sessions = core.sessions.all();
        let disconnected = core.sweep(&sessions, Instant::now());
        core.enforce_closures(&sessions, Instant::now());
        gauge!(metrics::GROUPS).set(core.groups() as f64);
        gauge!(metrics::LINK_DEAD).set(disconnected as f64);
        costs::COSTS.publish();
        // Tickets count too: their players are on the way.
        let held = sessions.len() + waiting;
        let load = (held as f64 / core.config.capacity as f64).min(1.0);
        node.set_load(load);
        core.balance.update_targets(load, &worlds.other_gateways());
    }
}
