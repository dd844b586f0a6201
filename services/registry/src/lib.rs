//! The registry: who is alive, where, and how busy. Every daemon registers here with every replica, keeps a lease by
//! heartbeat, and watches the kinds it needs.
//!
//! It keeps nothing on disk and agrees with nobody: a replica that restarts is full again within one heartbeat, and
//! [`shardkeep_cluster::Directory`] merges what the replicas say. Its word means *alive*, never *owner*.
//!
//! * [`table`]: instances and leases; pure, time is an argument.
//! * [`hub`]: the table with its watchers; each watcher has a bounded queue and is cut when it is too slow.
//! * [`service`]: the gRPC face; checks that an instance speaks for itself only.

mod config;
mod error;
mod hub;
mod metrics;
mod service;
mod table;

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
        let service = RegistryServer::new(service::RegistryService::new(hub.clone()))
            .max_decoding_message_size(MESSAGE_LIMIT)
            .max_encoding_message_size(MESSAGE_LIMIT);
        node.serve(Routes::new(service));
        let own = node.grpc_address();
        if !settings.cluster.registries.contains(&own) {
            node.register_with(&own);
        }
        daemon.draining().cancelled().await;
        // Watchers turn to the other replicas now instead of when the socket closes.
        hub.close();
        Ok(())
    }
}
