//! This daemon as a member of the cluster.

use shardkeep_daemon::{Daemon, Settings};
use shardkeep_types::{DaemonKind, InstanceId, WorldId};
use tonic::{service::Routes, transport::Channel};

use crate::Directory;

/// Handle to this instance's membership; clones are the same instance.
#[derive(Clone)]
pub struct Node {}

impl Node {
    /// Takes the identity from the certificate files, binds the gRPC socket and starts registering as STARTING with
    /// every registry.
    ///
    /// # Errors
    /// When the certificate is missing, unreadable or of another instance, or the address is taken.
    pub async fn join<C: Sync>(settings: &Settings<C>, daemon: &Daemon, kind: DaemonKind) -> anyhow::Result<Self> {
        let _ = (settings, daemon, kind);
        todo!()
    }

    pub fn id(&self) -> &InstanceId {
        todo!()
    }

    pub fn world(&self) -> WorldId {
        todo!()
    }

    /// `host:port` as advertised.
    pub fn grpc_address(&self) -> String {
        todo!()
    }

    /// Tells the registries (and the announce file) where players reach this instance.
    pub fn set_client_address(&self, address: String) {
        let _ = address;
        todo!()
    }

    /// 0.0 idle to 1.0 full; told with the next heartbeat.
    pub fn set_load(&self, load: f64) {
        let _ = load;
        todo!()
    }

    /// Tells the registries a kind-specific fact.
    pub fn set_attribute(&self, key: &str, value: String) {
        let _ = (key, value);
        todo!()
    }

    /// Serves these gRPC services, with mutual TLS and the table of who may call what, beside `Control` and health.
    /// Marks the instance UP and the daemon ready. Call it once.
    pub fn serve(&self, routes: Routes) {
        let _ = routes;
        todo!()
    }

    /// Live view of the instances of a kind.
    pub fn directory(&self, kind: DaemonKind) -> Directory {
        let _ = kind;
        todo!()
    }

    /// Cached, lazily connecting channel to a peer of this kind.
    pub fn channel(&self, kind: DaemonKind, grpc_address: &str) -> Channel {
        let _ = (kind, grpc_address);
        todo!()
    }
}
