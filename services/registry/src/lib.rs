//! The registry: which instances are alive, their addresses and their load. Every daemon registers with every registry,
//! keeps a lease by heartbeats, and watches the kinds of daemons that it calls.
//!
//! The registry stores nothing on disk, and replicas do not exchange state. A restarted replica knows all instances again
//! within one heartbeat, and [`shardkeep_cluster::Directory`] merges the answers of all replicas. A registration means
//! that an instance is *alive*, never that it owns something.
//!
//! * [`table`]: instances and leases; pure, time is an argument.
//! * [`hub`]: the table with its watchers; each watcher has a bounded queue, and a slow watcher is cut.
//! * [`service`]: the gRPC service; an instance may register itself only.
//! * [`targets`]: the scrape targets for Prometheus.

mod config;
mod error;
mod hub;
mod metrics;
mod service;
mod table;
mod targets;

use std::sync::Arc;

use shardkeep_cluster::{MESSAGE_LIMIT, Node};
use shardkeep_daemon::{Daemon, Service, Settings};
use shardkeep_rpc::registry::registry_server::RegistryServer;
use shardkeep_types::DaemonKind;
use tonic::service::Routes;

pub use config::Config;

/// The daemon.
pub struct Registry;

impl Service for Registry {
    const KIND: DaemonKind = DaemonKind::Registry;
    type Config = Config;

    async fn run(settings: Settings<Config>, daemon: Daemon) -> anyhow::Result<()> {
        metrics::describe();
        let node = Node::join(&settings, &daemon, Self::KIND).await?;
        let hub = Arc::new(hub::Hub::new(&settings.service));
        daemon.spawn("lease expiry", hub::expire(hub.clone(), daemon.draining()));
        let instances = hub.clone();
        daemon.add_admin_page("/targets", move || targets::page(instances.list(&[]).iter()));
        let service = RegistryServer::new(service::RegistryService::new(hub.clone()))
            .max_decoding_message_size(MESSAGE_LIMIT)
            .max_encoding_message_size(MESSAGE_LIMIT);
        node.serve(Routes::new(service));
        let own = node.grpc_address();
        if !settings.cluster.registries.contains(&own) {
            node.register_with(&own);
        }
        daemon.draining().cancelled().await;
        // Watchers change to other replicas now, not only when the socket closes.
        hub.close();
        Ok(())
    }
}
