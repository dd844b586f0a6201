//! A cluster inside the test process: members that the test plays, and the daemons that it launches among them, over
//! real sockets and mutual TLS.

use std::{path::Path, time::Duration};

use shardkeep_cluster::{Dialer, Node, OperatorName, certs};
use shardkeep_daemon::{ClusterConfig, Daemon, DaemonConfig, Running, Service, Settings, launch};
use shardkeep_rpc::registry::registry_server::RegistryServer;
use shardkeep_types::{DaemonKind, WorldId};
use tempfile::TempDir;
use tonic::{service::Routes, transport::Channel};

use super::FakeRegistry;

/// Folder of the daemons' data.
const DATA: &str = "data";

/// A certificate authority, a registry that believes all members, and these members.
pub struct FakeCluster {
    folder: TempDir,
    pub registry: FakeRegistry,
    registries: Vec<String>,
    // Dropping a member ends its server.
    members: Vec<(Daemon, Node)>,
}

impl FakeCluster {
    /// Certificates without a registry.
    pub fn without_registry() -> Self {
        Self::in_folder(tempfile::tempdir().expect("a folder"))
    }

    pub async fn start() -> Self {
        Self::without_registry().with_registry().await
    }

    /// Another cluster with the same certificate authority.
    pub async fn start_region(&self) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for file in ["ca.pem", "ca.key"] {
            std::fs::copy(self.folder().join(file), folder.path().join(file))
                .expect("the authority is copied");
        }
        Self::in_folder(folder).with_registry().await
    }

    fn in_folder(folder: TempDir) -> Self {
        certs::make_ca(folder.path()).expect("an authority");
        std::fs::create_dir(folder.path().join(DATA)).expect("a folder");
        Self { folder, registry: FakeRegistry::default(), registries: Vec::new(), members: Vec::new() }
    }

    async fn with_registry(mut self) -> Self {
        let server = RegistryServer::new(self.registry.clone());
        let node = self.serve(DaemonKind::Registry, "registry-1", Routes::new(server)).await;
        self.registries.push(node.grpc_address());
        self
    }

    /// The folder of all certificates and of the daemons' data.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Addresses of the registries that members register with.
    pub fn registries(&self) -> &[String] {
        &self.registries
    }

    /// A registered daemon that serves nothing yet.
    pub async fn member(&mut self, kind: DaemonKind, name: &str) -> Node {
        self.member_of(world_of(kind), kind, name).await
    }

    /// Like [`Self::member`], in this world.
    pub async fn member_of(&mut self, world: WorldId, kind: DaemonKind, name: &str) -> Node {
        let daemon = Daemon::new(kind, name);
        let settings = self.settings_of::<()>(world, kind, name);
        let node = Node::join(&settings, &daemon, kind).await.expect("the member joins");
        self.members.push((daemon, node.clone()));
        node
    }

    /// A member with these services.
    pub async fn serve(&mut self, kind: DaemonKind, name: &str, services: Routes) -> Node {
        let node = self.member(kind, name).await;
        node.serve(services);
        node
    }

    /// Ends the member as a drain does.
    pub fn end(&mut self, name: &str) {
        for (daemon, _) in self.members.extract_if(.., |(_, node)| node.id().name == name) {
            daemon.drain("test");
            daemon.finished().cancel();
        }
    }

    /// Settings of a daemon on free ports. Worlds, zones and chats belong to world 1.
    pub fn settings<C: Default>(&self, kind: DaemonKind, name: &str) -> Settings<C> {
        self.settings_of(world_of(kind), kind, name)
    }

    fn settings_of<C: Default>(&self, world: WorldId, kind: DaemonKind, name: &str) -> Settings<C> {
        let files = certs::issue(self.folder(), kind, name, world).expect("a certificate");
        let data_dir = self.folder().join(DATA);
        Settings {
            daemon: DaemonConfig { name: name.into(), data_dir, ..DaemonConfig::default() },
            cluster: ClusterConfig {
                registries: self.registries.clone(),
                ca: files.ca,
                cert: files.cert,
                key: files.key,
                heartbeat: Duration::from_millis(100),
                world: world.0,
                ..ClusterConfig::default()
            },
            ..Settings::default()
        }
    }

    /// Launches a daemon, and waits until it is ready.
    pub async fn launch<S: Service>(&self, settings: Settings<S::Config>) -> Running {
        let mut running = launch::<S>(settings).await.expect("the daemon starts");
        running.ready().await.expect("the daemon becomes ready");
        running
    }

    /// A channel of `caller`, which the operator `tester` uses, to a daemon.
    pub fn channel(&self, caller: DaemonKind, name: &str, callee: DaemonKind, address: &str) -> Channel {
        let files = certs::issue(self.folder(), caller, name, world_of(caller)).expect("a certificate");
        let operator = OperatorName::parse("tester").expect("a name");
        let identity = files.load().expect("the certificate is valid").into();
        Dialer::with_operator(identity, &operator).channel(callee, address)
    }
}

fn world_of(kind: DaemonKind) -> WorldId {
    match kind {
        DaemonKind::World | DaemonKind::Zone | DaemonKind::Chat => WorldId(1),
        _ => WorldId(0),
    }
}
