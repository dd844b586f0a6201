//! Black box over mutual TLS, on both engines: the daemon as gateways and operators see it.

use shardkeep_billing::{Billing, Config};
use shardkeep_cluster::{Dialer, certs};
use shardkeep_daemon::{ClusterConfig, DaemonConfig, Running, Settings, launch};
use shardkeep_rpc::{
    billing::{
        CreditRequest, ReportRequest, SessionReport, ShowReply, ShowRequest, billing_client::BillingClient,
    },
    reason,
};
use shardkeep_testkit::Postgres;
use shardkeep_types::{DaemonKind, WorldId};
use tonic::{Code, transport::Channel};

const HOUR_MS: u64 = 3_600_000;

struct Place {
    folder: tempfile::TempDir,
    store: String,
}

impl Place {
    fn new(store: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        certs::make_ca(folder.path()).unwrap();
        Self { folder, store: store.to_owned() }
    }

    async fn start(&self) -> (Running, String) {
        let files = certs::issue(self.folder.path(), DaemonKind::Billing, "billing-1", WorldId(0)).unwrap();
        let settings = Settings {
            daemon: DaemonConfig {
                name: "billing-1".to_owned(),
                data_dir: self.folder.path().join("data"),
                ..DaemonConfig::default()
            },
            cluster: ClusterConfig {
                ca: files.ca,
                cert: files.cert,
                key: files.key,
                ..ClusterConfig::default()
            },
            service: Config { store: self.store.clone(), ..Config::default() },
            ..Settings::default()
        };
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
    let session =
        SessionReport { session: vec![5; 16], account: 1, world: 1, started_ms: 1, played_ms, ended };
    let nonsense = SessionReport { session: vec![1], ..session.clone() };
    let request = ReportRequest { gateway: "gateway-1".to_owned(), reports: vec![nonsense, session] };
    gateway.report(request).await.unwrap();
}

async fn show(operator: &mut BillingClient<Channel>) -> ShowReply {
    operator.show(ShowRequest { account: 1 }).await.unwrap().into_inner()
}

async fn time_is_counted_once_and_survives_a_restart(place: &Place) {
    let (running, address) = place.start().await;
    let (mut gateway, mut gm) =
        (place.client(DaemonKind::Gateway, &address), place.client(DaemonKind::Gm, &address));
    report(&mut gateway, 1_000, false).await;
    assert_eq!(show(&mut gm).await, ShowReply { plan: "free".to_owned(), left_ms: None, played_ms: 1_000 });
    let credit = CreditRequest { account: 1, hours: 2, key: "order 7".to_owned(), reason: "paid".to_owned() };
    for _ in 0..2 {
        assert_eq!(gm.credit(credit.clone()).await.unwrap().into_inner().left_ms, 2 * HOUR_MS);
    }
    let other = gm.credit(CreditRequest { hours: 3, ..credit.clone() }).await.unwrap_err();
    assert_eq!((other.code(), reason(&other)), (Code::AlreadyExists, Some("key_conflict")));
    let nothing = gm.credit(CreditRequest { hours: 0, ..credit.clone() }).await.unwrap_err();
    assert_eq!((nothing.code(), reason(&nothing)), (Code::InvalidArgument, Some("invalid")));
    assert_eq!(gateway.credit(credit).await.unwrap_err().code(), Code::PermissionDenied);
    report(&mut gateway, 61_000, false).await;
    running.stop().await.unwrap();

    // The acknowledgement was lost, so the gateway says it again, and then how the session ended.
    let (running, address) = place.start().await;
    let (mut gateway, mut gm) =
        (place.client(DaemonKind::Gateway, &address), place.client(DaemonKind::Gm, &address));
    report(&mut gateway, 61_000, false).await;
    report(&mut gateway, 91_000, true).await;
    report(&mut gateway, 91_000, true).await;
    let left_ms = Some(2 * HOUR_MS - 90_000);
    assert_eq!(show(&mut gm).await, ShowReply { plan: "prepaid".to_owned(), left_ms, played_ms: 91_000 });
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite() {
    time_is_counted_once_and_survives_a_restart(&Place::new("sqlite")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres() {
    let server = Postgres::start().await;
    time_is_counted_once_and_survives_a_restart(&Place::new(&server.url())).await;
}
