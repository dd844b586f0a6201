//! DNS daemons of a cluster whose registry lists the instances that a test announces.

use std::time::Duration;

use shardkeep_cluster::{REGION_ATTRIBUTE, State};
use shardkeep_daemon::{Running, launch};
use shardkeep_dns::{Config, Dns, Pool};
use shardkeep_rpc::{common::InstanceId, registry::Instance};
use shardkeep_testkit::FakeCluster;
use shardkeep_types::DaemonKind;
use tonic::transport::Channel;

pub(crate) struct TestEnv {
    members: FakeCluster,
    registries: Vec<String>,
}

impl TestEnv {
    pub(crate) fn without_registry() -> Self {
        // No process listens on the discard port.
        Self { members: FakeCluster::without_registry(), registries: vec!["127.0.0.1:9".into()] }
    }

    pub(crate) async fn start() -> Self {
        let members = FakeCluster::start().await;
        Self { registries: members.registries().to_vec(), members }
    }

    pub(crate) async fn launch_dns(&self) -> Running {
        self.launch_replica("dns-1").await
    }

    pub(crate) async fn launch_replica(&self, name: &str) -> Running {
        self.launch_with(name, |_| {}).await
    }

    pub(crate) async fn launch_with(&self, name: &str, change: impl FnOnce(&mut Config)) -> Running {
        let mut settings = self.members.settings::<Config>(DaemonKind::Dns, name);
        settings.cluster.registries.clone_from(&self.registries);
        settings.cluster.lease = Duration::from_millis(1500);
        let shelter = Pool { login: vec!["198.51.100.9:3724".into()], ..Pool::default() };
        settings.service.pools.insert("shelter".into(), shelter);
        settings.service.listen = "127.0.0.1:0".into();
        settings.service.max_answers = 8;
        change(&mut settings.service);
        launch::<Dns>(settings).await.unwrap()
    }

    /// A channel to a DNS daemon, as an operator.
    pub(crate) fn operator(&self, address: &str) -> Channel {
        self.members.channel(DaemonKind::Cli, "cli", DaemonKind::Dns, address)
    }

    /// Registers an instance in this state.
    pub(crate) fn announce(&self, kind: DaemonKind, name: &str, client_address: &str, state: State) {
        self.members.registry.announce(instance(kind, name, client_address, state));
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
        self.members.registry.announce(instance);
    }
}

fn instance(kind: DaemonKind, name: &str, client_address: &str, state: State) -> Instance {
    Instance {
        id: Some(InstanceId { kind: kind.to_string(), name: name.into(), incarnation: 1 }),
        state: shardkeep_rpc::registry::State::from(state).into(),
        client_address: client_address.into(),
        ..Instance::default()
    }
}
