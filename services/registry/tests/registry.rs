//! Black-box tests over real mutual TLS: instances register, are seen, vanish, and survive a registry's restart.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use shardkeep_cluster::{Dialer, Directory, Instance, Node, STORES_ATTRIBUTE, State, certs};
use shardkeep_daemon::{Daemon, Running, Settings, launch};
use shardkeep_registry::{Config, Registry};
use shardkeep_rpc::{
    chat,
    registry::{LeaveRequest, ListRequest, RegisterRequest, RemoveRequest, registry_client::RegistryClient},
};
use shardkeep_testkit::FakeCluster;
use shardkeep_types::{DaemonKind, InstanceId, StoreIdentity, WorldId};
use tokio::task::JoinHandle;
use tonic::{Code, service::Routes, transport::Channel};

/// Longest wait for something that should happen at once, on a busy machine.
const TEST_TIMEOUT: Duration = Duration::from_secs(20);

/// The registration key of a process that the test plays itself.
const KEY: [u8; 16] = [7; 16];

struct TestCluster(FakeCluster);

impl TestCluster {
    fn new() -> Self {
        Self(FakeCluster::without_registry())
    }

    fn settings<C: Default>(&self, kind: DaemonKind, name: &str, registries: &[String]) -> Settings<C> {
        let mut settings = self.0.settings(kind, name);
        settings.cluster.registries = registries.to_vec();
        settings.cluster.lease = Duration::from_millis(1500);
        settings
    }

    /// Starts a registry; on port 0, or on the port of one that was there before.
    async fn registry(&self, name: &str, address: &str) -> (Running, String) {
        let mut settings = self.settings::<Config>(DaemonKind::Registry, name, &[]);
        settings.daemon.grpc = address.into();
        let running = self.0.launch::<Registry>(settings).await;
        let address = running.daemon().bound().grpc;
        (running, address)
    }

    async fn member(&self, kind: DaemonKind, name: &str, registries: &[String]) -> Member {
        let daemon = Daemon::new(kind, name);
        let settings = self.settings::<()>(kind, name, registries);
        let node = Node::join(&settings, &daemon, kind).await.unwrap();
        Member { daemon, node }
    }

    fn channel(&self, kind: DaemonKind, name: &str, registry: &str) -> Channel {
        self.0.channel(kind, name, DaemonKind::Registry, registry)
    }
}

struct Member {
    daemon: Daemon,
    node: Node,
}

impl Member {
    fn serve(&self) {
        self.node.serve(Routes::default());
    }

    /// Ends because something in it is broken.
    fn crash(&self) {
        self.daemon.fail("test");
        self.daemon.finished().cancel();
    }

    fn end(&self) {
        self.daemon.drain("test");
        self.daemon.finished().cancel();
    }
}

async fn wait_until(directory: &mut Directory, what: &str, holds: impl Fn(&[Instance]) -> bool) {
    let wait = async {
        while !holds(&directory.all()) {
            directory.changed().await;
        }
    };
    let done = tokio::time::timeout(TEST_TIMEOUT, wait).await;
    assert!(done.is_ok(), "{what}: {:#?}", directory.all());
}

fn state_of(view: &[Instance], name: &str) -> Option<State> {
    view.iter().find(|instance| instance.id.name == name).map(|instance| instance.state)
}

/// Collects the log lines of this thread.
#[derive(Clone, Default)]
struct LogLines(Arc<Mutex<Vec<u8>>>);

impl LogLines {
    fn collect() -> (Self, tracing::subscriber::DefaultGuard) {
        let lines = Self::default();
        let writer = lines.clone();
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        (lines, tracing::subscriber::set_default(subscriber))
    }

    /// Lines of the level WARN that contain the text.
    fn warnings(&self, text: &str) -> usize {
        let bytes = self.0.lock().unwrap();
        String::from_utf8_lossy(&bytes).lines().filter(|it| it.contains("WARN") && it.contains(text)).count()
    }
}

impl std::io::Write for LogLines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Waits until the condition holds.
async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(TEST_TIMEOUT, wait).await.is_ok(), "{what}");
}

