//! A panic in any long-lived task of any daemon ends this daemon.

use std::sync::atomic::{AtomicU32, Ordering};

use shardkeep_cluster::certs;
use shardkeep_daemon::{Running, Service, Settings, Sources, launch};
use shardkeep_testkit::assert_each_panic_ends_the_daemon;
use shardkeep_types::{DaemonKind, WorldId};

/// Certificates and data folders, and the daemons that others need.
struct TestCluster {
    folder: tempfile::TempDir,
    registries: Vec<String>,
    starts: AtomicU32,
    running: Vec<Running>,
}

impl TestCluster {
    /// A registry; for daemons of a world also the database cache and a world.
    async fn start(with_world: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        certs::make_ca(folder.path()).unwrap();
        let mut cluster =
            Self { folder, registries: Vec::new(), starts: AtomicU32::new(0), running: Vec::new() };
        let mut registry = cluster.launch::<shardkeep_registry::Registry>("registry-0", 0).await;
        cluster.registries.push(registry.ready().await.unwrap().grpc);
        cluster.running.push(registry);
        if with_world {
            let mut dbcache = cluster.launch::<shardkeep_dbcache::Dbcache>("dbcache-0", 0).await;
            dbcache.ready().await.unwrap();
            let mut world = cluster.launch::<shardkeep_world::World>("world-0", 1).await;
            world.ready().await.unwrap();
            cluster.running.extend([dbcache, world]);
        }
        cluster
    }

    async fn launch<S: Service>(&self, name: &str, world: u32) -> Running {
        let (dir, kind) = (self.folder.path(), S::KIND);
        let files = certs::issue(dir, kind, name, WorldId(world)).unwrap();
        let data = dir.join(format!("data-{}", self.starts.fetch_add(1, Ordering::Relaxed)));
        let mut set = vec![
            format!("daemon.name={name}"),
            format!("daemon.data_dir={}", data.display()),
            "daemon.grace=200ms".into(),
            format!("cluster.ca={}", files.ca.display()),
            format!("cluster.cert={}", files.cert.display()),
            format!("cluster.key={}", files.key.display()),
            format!("cluster.registries={}", self.registries.join(",")),
            "cluster.heartbeat=100ms".into(),
            format!("cluster.world={world}"),
        ];
        if matches!(kind, DaemonKind::Login | DaemonKind::Gateway | DaemonKind::Dns) {
            set.push(format!("{kind}.listen=127.0.0.1:0"));
        }
        let settings = Settings::load(kind, &Sources { set, ..Sources::default() });
        launch::<S>(settings.unwrap_or_else(|error| panic!("{error}"))).await.unwrap()
    }
}

/// Makes each task of this daemon panic once. `tasks` must be among its tasks.
async fn each_panic_ends<S: Service>(world: u32, tasks: &[&str]) {
    let cluster = TestCluster::start(world != 0).await;
    let name = format!("{}-1", S::KIND);
    let found = assert_each_panic_ends_the_daemon(|| cluster.launch::<S>(&name, world)).await;
    for task in tasks.iter().chain(&["gRPC server", "registration", "admin endpoints"]) {
        assert!(found.contains(task), "{task:?} is not among {found:?}");
    }
}

#[tokio::test]
async fn panic_in_any_dns_task_ends_dns() {
    each_panic_ends::<shardkeep_dns::Dns>(0, &["UDP", "TCP", "replicas", "view"]).await;
}

#[tokio::test]
async fn panic_in_any_login_task_ends_login() {
    let tasks =
        ["maintenance", "world list", "prepaid accounts", "store monitor", "revocations", "load report"];
    each_panic_ends::<shardkeep_login::Login>(0, &tasks).await;
}

#[tokio::test]
async fn panic_in_any_gateway_task_ends_the_gateway() {
    let tasks = ["backends", "present sessions", "billing", "revocations", "sweep", "accept"];
    each_panic_ends::<shardkeep_gateway::Gateway>(0, &tasks).await;
}

#[tokio::test]
async fn panic_in_any_world_task_ends_the_world() {
    each_panic_ends::<shardkeep_world::World>(1, &["leadership"]).await;
}

#[tokio::test]
async fn panic_in_any_zone_task_ends_the_zone() {
    each_panic_ends::<shardkeep_zone::Zone>(1, &[]).await;
}

#[tokio::test]
async fn panic_in_any_ai_task_ends_ai() {
    each_panic_ends::<shardkeep_ai::Ai>(0, &[]).await;
}

#[tokio::test]
async fn panic_in_any_chat_task_ends_chat() {
    each_panic_ends::<shardkeep_chat::Chat>(1, &["presence"]).await;
}

#[tokio::test]
async fn panic_in_any_dbcache_task_ends_dbcache() {
    each_panic_ends::<shardkeep_dbcache::Dbcache>(0, &["hard actions", "write-behind"]).await;
}

#[tokio::test]
async fn panic_in_any_billing_task_ends_billing() {
    each_panic_ends::<shardkeep_billing::Billing>(0, &["enforcement"]).await;
}

#[tokio::test]
async fn panic_in_any_gm_task_ends_gm() {
    each_panic_ends::<shardkeep_gm::Gm>(0, &["players", "map", "web"]).await;
}

#[tokio::test]
async fn panic_in_any_logs_task_ends_logs() {
    each_panic_ends::<shardkeep_logs::Logs>(0, &["writer"]).await;
}
