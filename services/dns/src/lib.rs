//! The DNS load balancer: an authoritative name server whose answers are the replicas that are up right now, the
//! lightly loaded ones more often. It talks to the registries (whom it watches), to anybody who asks, and to
//! operators who switch its address pools.
//!
//! The names are in [`zone`]. A replica that drains or is lost vanishes from the answers as soon as a registry says
//! so; resolvers may keep an answer for at most five seconds.
//!
//! * [`query`]: bytes become a question, or a fault; [`fallback`] reads what is unusual. [`table`]: a question becomes an
//!   answer, from records that [`zone`] has encoded ahead of a [`view`]. [`responder`] does all of it for one packet, and
//!   asks [`cookie`] and [`rate`] first whether to. All these are pure.
//! * [`table_updater`] and [`replicas`] make the table anew at each change. [`pool`]: addresses that an operator puts in place of
//!   the live ones; [`service`]: how. [`weighted_draw`]: the weighted draw. [`prefixes`]: which region a client is in.
//! * [`sockets`], [`udp`] and [`tcp`]: the loops. [`batch`]: many packets in one system call.

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
use tracing::info;

pub use config::{Config, CookieConfig, RateConfig};
use cookie::Cookies;
pub use pool::Pool;
use random::Random;
use responder::{Responder, Shared, Transport};
use sockets::Sockets;
use view::View;

/// How often a cookie secret that is our own is replaced.
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
    let sockets = Sockets::bind(address, loops)
        .with_context(|| format!("DNS: can not listen on {address} (dns.listen moves it)"))?;
    info!(address = %sockets.address, loops, "DNS bound");
    Ok(sockets)
}

/// Replaces the cookie secret daily: clients never notice, because cookies live for an hour and the secret before is
/// still taken.
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