#[tokio::test]
async fn daemon_is_ready_only_after_a_registry_lease() {
    let cluster = TestCluster::new();
    let (registry, address) = cluster.registry("registry-1", "127.0.0.1:0").await;
    registry.stop().await.unwrap();
    let (log, _guard) = LogLines::collect();
    let login = cluster.member(DaemonKind::Login, "login-1", std::slice::from_ref(&address)).await;
    login.serve();
    eventually("the reason is shown", || login.daemon.not_ready_reason().contains(&address)).await;
    assert!(!login.daemon.is_ready());
    eventually("several attempts fail", || login.daemon.not_ready_reason().contains("refused")).await;
    assert_eq!(log.warnings(&address), 1, "one warning, with the address, a minute");

    let (registry, _) = cluster.registry("registry-1", &address).await;
    eventually("ready", || login.daemon.is_ready()).await;
    // A registry outage must not take the cluster down.
    registry.stop().await.unwrap();
    eventually("a warning", || log.warnings("no registry holds this instance's lease") == 1).await;
    assert!(login.daemon.is_ready());
    login.end();
}

#[tokio::test]
async fn certificate_of_a_foreign_authority_is_reported_as_such() {
    let (cluster, foreign) = (TestCluster::new(), TestCluster::new());
    let (registry, address) = cluster.registry("registry-1", "127.0.0.1:0").await;
    let (log, _guard) = LogLines::collect();
    let login = foreign.member(DaemonKind::Login, "login-1", std::slice::from_ref(&address)).await;
    login.serve();
    let reported = || login.daemon.not_ready_reason().contains("not signed by the authority in cluster.ca");
    eventually("the foreign authority is named", reported).await;
    assert!(!login.daemon.is_ready());
    assert_eq!(log.warnings("not signed by the authority in cluster.ca"), 1);
    login.end();
    registry.stop().await.unwrap();
}

#[tokio::test]
async fn live_registration_is_not_replaced_by_another_certificate() {
    let cluster = TestCluster::new();
    let (registry, address) = cluster.registry("registry-1", "127.0.0.1:0").await;
    let registries = [address.clone()];
    let login = cluster.member(DaemonKind::Login, "login-1", &registries).await;
    login.serve();
    let mut logins = login.node.directory(DaemonKind::Login);
    wait_until(&mut logins, "up", |view| state_of(view, "login-1") == Some(State::Up)).await;

    // The same authority has signed a second certificate of this name.
    let thief = tempfile::tempdir().unwrap();
    for file in ["ca.pem", "ca.key"] {
        std::fs::copy(cluster.0.folder().join(file), thief.path().join(file)).unwrap();
    }
    let files = certs::issue(thief.path(), DaemonKind::Login, "login-1", WorldId(0)).unwrap();
    let channel = Dialer::new(files.load().unwrap().into()).channel(DaemonKind::Registry, &address);
    let mut forged = login.node.instance();
    forged.id.incarnation += 1;
    forged.client_address = "203.0.113.66:3724".into();
    let instance = Some((&forged).into());
    let register = RegisterRequest { instance, lease_ms: 60_000, key: KEY.to_vec() };
    let refused = RegistryClient::new(channel).register(register).await.unwrap_err();
    assert_eq!(refused.code(), Code::AlreadyExists, "{refused}");
    assert_eq!(logins.get("login-1").unwrap().client_address, "");
    assert!(!login.daemon.has_failed());
    login.end();
    registry.stop().await.unwrap();
}

#[tokio::test]
async fn replaced_daemon_ends_with_an_error() {
    let cluster = TestCluster::new();
    let (registry, address) = cluster.registry("registry-1", "127.0.0.1:0").await;
    let registries = [address.clone()];
    let first = cluster.member(DaemonKind::Login, "login-1", &registries).await;
    first.serve();
    eventually("ready", || first.daemon.is_ready()).await;
    let second = cluster.member(DaemonKind::Login, "login-1", &registries).await;
    second.serve();
    eventually("the first one ends", || first.daemon.draining().is_cancelled()).await;
    assert!(first.daemon.has_failed());
    eventually("the second one is ready", || second.daemon.is_ready()).await;
    assert!(!second.daemon.has_failed());
    first.end();
    second.end();
    registry.stop().await.unwrap();
}

#[tokio::test]
async fn panic_in_any_registry_task_ends_the_registry() {
    let cluster = TestCluster::new();
    let start = || {
        let mut settings = cluster.settings::<Config>(DaemonKind::Registry, "registry-1", &[]);
        settings.daemon.grace = Duration::from_millis(100);
        async { launch::<Registry>(settings).await.unwrap() }
    };
    let tasks = shardkeep_testkit::assert_each_panic_ends_the_daemon(start).await;
    for task in ["lease expiry", "gRPC server", "registration", "admin endpoints"] {
        assert!(tasks.contains(&task), "{task} is not among {tasks:?}");
    }
}

