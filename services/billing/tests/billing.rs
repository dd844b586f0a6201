//! The daemon over mutual TLS and on both engines, as gateways and operators use it.

use std::time::Duration;

use shardkeep_billing::{Billing, Config};
use shardkeep_cluster::{Instance, STORES_ATTRIBUTE};
use shardkeep_daemon::{Running, Settings, launch};
use shardkeep_rpc::{
    billing::{
        CreditRequest, FollowPrepaidRequest, PrepaidAccounts, ReportRequest, SessionReport, ShowReply,
        ShowRequest, TimeLeftRequest, billing_client::BillingClient,
    },
    gateway::{AnnounceRequest, announce_request::To, gateway_server::GatewayServer, kick_request::Selector},
    reason,
};
use shardkeep_testkit::{FakeCluster, FakeGateway, GatewayCall, Postgres, TIMEOUT, http_get, wait_until};
use shardkeep_types::DaemonKind;
use tonic::{Code, service::Routes, transport::Channel};

const HOUR_MS: u64 = 3_600_000;

struct TestEnv {
    members: FakeCluster,
    store: String,
}

impl TestEnv {
    async fn new(store: &str) -> Self {
        Self { members: FakeCluster::start().await, store: store.to_owned() }
    }

    fn settings(&self) -> Settings<Config> {
        let mut settings = self.members.settings::<Config>(DaemonKind::Billing, "billing-1");
        settings.service.store = self.store.clone();
        settings.service.check_interval = Duration::from_millis(50);
        settings
    }

    async fn start(&self) -> Running {
        self.members.launch::<Billing>(self.settings()).await
    }

