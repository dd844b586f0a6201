//! Black-box tests of membership between two instances, over real mutual TLS.

use std::{sync::Arc, time::Duration};

use shardkeep_cluster::{Dialer, Node, certs};
use shardkeep_daemon::Daemon;
use shardkeep_rpc::control::{DrainRequest, control_client::ControlClient};
use shardkeep_testkit::FakeCluster;
use shardkeep_types::{DaemonKind, WorldId};
use tonic::{Code, service::Routes, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

const TIMEOUT: Duration = Duration::from_secs(20);

/// A zone of world 1 with no gRPC services except `Control` and health.
async fn zone(cluster: &FakeCluster) -> (Daemon, Node) {
    let daemon = Daemon::new(DaemonKind::Zone, "zone-1");
    let settings = cluster.settings::<()>(DaemonKind::Zone, "zone-1");
    let node = Node::join(&settings, &daemon, DaemonKind::Zone).await.unwrap();
    node.serve(Routes::default());
    (daemon, node)
}

async fn health(channel: Channel) -> ServingStatus {
    let reply = HealthClient::new(channel).check(HealthCheckRequest::default()).await.unwrap();
    reply.into_inner().status()
}

#[tokio::test]
async fn only_an_operator_may_drain_a_daemon() {
    let cluster = FakeCluster::without_registry();
    let (daemon, node) = zone(&cluster).await;
    let address = node.grpc_address();
    let request = DrainRequest { reason: "maintenance".into() };

    let other_zone = cluster.channel(DaemonKind::Zone, "zone-2", DaemonKind::Zone, &address);
    let refused = ControlClient::new(other_zone.clone()).drain(request.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(!daemon.draining().is_cancelled() && daemon.is_ready());
    assert_eq!(health(other_zone.clone()).await, ServingStatus::Serving);

    let files = certs::issue(cluster.folder(), DaemonKind::Cli, "cli", WorldId(0)).unwrap();
    let nameless = Dialer::new(Arc::new(files.load().unwrap())).channel(DaemonKind::Zone, &address);
    let refused = ControlClient::new(nameless).drain(request.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "a privileged call names its operator");
    assert!(!daemon.draining().is_cancelled());
    let operator = cluster.channel(DaemonKind::Cli, "cli", DaemonKind::Zone, &address);
    ControlClient::new(operator).drain(request).await.unwrap();
    assert!(daemon.draining().is_cancelled());
    // While it drains, it answers requests in progress, and its health is NOT_SERVING.
    let stopped_serving = async {
        while health(other_zone.clone()).await == ServingStatus::Serving {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(TIMEOUT, stopped_serving).await.unwrap();

    daemon.finished().cancel();
    let closed = async {
        while HealthClient::new(other_zone.clone()).check(HealthCheckRequest::default()).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(TIMEOUT, closed).await.unwrap();
}

#[tokio::test]
async fn peer_of_another_kind_than_dialled_is_refused() {
    let cluster = FakeCluster::without_registry();
    let (daemon, node) = zone(&cluster).await;
    let wrong = cluster.channel(DaemonKind::Gm, "gm-1", DaemonKind::World, &node.grpc_address());
    assert!(HealthClient::new(wrong).check(HealthCheckRequest::default()).await.is_err());
    let nonsense = cluster.channel(DaemonKind::Gm, "gm-1", DaemonKind::Zone, "no address at all");
    assert!(HealthClient::new(nonsense).check(HealthCheckRequest::default()).await.is_err());
    daemon.finished().cancel();
}

#[tokio::test]
async fn plaintext_connection_is_refused() {
    let cluster = FakeCluster::without_registry();
    let (daemon, node) = zone(&cluster).await;
    let plain = Channel::from_shared(format!("http://{}", node.grpc_address())).unwrap().connect_lazy();
    assert!(HealthClient::new(plain).check(HealthCheckRequest::default()).await.is_err());
    daemon.finished().cancel();
}

#[tokio::test]
async fn join_refuses_certificate_of_another_instance() {
    let cluster = FakeCluster::without_registry();
    let daemon = Daemon::new(DaemonKind::Zone, "zone-2");
    let mut settings = cluster.settings::<()>(DaemonKind::Zone, "zone-1");
    settings.daemon.name = "zone-2".into();
    let Err(error) = Node::join(&settings, &daemon, DaemonKind::Zone).await else { panic!() };
    assert!(error.to_string().contains("certificate of shardkeep://zone/zone-1?world=1"), "{error:#}");
    settings.cluster.cert = "/nowhere.pem".into();
    let Err(error) = Node::join(&settings, &daemon, DaemonKind::Zone).await else { panic!() };
    assert!(format!("{error:#}").contains("shardkeep certs"), "{error:#}");
}

#[tokio::test]
async fn shared_certificate_requires_a_replica_name() {
    let cluster = FakeCluster::without_registry();
    let shared = certs::issue_shared(cluster.folder(), DaemonKind::Zone, WorldId(1)).unwrap();
    let settings_of = |name: &str, world: u32| {
        let mut settings = cluster.settings::<()>(DaemonKind::Zone, "zone-1");
        settings.daemon.name = name.into();
        (settings.cluster.cert, settings.cluster.key) = (shared.cert.clone(), shared.key.clone());
        settings.cluster.world = world;
        settings
    };
    let join = async |name: &str| {
        let daemon = Daemon::new(DaemonKind::Zone, name);
        (Node::join(&settings_of(name, 1), &daemon, DaemonKind::Zone).await.unwrap(), daemon)
    };
    let ((one, daemon), (other, _)) = (join("zone-a").await, join("zone-b").await);
    one.serve(Routes::default());
    let address = one.grpc_address();
    assert_eq!(health(other.channel(DaemonKind::Zone, &address)).await, ServingStatus::Serving);

    // Refused: a peer certificate without an instance name, of another world, or of another kind.
    let nameless = Dialer::new(Arc::new(shared.load().unwrap())).channel(DaemonKind::Zone, &address);
    let refused = HealthClient::new(nameless).check(HealthCheckRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    for (settings, kind) in
        [(settings_of("zone-c", 2), DaemonKind::Zone), (settings_of("gm-1", 1), DaemonKind::Gm)]
    {
        let joined = Node::join(&settings, &Daemon::new(kind, "stranger"), kind).await;
        assert!(joined.is_err());
    }
    daemon.finished().cancel();
}

async fn until(what: &str, channel: &Channel, serving: bool) {
    let check =
        || async { HealthClient::new(channel.clone()).check(HealthCheckRequest::default()).await.is_ok() };
    let wait = async {
        while check().await != serving {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(TIMEOUT, wait).await.expect(what);
}

#[tokio::test]
async fn revoked_peer_is_cut_off_without_restart() {
    let cluster = FakeCluster::without_registry();
    let (daemon, node) = zone(&cluster).await;
    let address = node.grpc_address();
    let connect = |name| cluster.channel(DaemonKind::Gateway, name, DaemonKind::Zone, &address);
    let (stolen, other) = (connect("gateway-1"), connect("gateway-2"));
    assert_eq!(health(stolen.clone()).await, ServingStatus::Serving);
    assert_eq!(health(other.clone()).await, ServingStatus::Serving);
    certs::revoke(cluster.folder(), &["gateway-1".into()]).unwrap();
    until("the revoked peer loses its connection and gets no other", &stolen, false).await;
    assert_eq!(health(other).await, ServingStatus::Serving);
    // The name has a new certificate.
    assert_eq!(health(connect("gateway-1")).await, ServingStatus::Serving);
    daemon.finished().cancel();
}

#[tokio::test]
async fn new_authority_and_certificate_are_used_without_restart() {
    let (cluster, successor) = (FakeCluster::without_registry(), FakeCluster::without_registry());
    let (daemon, node) = zone(&cluster).await;
    let address = node.grpc_address();
    let old = cluster.channel(DaemonKind::Gateway, "gateway-1", DaemonKind::Zone, &address);
    let new = successor.channel(DaemonKind::Gateway, "gateway-1", DaemonKind::Zone, &address);
    until("a peer of the other authority is refused", &new, false).await;
    assert_eq!(health(old).await, ServingStatus::Serving);

    let file = |cluster: &FakeCluster, name: &str| cluster.folder().join(name);
    let both =
        [file(&cluster, "ca.pem"), file(&successor, "ca.pem")].map(|path| std::fs::read(path).unwrap());
    std::fs::write(file(&cluster, "ca.pem"), both.concat()).unwrap();
    successor.settings::<()>(DaemonKind::Zone, "zone-1");
    for name in ["zone-1.pem", "zone-1.key"] {
        std::fs::copy(file(&successor, name), file(&cluster, name)).unwrap();
    }
    until("the new authority's peer connects", &new, true).await;
    daemon.finished().cancel();
}
