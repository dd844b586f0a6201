//! The daemon over mutual TLS and on both engines, as gateways and operators use it.

mod fake_gateway;

use std::time::Duration;

use shardkeep_billing::{Billing, Config};
use shardkeep_cluster::{Dialer, Instance, Node, STORES_ATTRIBUTE, State, certs};
use shardkeep_daemon::{ClusterConfig, Daemon, DaemonConfig, Running, Settings, launch};
use shardkeep_rpc::{
    billing::{
        CreditRequest, FollowPrepaidRequest, PrepaidAccounts, ReportRequest, SessionReport, ShowReply,
        ShowRequest, TimeLeftRequest, billing_client::BillingClient,
    },
    reason,
};
use shardkeep_testkit::Postgres;
use shardkeep_types::{DaemonKind, WorldId};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tonic::{Code, service::Routes, transport::Channel};

const HOUR_MS: u64 = 3_600_000;

struct TestEnv {
    folder: tempfile::TempDir,
    store: String,
}

impl TestEnv {
    fn new(store: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        certs::make_ca(folder.path()).unwrap();
        Self { folder, store: store.to_owned() }
    }

    fn settings<C: Default>(&self, kind: DaemonKind) -> Settings<C> {
        self.settings_of(kind, format!("{kind}-1"))
    }

    fn settings_of<C: Default>(&self, kind: DaemonKind, name: String) -> Settings<C> {
        let files = certs::issue(self.folder.path(), kind, &name, WorldId(0)).unwrap();
        Settings {
            daemon: DaemonConfig {
                name,
                data_dir: self.folder.path().join("data"),
                ..DaemonConfig::default()
            },
            cluster: ClusterConfig {
                ca: files.ca,
                cert: files.cert,
                key: files.key,
                ..ClusterConfig::default()
            },
            ..Settings::default()
        }
    }

    async fn start(&self, registries: &[String]) -> (Running, String) {
        let mut settings = self.settings::<Config>(DaemonKind::Billing);
        settings.cluster.registries = registries.to_vec();
        settings.service.store = self.store.clone();
        settings.service.check_interval = Duration::from_millis(50);
        let mut running = launch::<Billing>(settings).await.unwrap();
        let address = running.ready().await.unwrap().grpc;
        (running, address)
    }

    fn client(&self, kind: DaemonKind, address: &str) -> BillingClient<Channel> {
        let files = certs::issue(self.folder.path(), kind, &format!("{kind}-1"), WorldId(0)).unwrap();
        BillingClient::new(Dialer::new(files.load().unwrap().into()).channel(DaemonKind::Billing, address))
    }
}

async fn report(gateway: &mut BillingClient<Channel>, played_ms: u64, ended: bool) {
    report_of(gateway, 2, played_ms, ended).await;
}

/// A report of the gateway that holds the session with this epoch.
async fn report_of(gateway: &mut BillingClient<Channel>, session_epoch: u64, played_ms: u64, ended: bool) {
    let (session, started_ms) = (vec![5; 16], 1);
    let session =
        SessionReport { session, account: 1, world: 1, started_ms, played_ms, ended, session_epoch };
    let nonsense = SessionReport { session: vec![1], ..session.clone() };
    let request = ReportRequest { gateway: "gateway-1".to_owned(), reports: vec![nonsense, session] };
    gateway.report(request).await.unwrap();
}

async fn show(operator: &mut BillingClient<Channel>) -> ShowReply {
    operator.show(ShowRequest { account: 1 }).await.unwrap().into_inner()
}