    fn client(&self, kind: DaemonKind, billing: &Running) -> BillingClient<Channel> {
        let address = billing.daemon().bound().grpc;
        BillingClient::new(self.members.channel(kind, kind.as_str(), DaemonKind::Billing, &address))
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

fn credit(account: u64, hours: u64) -> CreditRequest {
    CreditRequest { account, hours, key: format!("order {account}"), reason: "paid".to_owned() }
}

async fn play_time_is_counted_once_across_restart(env: &TestEnv) {
    let running = env.start().await;
    let (mut gateway, mut gm) =
        (env.client(DaemonKind::Gateway, &running), env.client(DaemonKind::Gm, &running));
    report(&mut gateway, 1_000, false).await;
    assert_eq!(show(&mut gm).await, ShowReply { plan: "free".to_owned(), left_ms: None, played_ms: 1_000 });
    let credit = credit(1, 2);
    for _ in 0..2 {
        assert_eq!(gm.credit(credit.clone()).await.unwrap().into_inner().left_ms, 2 * HOUR_MS);
    }
    report(&mut gateway, 61_000, false).await;
    running.stop().await.unwrap();

    // The acknowledgement was lost, so the gateway repeats the report, and then reports the end of the session.
    let running = env.start().await;
    let (mut gateway, mut gm) =
        (env.client(DaemonKind::Gateway, &running), env.client(DaemonKind::Gm, &running));
    report(&mut gateway, 61_000, false).await;
    report(&mut gateway, 91_000, true).await;
    report(&mut gateway, 91_000, true).await;
    let left_ms = Some(2 * HOUR_MS - 90_000);
    assert_eq!(show(&mut gm).await, ShowReply { plan: "prepaid".to_owned(), left_ms, played_ms: 91_000 });
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn play_time_is_counted_once_on_sqlite() {
    play_time_is_counted_once_across_restart(&TestEnv::new("sqlite").await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn play_time_is_counted_once_on_postgres() {
    let server = Postgres::start().await;
    play_time_is_counted_once_across_restart(&TestEnv::new(&server.url()).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn login_learns_prepaid_accounts_and_their_time() {
    let env = TestEnv::new("sqlite").await;
    let running = env.start().await;
    let mut gm = env.client(DaemonKind::Gm, &running);
    gm.credit(credit(1, 2)).await.unwrap();
    let mut login = env.client(DaemonKind::Login, &running);
    let left = login.time_left(TimeLeftRequest { accounts: vec![2, 1, 2] }).await.unwrap().into_inner();
    assert_eq!(Vec::from_iter(left.left_ms), [(1, 2 * HOUR_MS)], "the other is on the free plan");
    let mut prepaid = login.follow_prepaid(FollowPrepaidRequest {}).await.unwrap().into_inner();
    let first = prepaid.message().await.unwrap().unwrap();
    assert_eq!(first, PrepaidAccounts { accounts: vec![1], complete: true });
    gm.credit(credit(3, 1)).await.unwrap();
    while !prepaid.message().await.unwrap().unwrap().accounts.contains(&3) {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_and_unauthorized_calls_are_refused() {
    let env = TestEnv::new("sqlite").await;
    let running = env.start().await;
    let [mut gm, mut login, mut gateway] =
        [DaemonKind::Gm, DaemonKind::Login, DaemonKind::Gateway].map(|kind| env.client(kind, &running));
    gm.credit(credit(1, 2)).await.unwrap();
    let other = gm.credit(credit(1, 3)).await.unwrap_err();
    assert_eq!((other.code(), reason(&other)), (Code::AlreadyExists, Some("key_conflict")));
    let nothing = gm.credit(credit(1, 0)).await.unwrap_err();
    assert_eq!((nothing.code(), reason(&nothing)), (Code::InvalidArgument, Some("invalid")));
    let too_many = TimeLeftRequest { accounts: vec![1; 1_025] };
    assert_eq!(login.time_left(too_many).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(gateway.credit(credit(1, 2)).await.unwrap_err().code(), Code::PermissionDenied);
    let refused = gateway.follow_prepaid(FollowPrepaidRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn used_up_play_time_warns_then_kicks() {
    let mut env = TestEnv::new("sqlite").await;
    let gateway = FakeGateway::default();
    let server = Routes::new(GatewayServer::new(gateway.clone()));
    env.members.serve(DaemonKind::Gateway, "gateway-1", server).await;
    let running = env.start().await;
    let told = async |text: &str| {
        let to = Some(To::Account(1));
        let call = GatewayCall::Announce(AnnounceRequest { text: text.to_owned(), to });
        gateway.wait_for_call(|made| (*made == call).then_some(())).await;
    };
    let (mut reports, mut gm) =
        (env.client(DaemonKind::Gateway, &running), env.client(DaemonKind::Gm, &running));
    gm.credit(credit(1, 1)).await.unwrap();
    report(&mut reports, HOUR_MS - 9 * 60_000, false).await;
    told("Your play time ends in less than 10 minutes.").await;
    report(&mut reports, HOUR_MS - 30_000, false).await;
    told("Your play time ends in less than a minute.").await;
    // The session's former gateway, which had stalled, reports the session as ended.
    report_of(&mut reports, 1, HOUR_MS - 20_000, true).await;
    report(&mut reports, HOUR_MS, false).await;
    gateway.wait_for_call(|call| matches!(call, GatewayCall::Kick(_)).then_some(())).await;
    let GatewayCall::Kick(kick) = &gateway.calls()[2] else { panic!("{:?}", gateway.calls()) };
    assert_eq!((&kick.selector, kick.code), (&Some(Selector::Account(1)), 16));
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replica_with_other_store_blocks_readiness() {
    let mut env = TestEnv::new("sqlite").await;
    let node = env.members.member(DaemonKind::Billing, "billing-2").await;
    node.set_attribute(STORES_ATTRIBUTE, "billing/alone/another-file".to_owned());
    node.serve(Routes::default());
    env.members.registry.wait_until_up("billing-2").await;

    let mut running = launch::<Billing>(env.settings()).await.unwrap();
    let mut view = node.directory(DaemonKind::Billing);
    let waits = |it: &Instance| it.attributes.get(STORES_ATTRIBUTE).is_some_and(String::is_empty);
    let waiting = async {
        while !view.all().iter().any(|it| it.id.name == "billing-1" && waits(it)) {
            view.changed().await;
        }
    };
    tokio::time::timeout(TIMEOUT, waiting).await.expect("it waits");
    let admin = running.daemon().bound().admin;
    let reason = wait_until("it names the other store", async || {
        let (status, reason) = http_get(&admin, "/readyz").await?;
        Ok((status == 503 && reason.contains("another-file")).then_some(reason))
    });
    let reason = reason.await.unwrap();
    assert!(reason.contains("end billing-2"), "{reason}");
    assert!(!running.daemon().is_ready());

    env.members.end("billing-2");
    running.ready().await.unwrap();
    running.stop().await.unwrap();
}