#[tokio::test]
async fn incarnation_ahead_of_the_clock_does_not_block_restart() {
    let cluster = TestCluster::new();
    let (_registry, address) = cluster.registry("registry-1", "127.0.0.1:0").await;
    let registries = [address.clone()];
    let watcher = cluster.member(DaemonKind::Dns, "dns-1", &registries).await;
    let mut logins = watcher.node.directory(DaemonKind::Login);
    // A start of long ago, by a clock that was far ahead.
    let ahead = 1 << 50;
    let before = Instance {
        id: InstanceId { kind: DaemonKind::Login, name: "login-1".into(), incarnation: ahead },
        ..watcher.node.instance()
    };
    let mut client = RegistryClient::new(cluster.channel(DaemonKind::Login, "login-1", &address));
    let instance = Some((&before).into());
    client.register(RegisterRequest { instance, lease_ms: 60_000, key: KEY.to_vec() }).await.unwrap();
    client
        .leave(LeaveRequest { id: Some((&before.id).into()), failed: false, key: KEY.to_vec() })
        .await
        .unwrap();
    wait_until(&mut logins, "remembered", |view| state_of(view, "login-1") == Some(State::Left)).await;

    let login = cluster.member(DaemonKind::Login, "login-1", &registries).await;
    login.serve();
    wait_until(&mut logins, "up", |view| state_of(view, "login-1") == Some(State::Up)).await;
    assert_eq!(login.node.id().incarnation, ahead + 1, "later than every one before");
    login.end();
}

#[tokio::test]
async fn instance_state_is_visible_from_start_to_removal() {
    let cluster = TestCluster::new();
    let (registry, address) = cluster.registry("registry-1", "127.0.0.1:0").await;
    let registries = [address.clone()];
    let watcher = cluster.member(DaemonKind::Dns, "dns-1", &registries).await;
    let mut logins = watcher.node.directory(DaemonKind::Login);

    let login = cluster.member(DaemonKind::Login, "login-1", &registries).await;
    wait_until(&mut logins, "starting", |view| state_of(view, "login-1") == Some(State::Starting)).await;
    login.node.set_client_address("203.0.113.7:3724".into());
    login.node.set_load(0.5);
    login.node.set_attribute("queue", "3".into());
    login.serve();
    wait_until(&mut logins, "up with all it said", |view| {
        view.iter().any(|i| {
            i.state == State::Up
                && i.client_address == "203.0.113.7:3724"
                && i.load == 0.5
                && i.attributes.get("queue").is_some_and(|queue| queue == "3")
        })
    })
    .await;
    login.daemon.drain("test");
    wait_until(&mut logins, "draining", |view| state_of(view, "login-1") == Some(State::Draining)).await;
    login.end();
    wait_until(&mut logins, "gone, yet visible", |view| state_of(view, "login-1") == Some(State::Left)).await;
    // One that ends because it is broken does not look like one that was ended.
    let broken = cluster.member(DaemonKind::Login, "login-2", &registries).await;
    broken.serve();
    wait_until(&mut logins, "up", |view| state_of(view, "login-2") == Some(State::Up)).await;
    broken.crash();
    wait_until(&mut logins, "offline", |view| state_of(view, "login-2") == Some(State::Offline)).await;

    let mut operator = RegistryClient::new(cluster.channel(DaemonKind::Gm, "gm-1", &address));
    let remove = RemoveRequest { kind: "login".into(), name: "login-1".into() };
    operator.remove(remove.clone()).await.unwrap();
    wait_until(&mut logins, "removed", |view| state_of(view, "login-1").is_none()).await;
    assert_eq!(operator.remove(remove).await.unwrap_err().code(), Code::NotFound);
    registry.stop().await.unwrap();
}