async fn play_time_is_counted_once_across_restart(env: &TestEnv) {
    let (running, address) = env.start(&[]).await;
    let (mut gateway, mut gm) =
        (env.client(DaemonKind::Gateway, &address), env.client(DaemonKind::Gm, &address));
    report(&mut gateway, 1_000, false).await;
    assert_eq!(show(&mut gm).await, ShowReply { plan: "free".to_owned(), left_ms: None, played_ms: 1_000 });
    let credit = CreditRequest { account: 1, hours: 2, key: "order 7".to_owned(), reason: "paid".to_owned() };
    for _ in 0..2 {
        assert_eq!(gm.credit(credit.clone()).await.unwrap().into_inner().left_ms, 2 * HOUR_MS);
    }
    let mut login = env.client(DaemonKind::Login, &address);
    let left = login.time_left(TimeLeftRequest { accounts: vec![2, 1, 2] }).await.unwrap().into_inner();
    assert_eq!(Vec::from_iter(left.left_ms), [(1, 2 * HOUR_MS)], "the other is on the free plan");
    let mut prepaid = login.follow_prepaid(FollowPrepaidRequest {}).await.unwrap().into_inner();
    let first = prepaid.message().await.unwrap().unwrap();
    assert_eq!(first, PrepaidAccounts { accounts: vec![1], complete: true });
    let later = CreditRequest { account: 3, hours: 1, key: "order 8".to_owned(), reason: "paid".to_owned() };
    gm.credit(later).await.unwrap();
    while !prepaid.message().await.unwrap().unwrap().accounts.contains(&3) {}
    assert_eq!(
        gateway.follow_prepaid(FollowPrepaidRequest {}).await.unwrap_err().code(),
        Code::PermissionDenied
    );
    let too_many = TimeLeftRequest { accounts: vec![1; 1_025] };
    assert_eq!(login.time_left(too_many).await.unwrap_err().code(), Code::InvalidArgument);
    let other = gm.credit(CreditRequest { hours: 3, ..credit.clone() }).await.unwrap_err();
    assert_eq!((other.code(), reason(&other)), (Code::AlreadyExists, Some("key_conflict")));
    let nothing = gm.credit(CreditRequest { hours: 0, ..credit.clone() }).await.unwrap_err();
    assert_eq!((nothing.code(), reason(&nothing)), (Code::InvalidArgument, Some("invalid")));
    assert_eq!(gateway.credit(credit).await.unwrap_err().code(), Code::PermissionDenied);
    report(&mut gateway, 61_000, false).await;
    running.stop().await.unwrap();

    // The acknowledgement was lost, so the gateway repeats the report, and then reports the end of the session.
    let (running, address) = env.start(&[]).await;
    let (mut gateway, mut gm) =
        (env.client(DaemonKind::Gateway, &address), env.client(DaemonKind::Gm, &address));
    report(&mut gateway, 61_000, false).await;
    report(&mut gateway, 91_000, true).await;
    report(&mut gateway, 91_000, true).await;
    let left_ms = Some(2 * HOUR_MS - 90_000);
    assert_eq!(show(&mut gm).await, ShowReply { plan: "prepaid".to_owned(), left_ms, played_ms: 91_000 });
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn play_time_is_counted_once_on_sqlite() {
    play_time_is_counted_once_across_restart(&TestEnv::new("sqlite")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn play_time_is_counted_once_on_postgres() {
    let server = Postgres::start().await;
    play_time_is_counted_once_across_restart(&TestEnv::new(&server.url())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn used_up_play_time_warns_then_kicks() {
    let env = TestEnv::new("sqlite");
    let mut gateway = fake_gateway::gateway(&env).await;
    let (running, address) = env.start(&[gateway.registry.clone()]).await;
    let (mut reports, mut gm) =
        (env.client(DaemonKind::Gateway, &address), env.client(DaemonKind::Gm, &address));
    let credit = CreditRequest { account: 1, hours: 1, key: "order 7".to_owned(), reason: "paid".to_owned() };
    gm.credit(credit).await.unwrap();
    report(&mut reports, HOUR_MS - 9 * 60_000, false).await;
    assert_eq!(gateway.received().await, "1: Your play time ends in less than 10 minutes.");
    report(&mut reports, HOUR_MS - 30_000, false).await;
    assert_eq!(gateway.received().await, "1: Your play time ends in less than a minute.");
    // The session's former gateway, which had stalled, reports the session as ended.
    report_of(&mut reports, 1, HOUR_MS - 20_000, true).await;
    report(&mut reports, HOUR_MS, false).await;
    assert_eq!(gateway.received().await, "1: kicked with 16");
    running.stop().await.unwrap();
    gateway.end();
}

/// The answer of `/readyz`.
async fn readyz(admin: &str) -> String {
    let mut stream = TcpStream::connect(admin).await.unwrap();
    stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replica_with_other_store_blocks_readiness() {
    let env = TestEnv::new("sqlite");
    let fake_gateway = fake_gateway::gateway(&env).await;
    let other = Daemon::new(DaemonKind::Billing, "billing-2");
    let mut settings = env.settings_of::<()>(DaemonKind::Billing, "billing-2".to_owned());
    settings.cluster.registries = vec![fake_gateway.registry.clone()];
    let node = Node::join(&settings, &other, DaemonKind::Billing).await.unwrap();
    node.set_attribute(STORES_ATTRIBUTE, "billing/alone/another-file".to_owned());
    node.serve(Routes::default());
    let mut view = node.directory(DaemonKind::Billing);
    let mut wait_until = async |label: &str, condition: &dyn Fn(&Instance) -> bool| {
        let wait = async {
            while !view.all().iter().any(condition) {
                view.changed().await;
            }
        };
        tokio::time::timeout(fake_gateway::TEST_TIMEOUT, wait).await.unwrap_or_else(|_| panic!("{label}"));
    };
    wait_until("the other is up", &|it| it.id.name == "billing-2" && it.state == State::Up).await;

    let mut settings = env.settings::<Config>(DaemonKind::Billing);
    settings.cluster.registries = vec![fake_gateway.registry.clone()];
    let mut running = launch::<Billing>(settings).await.unwrap();
    wait_until("it waits", &|it| {
        it.id.name == "billing-1" && it.attributes.get(STORES_ATTRIBUTE).is_some_and(String::is_empty)
    })
    .await;
    let admin = running.daemon().bound().admin;
    let mut answer = readyz(&admin).await;
    while !answer.contains("another-file") {
        answer = readyz(&admin).await;
    }
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("end billing-2"), "{answer}");
    assert!(!running.daemon().is_ready());

    other.drain("test");
    other.finished().cancel();
    running.ready().await.unwrap();
    running.stop().await.unwrap();
    fake_gateway.end();
}
