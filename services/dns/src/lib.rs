//! The DNS load balancer: an authoritative name server whose answers are the replicas that are up right now, the
//! lightly loaded ones more often. It talks to the registries (whom it watches), to anybody who asks, and to
//! operators who switch its address pools.
//!
//! The names are in [`zone`]. A replica that drains or is lost vanishes from the answers as soon as a registry says
//! so; resolvers may keep an answer for at most five seconds.
//!
//! * [`query`]: bytes become a question, or a fault. [`zone`]: question and view become an answer.
//!   [`encode`]: the answer becomes bytes that fit. All three are pure.
//! * [`view`]: what answers choose from. [`live`] makes it anew at each change. [`choose`]: the weighted draw.
//!   [`pool`]: addresses that an operator puts in place of the live ones.
//! * [`server`]: the socket loops. [`service`]: the operators' gRPC calls.

mod choose;
mod config;
mod encode;
#[doc(hidden)]
pub mod fuzz;
mod live;
mod metrics;
mod pool;
mod query;
mod random;
mod server;
mod service;
mod view;
mod zone;

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context;
use parking_lot::RwLock;
use shardkeep_cluster::{MESSAGE_LIMIT, Node};
use shardkeep_daemon::{Daemon, Service, Settings};
use shardkeep_rpc::dns::dns_server::DnsServer;
use shardkeep_types::DaemonKind;
use tokio::sync::watch;
use tonic::service::Routes;
use tracing::info;

pub use config::Config;
pub use pool::Pool;
use server::{Responder, Sockets};

/// The daemon.
pub struct Dns;

impl Service for Dns {
    const KIND: DaemonKind = DaemonKind::Dns;
    type Config = Config;

    async fn run(settings: Settings<Config>, daemon: Daemon) -> anyhow::Result<()> {
        metrics::describe();
        let node = Node::join(&settings, &daemon, Self::KIND).await?;
        let (origin, config) = (&settings.cluster.zone, settings.service);
        let zone = zone::Zone::new(origin, config.clone())
            .with_context(|| format!("cluster.zone: {origin:?} is not a domain name"))?;
        let sockets = bind(&config)?;
        let responder = Arc::new(Responder { zone, view: RwLock::default() });
        node.set_client_address(match config.advertise.as_str() {
            "" => node.advertise(sockets.address),
            configured => configured.to_owned(),
        });
        let draining = daemon.draining();
        for socket in sockets.udp {
            daemon.spawn("UDP", server::serve_udp(socket, responder.clone(), draining.clone()));
        }
        let tcp = server::serve_tcp(sockets.tcp, responder.clone(), config.tcp_connections, draining.clone());
        daemon.spawn("TCP", tcp);
        let switch = watch::Sender::new(pool::Switch { since_ms: 0, pool: config.pool });
        let live = live::Live::new(&node, config.pools.clone(), switch.clone());
        daemon.spawn("view", live.keep(responder, draining.clone()));
        let service = DnsServer::new(service::DnsService { pools: config.pools, switch })
            .max_decoding_message_size(MESSAGE_LIMIT)
            .max_encoding_message_size(MESSAGE_LIMIT);
        node.serve(Routes::new(service));
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
