//! A registry whose content the test decides, over the real protocol and mutual TLS.

use std::{collections::BTreeMap, pin::Pin, sync::Arc, time::Duration};

use parking_lot::Mutex;
use shardkeep_cluster::{Dialer, Instance, Node, OperatorName, REGION_ATTRIBUTE, State, certs};
use shardkeep_daemon::{ClusterConfig, Daemon, DaemonConfig, Running, Settings, launch};
use shardkeep_dns::{Config, Dns, Pool};
use shardkeep_rpc::registry::{
    HeartbeatReply, HeartbeatRequest, LeaveReply, LeaveRequest, ListReply, ListRequest, RegisterReply,
    RegisterRequest, RemoveReply, RemoveRequest, WatchEvent, WatchRequest,
    registry_server::{Registry, RegistryServer},
    watch_event::Event,
};
use shardkeep_types::{DaemonKind, InstanceId, WorldId};
use tokio::sync::broadcast;
use tokio_stream::{Stream, StreamExt, wrappers::BroadcastStream};
use tonic::{Request, Response, Status, service::Routes, transport::Channel};

/// A folder with certificates, with or without a registry.
pub(crate) struct TestEnv {
    dir: tempfile::TempDir,
    pub(crate) registry: ScriptedRegistry,
    registries: Vec<String>,
    // Keeps the server of the registry running until the end of the test.
    _node: Option<Node>,
}

impl TestEnv {
    pub(crate) fn without_registry() -> Self {
        let dir = tempfile::tempdir().unwrap();
        certs::make_ca(dir.path()).unwrap();
        // No process listens on the discard port.
        Self { dir, registry: ScriptedRegistry::new(), registries: vec!["127.0.0.1:9".into()], _node: None }
    }

    pub(crate) async fn start() -> Self {
        let mut env = Self::without_registry();
        let daemon = Daemon::new(DaemonKind::Registry, "registry-1");
        let mut settings = env.settings::<()>(DaemonKind::Registry, "registry-1");
        settings.cluster.registries.clear();
        let node = Node::join(&settings, &daemon, DaemonKind::Registry).await.unwrap();
        node.serve(Routes::new(RegistryServer::new(env.registry.clone())));
        env.registries = vec![node.grpc_address()];
        env._node = Some(node);
        env
    }

    pub(crate) async fn launch_dns(&self) -> Running {
        self.launch_replica("dns-1").await
    }

    pub(crate) async fn launch_replica(&self, name: &str) -> Running {
        self.launch_with(name, |_| {}).await
    }

    pub(crate) async fn launch_with(&self, name: &str, change: impl FnOnce(&mut Config)) -> Running {
        let mut settings = self.settings::<Config>(DaemonKind::Dns, name);
        let shelter = Pool { login: vec!["198.51.100.9:3724".into()], ..Pool::default() };
        settings.service.pools.insert("shelter".into(), shelter);
        settings.service.listen = "127.0.0.1:0".into();
        settings.service.max_answers = 8;
        change(&mut settings.service);
        launch::<Dns>(settings).await.unwrap()
    }

    /// A channel to a DNS daemon, as an operator.
    pub(crate) fn operator(&self, address: &str) -> Channel {
        let files = certs::issue(self.dir.path(), DaemonKind::Cli, "cli", WorldId(0)).unwrap();
        let operator = OperatorName::parse("tester").unwrap();
        Dialer::with_operator(files.load().unwrap().into(), &operator).channel(DaemonKind::Dns, address)
    }

    fn settings<C: Default>(&self, kind: DaemonKind, name: &str) -> Settings<C> {
        let files = certs::issue(self.dir.path(), kind, name, WorldId(0)).unwrap();
        Settings {
            daemon: DaemonConfig { name: name.into(), ..DaemonConfig::default() },
            cluster: ClusterConfig {
                registries: self.registries.clone(),
                ca: files.ca,
                cert: files.cert,
                key: files.key,
                lease: Duration::from_millis(1500),
                heartbeat: Duration::from_millis(100),
                ..ClusterConfig::default()
            },
            ..Settings::default()
        }
    }
}

#[derive(Clone)]
pub(crate) struct ScriptedRegistry {
    instances: Arc<Mutex<Vec<Instance>>>,
    changes: broadcast::Sender<Instance>,
}

impl ScriptedRegistry {
    fn new() -> Self {
        Self { instances: Arc::default(), changes: broadcast::Sender::new(64) }
    }

    /// Sends the instance to every present and later watcher of the kind.
    pub(crate) fn announce(&self, kind: DaemonKind, name: &str, client_address: &str, state: State) {
        self.publish(instance(kind, name, client_address, state));
    }

    /// Like [`Self::announce`], for an instance that is up in this region.
    pub(crate) fn announce_in_region(
        &self,
        region: &str,
        kind: DaemonKind,
        name: &str,
        client_address: &str,
    ) {
        let mut instance = instance(kind, name, client_address, State::Up);
        instance.attributes.insert(REGION_ATTRIBUTE.into(), region.into());
        self.publish(instance);
    }

    fn publish(&self, instance: Instance) {
        let mut instances = self.instances.lock();
        instances.push(instance.clone());
        // Fails when there is no watcher yet.
        let _ = self.changes.send(instance);
    }
}

fn instance(kind: DaemonKind, name: &str, client_address: &str, state: State) -> Instance {
    Instance {
        id: InstanceId { kind, name: name.into(), incarnation: 1 },
        state,
        world: WorldId(0),
        grpc_address: String::new(),
        client_address: client_address.into(),
        admin_address: String::new(),
        version: String::new(),
        load: 0.0,
        leadership: shardkeep_cluster::Leadership::None,
        attributes: BTreeMap::new(),
    }
}

#[tonic::async_trait]
impl Registry for ScriptedRegistry {
    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<RegisterReply>, Status> {
        if let Some(instance) = request.into_inner().instance {
            self.publish(instance.try_into()?);
        }
        Ok(Response::new(RegisterReply {}))
    }

    async fn heartbeat(&self, _: Request<HeartbeatRequest>) -> Result<Response<HeartbeatReply>, Status> {
        // `known: false` makes every heartbeat a complete registration.
        Ok(Response::new(HeartbeatReply { known: false }))
    }

    async fn leave(&self, _: Request<LeaveRequest>) -> Result<Response<LeaveReply>, Status> {
        Ok(Response::new(LeaveReply {}))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchEvent, Status>> + Send>>;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let kinds = request.into_inner().kinds;
        let (instances, changes) = {
            let instances = self.instances.lock();
            (instances.clone(), self.changes.subscribe())
        };
        let event = move |instance: Instance| {
            kinds.contains(&instance.id.kind.to_string()).then(|| Event::Changed((&instance).into()))
        };
        let snapshot: Vec<Event> =
            instances.into_iter().filter_map(&event).chain([Event::Synced(true)]).collect();
        let changes = BroadcastStream::new(changes).filter_map(move |instance| event(instance.ok()?));
        let events = tokio_stream::iter(snapshot).chain(changes);
        let events = events.map(|event| Ok(WatchEvent { event: Some(event) }));
        Ok(Response::new(Box::pin(events)))
    }

    async fn list(&self, _: Request<ListRequest>) -> Result<Response<ListReply>, Status> {
        Ok(Response::new(ListReply::default()))
    }

    async fn remove(&self, _: Request<RemoveRequest>) -> Result<Response<RemoveReply>, Status> {
        Ok(Response::new(RemoveReply {}))
    }
}
