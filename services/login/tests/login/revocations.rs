//! Revocations and closed worlds as gateways are told of them: at once, from every replica, and after a
//! disconnection.

use shardkeep_rpc::accounts::{
    BanRequest, Closures, HeldSession, HeldSessions, LogOutRequest, Revocation, RevocationList,
    SetMaintenanceRequest, SetStaffRequest,
};
use shardkeep_testkit::Postgres;
use shardkeep_wire::payload::ErrorCode;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::cluster::{Cluster, TEST_TIMEOUT};

/// The follower's side of the stream, as a gateway has it.
pub(crate) struct Follower {
    holds: mpsc::Sender<HeldSessions>,
    lists: Streaming<RevocationList>,
}

impl Follower {
    pub(crate) async fn new(cluster: &Cluster) -> Self {
        let (holds, stream) = mpsc::channel(4);
        let lists = cluster.revocations().follow(ReceiverStream::new(stream)).await.unwrap().into_inner();
        Self { holds, lists }
    }

    async fn hold(&self, account: u64, generation: u64) {
        self.holds.send(HeldSessions { held: vec![HeldSession { account, generation }] }).await.unwrap();
    }

    /// The next revocation of this account. If a list has several, the highest.
    pub(crate) async fn received(&mut self, account: u64) -> Revocation {
        let waiting = async {
            loop {
                let list = self.lists.message().await.unwrap().expect("the stream stays");
                let of_account = list.revocations.into_iter().filter(|it| it.account == account);
                if let Some(found) = of_account.max_by_key(|it| it.below_generation) {
                    return found;
                }
            }
        };
        timeout(TEST_TIMEOUT, waiting).await.expect("it is told")
    }

    /// The next list of closed worlds that satisfies `wanted`.
    async fn closed(&mut self, wanted: impl Fn(&Closures) -> bool) -> Closures {
        let waiting = async {
            loop {
                let list = self.lists.message().await.unwrap().expect("the stream stays");
                if let Some(found) = list.closures.filter(&wanted) {
                    return found;
                }
            }
        };
        timeout(TEST_TIMEOUT, waiting).await.expect("it is told")
    }
}

#[tokio::test]
async fn revocation_reaches_gateways_from_every_replica() {
    let server = Postgres::start().await;
    let store = format!("login.store={}", server.url());
    let settings = [store.as_str()];
    let (one, other) = tokio::join!(Cluster::start_with(&settings), Cluster::start_with(&settings));
    let (alice, bob) = (one.account("alice", "right").await, one.account("bob", "right").await);
    let (mut here, mut there) = (Follower::new(&one).await, Follower::new(&other).await);

    one.connect().await.log_in("alice", "right").await.unwrap();
    for follower in [&mut here, &mut there] {
        let received = follower.received(alice).await;
        assert_eq!((received.below_generation, received.code), (2, ErrorCode::Displaced as u32));
    }
    let ban =
        BanRequest { name: "alice".into(), until_ms: u64::MAX, reason: "cheats".into(), everywhere: false };
    other.accounts().ban(ban).await.unwrap();
    for follower in [&mut here, &mut there] {
        let received = follower.received(alice).await;
        let received = (received.below_generation, received.code, received.detail.as_str());
        assert_eq!(received, (3, ErrorCode::Banned as u32, "for ever: cheats"));
    }

    // A follower that was disconnected all the time lists its sessions.
    let mut late = Follower::new(&other).await;
    late.hold(alice, 2).await;
    let received = late.received(alice).await;
    assert_eq!((received.below_generation, received.code), (3, ErrorCode::Banned as u32));
    late.hold(bob, 1).await;
    one.accounts().log_out_everywhere(LogOutRequest { name: "bob".into() }).await.unwrap();
    assert_eq!(late.received(bob).await.code, ErrorCode::Kicked as u32);
    // It lists another session later, whose generation has passed meanwhile.
    late.hold(bob, 1).await;
    assert_eq!(late.received(bob).await.below_generation, 2);
}

#[tokio::test]
async fn closed_worlds_and_staff_are_sent_to_gateways() {
    let cluster = Cluster::start().await;
    cluster.account("alice", "right").await;
    let grace = cluster.account("grace", "right").await;
    let mut accounts = cluster.accounts();
    let mut early = Follower::new(&cluster).await;
    assert!(early.closed(|_| true).await.worlds.is_empty());
    let close = SetMaintenanceRequest { world: 1, closed: true, note: "new maps".into(), grace_ms: 90_000 };
    accounts.set_maintenance(close.clone()).await.unwrap();
    let mut late = Follower::new(&cluster).await;
    for follower in [&mut early, &mut late] {
        let received = follower.closed(|closures| !closures.worlds.is_empty()).await;
        let world = &received.worlds[0];
        assert_eq!((received.worlds.len(), world.world, world.note.as_str()), (1, 1, "new maps"));
        assert!((30_000..=90_000).contains(&world.left_ms) && received.staff.is_empty(), "{received:?}");
    }
    accounts.set_staff(SetStaffRequest { name: "grace".into(), staff: true }).await.unwrap();
    early.closed(|closures| closures.staff == [grace]).await;
    accounts.set_maintenance(SetMaintenanceRequest { grace_ms: 0, ..close.clone() }).await.unwrap();
    early.closed(|closures| closures.worlds[0].left_ms == 0).await;
    accounts.set_maintenance(SetMaintenanceRequest { closed: false, ..close }).await.unwrap();
    early.closed(|closures| closures.worlds.is_empty() && closures.staff.is_empty()).await;
}

#[tokio::test]
async fn follow_is_refused_to_other_than_gateways() {
    let cluster = Cluster::start().await;
    let (_holds, stream) = mpsc::channel::<HeldSessions>(1);
    let mut operator = cluster.revocations_as_operator();
    let refused = operator.follow(ReceiverStream::new(stream)).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied);
}