#[tokio::test]
async fn restarted_registry_refills_and_no_instance_vanishes() {
    let cluster = TestCluster::new();
    let (registry, address) = cluster.registry("registry-1", "127.0.0.1:0").await;
    let registries = [address.clone()];
    let watcher = cluster.member(DaemonKind::Gateway, "gateway-1", &registries).await;
    let mut zones = watcher.node.directory(DaemonKind::Zone);
    let zone = cluster.member(DaemonKind::Zone, "zone-1", &registries).await;
    zone.serve();
    wait_until(&mut zones, "up", |view| state_of(view, "zone-1") == Some(State::Up)).await;

    let vanished = tokio::spawn({
        let mut zones = zones.clone();
        async move {
            while !zones.up().is_empty() {
                zones.changed().await;
            }
        }
    });
    registry.stop().await.unwrap();
    let (registry, _) = cluster.registry("registry-1", &address).await;
    let mut client = RegistryClient::new(cluster.channel(DaemonKind::Cli, "cli", &address));
    let refilled = async {
        loop {
            let request = ListRequest { kinds: vec!["zone".into()] };
            if client.list(request).await.is_ok_and(|reply| !reply.into_inner().instances.is_empty()) {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(TEST_TIMEOUT, refilled).await.expect("refilled");
    // The view follows the new registry: what happens now is seen.
    let late = cluster.member(DaemonKind::Zone, "zone-2", &registries).await;
    late.serve();
    wait_until(&mut zones, "the newcomer", |view| state_of(view, "zone-2") == Some(State::Up)).await;
    assert!(!vanished.is_finished(), "the zone vanished from the view during the restart");
    vanished.abort();
    registry.stop().await.unwrap();
}

#[tokio::test]
async fn directory_merges_two_registries() {
    let cluster = TestCluster::new();
    let (first, address_1) = cluster.registry("registry-1", "127.0.0.1:0").await;
    let (second, address_2) = cluster.registry("registry-2", "127.0.0.1:0").await;
    let registries = [address_1, address_2];
    let watcher = cluster.member(DaemonKind::World, "world-1", &registries).await;
    let mut zones = watcher.node.directory(DaemonKind::Zone);
    let zone = cluster.member(DaemonKind::Zone, "zone-1", &registries).await;
    zone.serve();
    wait_until(&mut zones, "up", |view| state_of(view, "zone-1") == Some(State::Up)).await;
    first.stop().await.unwrap();
    let late = cluster.member(DaemonKind::Zone, "zone-2", &registries).await;
    late.serve();
    wait_until(&mut zones, "seen by the other registry", |view| state_of(view, "zone-2") == Some(State::Up))
        .await;
    assert_eq!(zones.all().len(), 2);
    assert!(zones.least_loaded().is_some());
    second.stop().await.unwrap();
}

#[tokio::test]
async fn calls_without_the_right_are_refused() {
    let cluster = TestCluster::new();
    let (_registry, address) = cluster.registry("registry-1", "127.0.0.1:0").await;

    // A kind that may not: maintenance is for operators.
    let mut zone = RegistryClient::new(cluster.channel(DaemonKind::Zone, "zone-1", &address));
    let remove = RemoveRequest { kind: "login".into(), name: "login-1".into() };
    assert_eq!(zone.remove(remove).await.unwrap_err().code(), Code::PermissionDenied);
    // A service that is not served here is refused before it is looked for.
    let mut chat = chat::chat_client::ChatClient::new(cluster.channel(DaemonKind::Zone, "zone-1", &address));
    assert_eq!(
        chat.history(chat::HistoryRequest::default()).await.unwrap_err().code(),
        Code::PermissionDenied
    );
}

#[tokio::test]
async fn registration_for_another_instance_is_refused() {
    let cluster = TestCluster::new();
    let (_registry, address) = cluster.registry("registry-1", "127.0.0.1:0").await;
    let impostor = cluster.member(DaemonKind::Login, "login-1", &[]).await;
    let mut announcement = impostor.node.instance();
    announcement.id.name = "login-2".into();
    let mut login = RegistryClient::new(cluster.channel(DaemonKind::Login, "login-1", &address));
    let instance = Some((&announcement).into());
    let register = RegisterRequest { instance, lease_ms: 1000, key: KEY.to_vec() };
    assert_eq!(login.register(register).await.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test]
async fn peer_of_another_authority_or_kind_is_refused() {
    let cluster = TestCluster::new();
    let (_registry, address) = cluster.registry("registry-1", "127.0.0.1:0").await;
    let other_cluster = TestCluster::new();
    let mut stranger = RegistryClient::new(other_cluster.channel(DaemonKind::Gm, "gm-1", &address));
    assert!(stranger.list(ListRequest::default()).await.is_err());
    let files = certs::issue(cluster.0.folder(), DaemonKind::Cli, "cli", WorldId(0)).unwrap();
    let wrong_kind = Dialer::new(files.load().unwrap().into()).channel(DaemonKind::Login, &address);
    assert!(RegistryClient::new(wrong_kind).list(ListRequest::default()).await.is_err());
}

fn store(id: &str) -> StoreIdentity {
    format!("accounts/shared/{id}").parse().unwrap()
}

impl Member {
    /// Serves once no other replica has another store, as a daemon with a store does.
    fn serve_with_store(&self, id: &'static str) -> JoinHandle<bool> {
        let node = self.node.clone();
        tokio::spawn(async move {
            let admitted = node.ensure_same_store(&[store(id)]).await;
            if admitted {
                node.serve(Routes::default());
            }
            admitted
        })
    }
}

fn is_waiting(view: &[Instance], name: &str) -> bool {
    view.iter().any(|i| i.id.name == name && i.attributes.get(STORES_ATTRIBUTE).is_some_and(String::is_empty))
}

#[tokio::test]
async fn replica_with_another_store_waits_until_the_first_left() {
    let cluster = TestCluster::new();
    let (registry, address) = cluster.registry("registry-1", "127.0.0.1:0").await;
    let registries = [address.clone()];
    let watcher = cluster.member(DaemonKind::Dns, "dns-1", &registries).await;
    let mut logins = watcher.node.directory(DaemonKind::Login);

    let first = cluster.member(DaemonKind::Login, "login-1", &registries).await;
    assert!(first.serve_with_store("one").await.unwrap());
    let same = cluster.member(DaemonKind::Login, "login-2", &registries).await;
    assert!(same.serve_with_store("one").await.unwrap(), "replicas of one store stand side by side");
    let other = cluster.member(DaemonKind::Login, "login-3", &registries).await;
    let admitted = other.serve_with_store("two");
    wait_until(&mut logins, "the stranger gives way", |view| is_waiting(view, "login-3")).await;
    assert!(state_of(&logins.all(), "login-3") == Some(State::Starting) && !other.daemon.is_ready());

    // A restart of the others is no occasion to take their place.
    same.end();
    first.crash();
    wait_until(&mut logins, "not heard of", |view| state_of(view, "login-1") == Some(State::Offline)).await;
    let again = cluster.member(DaemonKind::Login, "login-1", &registries).await;
    assert!(again.serve_with_store("one").await.unwrap(), "who waits is in nobody's way");
    wait_until(&mut logins, "up again", |view| state_of(view, "login-1") == Some(State::Up)).await;
    assert!(!admitted.is_finished());

    again.end();
    assert!(tokio::time::timeout(TEST_TIMEOUT, admitted).await.expect("its turn has come").unwrap());
    wait_until(&mut logins, "up", |view| state_of(view, "login-3") == Some(State::Up)).await;
    registry.stop().await.unwrap();
}

#[tokio::test]
async fn concurrent_replicas_with_different_stores_admit_only_one() {
    let cluster = TestCluster::new();
    let (registry, address) = cluster.registry("registry-1", "127.0.0.1:0").await;
    let registries = [address.clone()];
    let members = [
        cluster.member(DaemonKind::Billing, "billing-1", &registries).await,
        cluster.member(DaemonKind::Billing, "billing-2", &registries).await,
    ];
    let mut admitted = [members[0].serve_with_store("one"), members[1].serve_with_store("two")];
    let [one, two] = &mut admitted;
    let winner = tokio::time::timeout(TEST_TIMEOUT, async {
        tokio::select! {
            admitted = one => (0, admitted.unwrap()),
            admitted = two => (1, admitted.unwrap()),
        }
    });
    let (winner, served) = winner.await.expect("one of them serves");
    assert!(served);
    let loser = &members[1 - winner];
    let mut seen = members[winner].node.directory(DaemonKind::Billing);
    let name = loser.node.id().name.clone();
    // It waits; or its look crossed the other's, and then the later one has failed.
    let settled =
        |view: &[Instance]| is_waiting(view, &name) || state_of(view, &name).is_none_or(|it| it > State::Up);
    wait_until(&mut seen, "the other does not", |view| {
        settled(view) || members[winner].daemon.draining().is_cancelled()
    })
    .await;
    for member in &members {
        member.end();
    }
    registry.stop().await.unwrap();
}

#[tokio::test]
async fn later_replica_with_another_store_fails_once_both_are_seen() {
    let cluster = TestCluster::new();
    let (registry, address) = cluster.registry("registry-1", "127.0.0.1:0").await;
    registry.stop().await.unwrap();
    let registries = [address.clone()];
    let early = cluster.member(DaemonKind::Gm, "gm-1", &registries).await;
    let late = cluster.member(DaemonKind::Gm, "gm-2", &registries).await;
    let (one, two) = tokio::join!(early.serve_with_store("one"), late.serve_with_store("two"));
    assert!(one.unwrap() && two.unwrap(), "no registry can tell");

    let (registry, _) = cluster.registry("registry-1", &address).await;
    let failed = tokio::time::timeout(TEST_TIMEOUT, late.daemon.draining().cancelled_owned()).await;
    assert!(failed.is_ok() && late.daemon.has_failed());
    assert!(!early.daemon.draining().is_cancelled());
    for member in [&early, &late] {
        member.end();
    }
    registry.stop().await.unwrap();
}
