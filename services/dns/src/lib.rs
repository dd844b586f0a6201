//! The DNS load balancer: an authoritative name server that answers with the replicas that are up, and names replicas
//! with little load more often. It watches the registries, answers resolvers, and lets operators switch address pools.
//!
//! A replica that drains or is lost leaves the answers when a registry reports it. Resolvers may keep an answer for at
//! most five seconds.
//!
//! | modules | purpose |
//! | --- | --- |
//! | [`query`], [`fallback`] | decode packets: the usual form, and unusual ones |
//! | [`zone`], [`view`], [`table`] | names of the zone; replicas to name; encoded answers |
//! | [`responder`], [`cookie`], [`rate`], [`prefixes`] | one packet to one answer: cookies, rate limit, region of the client |
//! | [`weighted_draw`] | chooses the replicas of one answer |
//! | [`replicas`], [`table_updater`] | follow the registries, and replace the table at each change |
//! | [`pool`], [`service`] | address pools, and the gRPC service that switches them |
//! | [`sockets`], [`udp`], [`tcp`], [`batch`] | sockets and loops; many packets per system call |
//!
//! The first four rows and [`pool`] are pure: they know no socket and no clock.

mod batch;
mod config;
mod cookie;
mod edns;
mod fallback;
#[doc(hidden)]
pub mod fuzz;
mod metrics;
mod pool;
mod prefixes;
mod query;
mod random;
mod rate;
mod replicas;
mod responder;
mod service;
mod sockets;
mod subnet;
mod table;
mod table_updater;
mod tcp;
mod transport;
mod udp;
mod view;
mod weighted_draw;
mod wire;
mod zone;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use shardkeep_cluster::{MESSAGE_LIMIT, Node};
use shardkeep_daemon::{ConnectionLimits, Daemon, OverflowPolicy, Service, Settings};
use shardkeep_rpc::dns::dns_server::DnsServer;
use shardkeep_types::DaemonKind;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tracing::{info, warn};

pub use config::{Config, CookieConfig, RateConfig};
use cookie::Cookies;
pub use pool::Pool;
use random::Random;
use responder::{Responder, Shared};
use sockets::Sockets;
use transport::Transport;
use view::View;

const DNS_PORT: u16 = 53;
/// How often the daemon replaces a cookie secret that it has drawn itself.
const SECRET_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// The daemon.
pub struct Dns;

impl Service for Dns {
    const KIND: DaemonKind = DaemonKind::Dns;
    type Config = Config;

    async fn run(settings: Settings<Config>, daemon: Daemon) -> anyhow::Result<()> {
        metrics::describe();
        let node = Node::join(&settings, &daemon, Self::KIND).await?;
        let (origin, config) = (&settings.cluster.zone, settings.service);
        let zone = zone::Zone::new(origin, &config)
            .with_context(|| format!("cluster.zone: {origin:?} is not a domain name"))?;
        let sockets = bind(&config)?;
        node.set_client_address(node.advertise(Some(&config.advertise), sockets.address));
        let cookies = match config.cookies.secrets() {
            Some((current, previous)) => Cookies::new(current, previous),
            None => Cookies::random()?,
        };
        let shared = Shared::new(&config, cookies, zone.table(&View::default()));
        let draining = daemon.draining();
        for socket in sockets.udp {
            let responder = Responder::new(shared.clone(), Transport::Udp, Random::from_entropy());
            daemon.spawn("UDP", udp::serve(socket, responder, draining.clone()));
        }
        let bounds = ConnectionLimits {
            all: config.tcp_connections,
            per_origin: config.tcp_connections_per_address,
            overflow: OverflowPolicy::EvictOldest,
        };
        daemon.spawn("TCP", tcp::serve(sockets.tcp, shared.clone(), bounds, draining.clone()));
        if config.cookies.secrets().is_none() {
            daemon.spawn("cookies", rotate_cookies(shared.clone(), draining.clone()));
        }
        let (sender, replicas) = watch::channel(replicas::Replicas::default());
        daemon.spawn("replicas", replicas::follow_registries(node.clone(), sender, draining.clone()));
        let switch = watch::Sender::new(pool::Switch { since_ms: 0, pool: config.pool });
        let served = watch::Sender::new(switch.borrow().clone());
        let service = DnsServer::new(service::DnsService {
            name: node.id().name.clone(),
            pools: config.pools.clone(),
            switch: switch.clone(),
            served: served.subscribe(),
            peers: node.directory(DaemonKind::Dns),
        });
        let table_updater =
            table_updater::TableUpdater::new(&node, zone, shared, config.pools, replicas, switch, served);
        daemon.spawn("view", table_updater.run(draining.clone()));
        let service =
            service.max_decoding_message_size(MESSAGE_LIMIT).max_encoding_message_size(MESSAGE_LIMIT);
        node.serve(Routes::new(service));
        draining.cancelled().await;
        Ok(())
    }
}

fn bind(config: &Config) -> anyhow::Result<Sockets> {
    let address: SocketAddr = config.listen.parse().context("dns.listen")?;
    let loops = match config.sockets {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        sockets => sockets,
    };
    let sockets = Sockets::bind(address, loops).with_context(|| {
        format!("cannot listen for DNS queries on {address}; set dns.listen to another address")
    })?;
    info!(address = %sockets.address, loops, "DNS bound");
    if sockets.address.port() == DNS_PORT && config.name_servers.is_empty() {
        warn!(
            "dns.name_servers is empty, so resolvers lose a zone that is delegated to this server: \
             set it to the names and addresses that the parent zone has"
        );
    }
    Ok(sockets)
}

/// Replaces the cookie secret daily. Cookies are valid for an hour, and the server still accepts those of the previous
/// secret, so clients notice nothing.
async fn rotate_cookies(shared: Arc<Shared>, stop: CancellationToken) -> anyhow::Result<()> {
    loop {
        tokio::select! {
            () = tokio::time::sleep(SECRET_LIFETIME) => {}
            () = stop.cancelled() => return Ok(()),
        }
        let rotated = shared.cookies.load().rotated()?;
        shared.cookies.store(Arc::new(rotated));
    }
}
