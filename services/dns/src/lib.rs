//! The DNS load balancer: an authoritative name server whose answers are the replicas that are up right now, the
//! lightly loaded ones more often. It talks to the registries (whom it watches) and to anybody who asks.
//!
//! The names are in [`zone`]. A replica that drains or is lost vanishes from the answers as soon as a registry says
//! so; resolvers may keep an answer for at most five seconds.
//!
//! * [`query`]: bytes become a question, or a fault. [`zone`]: question and view become an answer.
//!   [`encode`]: the answer becomes bytes that fit. All three are pure.
//! * [`view`]: what answers choose from, made anew at each change. [`choose`]: the weighted draw.
//! * [`server`]: the socket loops.

mod choose;
mod config;
mod encode;
mod metrics;
mod query;
mod random;
mod server;
mod view;
mod zone;

use std::{net::SocketAddr, sync::Arc, time::SystemTime};

use ::metrics::{counter, gauge};
use anyhow::Context;
use parking_lot::RwLock;
use shardkeep_cluster::{Directory, Node};
use shardkeep_daemon::{Daemon, Settings};
use shardkeep_types::DaemonKind;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tracing::info;

pub use config::Config;
use server::{Responder, Sockets};
use view::{Service, View};

/// The daemon.
pub struct Dns;

impl shardkeep_daemon::Service for Dns {
    const KIND: DaemonKind = DaemonKind::Dns;
    type Config = Config;

    async fn run(settings: Settings<Config>, daemon: Daemon) -> anyhow::Result<()> {
        metrics::describe();
        let node = Node::join(&settings, &daemon, Self::KIND).await?;
        let origin = &settings.cluster.zone;
        let zone = zone::Zone::new(origin, settings.service.clone())
            .with_context(|| format!("cluster.zone: {origin:?} is not a domain name"))?;
        let sockets = bind(&settings.service)?;
        let responder = Arc::new(Responder { zone, view: RwLock::default() });
        node.set_client_address(match settings.service.advertise.as_str() {
            "" => node.advertise(sockets.address),
            configured => configured.to_owned(),
        });
        let draining = daemon.draining();
        for socket in sockets.udp {
            daemon.spawn("UDP", server::serve_udp(socket, responder.clone(), draining.clone()));
        }
        let connections = settings.service.tcp_connections;
        daemon.spawn("TCP", server::serve_tcp(sockets.tcp, responder.clone(), connections, draining.clone()));
        daemon.spawn("view", keep_view(Directories::of(&node), responder, draining.clone()));
        node.serve(Routes::default());
        draining.cancelled().await;
        Ok(())
    }
}

fn bind(config: &Config) -> anyhow::Result<Sockets> {
    let address: SocketAddr = config.listen.parse().context("dns.listen")?;
    let loops = std::thread::available_parallelism().map_or(1, usize::from);
    let sockets = Sockets::bind(address, loops)
        .with_context(|| format!("DNS: can not listen on {address} (dns.listen moves it)"))?;
    info!(address = %sockets.address, loops, "DNS bound");
    Ok(sockets)
}

/// The live views that answers come from.
struct Directories {
    login: Directory,
    gateway: Directory,
    name_server: Directory,
}

impl Directories {
    fn of(node: &Node) -> Self {
        Self {
            login: node.directory(DaemonKind::Login),
            gateway: node.directory(DaemonKind::Gateway),
            name_server: node.directory(DaemonKind::Dns),
        }
    }

    fn get(&mut self, service: Service) -> &mut Directory {
        match service {
            Service::Login => &mut self.login,
            Service::Gateway => &mut self.gateway,
            Service::NameServer => &mut self.name_server,
        }
    }

    async fn changed(&mut self) {
        tokio::select! {
            () = self.login.changed() => {}
            () = self.gateway.changed() => {}
            () = self.name_server.changed() => {}
        }
    }

    async fn view(&mut self) -> View {
        // Both kinds that players need must have been heard of before an empty list is a fact.
        let heard = self.login.heard() && self.gateway.heard();
        let mut view = View::new(heard, unix_seconds());
        for service in Service::ALL {
            let instances = self.get(service).snapshot();
            view.set_targets(service, view::targets(&instances).await);
        }
        view
    }
}

/// Replaces the view at each change.
async fn keep_view(
    mut directories: Directories,
    responder: Arc<Responder>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    loop {
        let view = directories.view().await;
        if !view.says_the_same(&responder.view.read()) {
            for service in Service::ALL {
                let count = view.targets(service).len();
                gauge!(metrics::TARGETS, "name" => service.label()).set(count as f64);
            }
            counter!(metrics::VIEW_CHANGES).increment(1);
            *responder.view.write() = Arc::new(view);
        }
        tokio::select! {
            () = directories.changed() => {}
            () = stop.cancelled() => return Ok(()),
        }
    }
}

fn unix_seconds() -> u32 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    // Serial numbers wrap around (RFC 1982).
    since.as_secs() as u32
}
