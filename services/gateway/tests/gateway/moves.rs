//! Planned moves between gateways: messages that are sent meanwhile arrive once and in order.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use shardkeep_link::{GatewayId, LinkEvent, MessageKind, PublishKind, ServerMessage, SessionChange};
use shardkeep_testkit::FakeBackend;
use shardkeep_types::{BackendKind, DaemonKind, Epoch, GroupKey, SessionId};
use shardkeep_wire::{Head, opcode, payload::ErrorCode};
use tokio::{sync::oneshot, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    cluster::{Cluster, TEST_TIMEOUT, spec},
    player::{Player, refused},
};

const ROLL: u16 = 0x8001;
const NUMBER: u16 = 0x8002;
/// Most numbers that are sent ahead of the reader, so that no log overflows.
const MAX_AHEAD: u64 = 300;

fn table() -> GroupKey {
    GroupKey::new(u16::from(BackendKind::FIRST_CUSTOM.0) << 8, 0, 1)
}

/// A backend that counts as fast as its reader reads: to the session, to a group of the session, to the session
/// again.
struct Counter {
    backend: FakeBackend,
    session: SessionId,
    gateway: Option<GatewayId>,
    received: Arc<AtomicU64>,
}

impl Counter {
    /// Counts until `stop`, reports the last number, and keeps reading.
    async fn run(mut self, stop: CancellationToken, last: oneshot::Sender<u64>) {
        let mut sent = 0;
        // The first number comes when the session is subscribed to the table.
        while !stop.is_cancelled() {
            while let Ok(event) = self.backend.events.try_recv() {
                self.handle_link_event(event);
            }
            let ready = sent > 0 || self.backend.hub.watchers(table()) > 0;
            match &self.gateway {
                Some(gateway) if ready && sent < self.received.load(Ordering::Acquire) + MAX_AHEAD => {
                    self.send_number(gateway, sent);
                    sent += 1;
                    // Other tasks share the thread.
                    if sent % 7 == 0 {
                        tokio::task::yield_now().await;
                    }
                }
                _ => tokio::task::yield_now().await,
            }
        }
        last.send(sent).unwrap();
        while let Some(event) = self.backend.events.recv().await {
            self.handle_link_event(event);
        }
    }

    fn send_number(&self, gateway: &GatewayId, number: u64) {
        let message = ServerMessage::event(NUMBER, number.to_le_bytes().to_vec());
        if number.is_multiple_of(2) {
            self.backend.hub.send(gateway, &[self.session], vec![message]);
        } else {
            self.backend.hub.publish(table(), Epoch(1), PublishKind::Event, message);
        }
    }

    fn handle_link_event(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Session { gateway, event }
                if (event.session, event.kind) == (self.session, SessionChange::Joined) =>
            {
                self.backend.hub.subscribe(&gateway, self.session, &[table()], true);
                self.gateway = Some(gateway);
            }
            LinkEvent::Deliver { gateway, session, messages, .. } => {
                for message in messages.into_iter().filter(|it| it.kind == MessageKind::Request) {
                    let reply = ServerMessage::reply(ROLL, message.request, message.payload);
                    self.backend.hub.send(&gateway, &[session], vec![reply]);
                }
            }
            _ => {}
        }
    }
}

/// The player, and the numbers that arrived in order.
struct NumberReader {
    player: Player,
    next: u64,
    received: Arc<AtomicU64>,
    asked: u32,
    answered: BTreeSet<u32>,
}

impl NumberReader {
    async fn read_next(&mut self) {
        let message = self.player.next().await.unwrap();
        match (message.opcode, message.head) {
            (NUMBER, _) => {
                let number = u64::from_le_bytes(message.payload[..].try_into().unwrap());
                assert_eq!(number, self.next, "lost or said twice");
                self.next += 1;
                self.received.store(self.next, Ordering::Release);
            }
            (ROLL, Head::Reply(request)) => assert!(self.answered.insert(request), "answered twice"),
            other => panic!("{other:?}"),
        }
    }

    /// Sends a request without waiting for its reply.
    async fn send_request(&mut self) {
        self.asked += 1;
        self.player.request(ROLL, self.asked, b"6").await;
    }

    async fn move_to(&mut self, address: &str) {
        self.player.resume(address).await.unwrap();
        let ready = &self.player.established.ready;
        assert!(ready.continued, "a planned move keeps the log");
        if ready.received < u64::from(self.asked) {
            // The request did not arrive; a client repeats it.
            self.player.request(ROLL, self.asked, b"6").await;
        }
        self.player.acknowledge().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeated_moves_deliver_every_message_once_in_order() {
    let mut cluster = Cluster::start().await;
    let _world = cluster.world("world-1", 1).await;
    let range = spec(BackendKind::FIRST_CUSTOM, 0x8000, 0x80ff);
    let mut backend = cluster.backend(DaemonKind::Backend, "counter-1", range).await;
    let (_one, _two) = (cluster.gateway("gateway-1").await, cluster.gateway("gateway-2").await);
    for _ in 0..2 {
        backend.until("link", |event| matches!(event, LinkEvent::Up { .. }).then_some(())).await;
    }
    let (received, stop) = (Arc::new(AtomicU64::new(0)), CancellationToken::new());
    let player = cluster.player("gateway-1", 7).await;
    let counter = Counter { backend, session: player.session, gateway: None, received: received.clone() };
    let (last, sent) = oneshot::channel();
    let counter = tokio::spawn(counter.run(stop.clone(), last));
    let mut reader = NumberReader { player, next: 0, received, asked: 0, answered: BTreeSet::new() };
    let addresses = ["gateway-2", "gateway-1"].map(|name| cluster.address(name));
    let moves = async {
        for round in 0..30 {
            for _ in 0..round % 5 * 20 {
                reader.read_next().await;
            }
            reader.send_request().await;
            reader.move_to(&addresses[round % 2]).await;
        }
        stop.cancel();
        let sent = sent.await.unwrap();
        while reader.next < sent || reader.answered.len() < 30 {
            reader.read_next().await;
        }
    };
    timeout(3 * TEST_TIMEOUT, moves).await.expect("every number is heard");
    counter.abort();
}

/// A session at the first gateway, with an answered request and an event, both unread; and its world.
async fn unread(cluster: &mut Cluster) -> (Player, FakeBackend) {
    let mut world = cluster.world("world-1", 1).await;
    let mut player = cluster.player("gateway-1", 7).await;
    let gateway = world.session(player.session, SessionChange::Joined).await;
    player.request(opcode::LIST_CHARACTERS, 1, b"").await;
    world.delivered(player.session).await;
    world.event(&gateway, player.session, opcode::ANNOUNCEMENT, "unread");
    let reply = ServerMessage::reply(opcode::LIST_CHARACTERS, 1, "answer");
    world.hub.send(&gateway, &[player.session], vec![reply]);
    (player, world)
}

fn assert_log_continued(player: &Player) {
    let ready = &player.established.ready;
    assert_eq!((ready.continued, ready.received), (true, 1), "nothing is lost");
}

async fn assert_unread_arrives(player: &mut Player) {
    assert_eq!(player.text(opcode::ANNOUNCEMENT).await, "unread");
    assert_eq!(player.text(opcode::LIST_CHARACTERS).await, "answer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claim_by_gateway_that_dies_keeps_the_log() {
    let mut cluster = Cluster::start().await;
    let _one = cluster.gateway("gateway-1").await;
    let (_two, _three) = (cluster.gateway("gateway-2").await, cluster.gateway("gateway-3").await);
    let (mut player, _world) = unread(&mut cluster).await;
    cluster.world.answer_claims("gateway-2", false);
    player.resume_until_claimed(&cluster.address("gateway-2"), cluster.world.claimed.subscribe()).await;
    player.resume(&cluster.address("gateway-3")).await.unwrap();
    assert_log_continued(&player);
    assert_unread_arrives(&mut player).await;
}

/// The client resumes at one gateway and then at another, or twice at the same, while the answer to the first claim
/// is late. Either may be faster.
async fn check_late_claim_answer(first: &str, then: &str) {
    let mut cluster = Cluster::start().await;
    let mut gateways = Vec::new();
    for name in ["gateway-1", "gateway-2", "gateway-3"] {
        gateways.push(cluster.gateway(name).await);
    }
    let (mut player, _world) = unread(&mut cluster).await;
    let coming_and_going = async {
        for _ in 0..3 {
            player.forget_gateway_key();
            cluster.world.answer_claims(first, false);
            player.resume_until_claimed(&cluster.address(first), cluster.world.claimed.subscribe()).await;
            cluster.world.answer_claims(first, true);
            // A client repeats a resume that was overtaken.
            while let Err(error) = player.resume(&cluster.address(then)).await {
                assert_eq!(refused(Err::<(), _>(error)), ErrorCode::Unavailable);
            }
            assert_log_continued(&player);
        }
        assert_unread_arrives(&mut player).await;
    };
    timeout(3 * TEST_TIMEOUT, coming_and_going).await.expect("the session goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_claim_answer_with_resume_elsewhere_keeps_the_log() {
    check_late_claim_answer("gateway-2", "gateway-3").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_claim_answer_with_repeated_resume_keeps_the_log() {
    check_late_claim_answer("gateway-2", "gateway-2").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_claim_answer_with_resume_at_origin_keeps_the_log() {
    check_late_claim_answer("gateway-2", "gateway-1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_claim_answer_at_current_gateway_keeps_the_log() {
    check_late_claim_answer("gateway-1", "gateway-1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_held_for_a_zone_move_with_the_session() {
    let mut cluster = Cluster::start().await;
    let mut world = cluster.world("world-1", 1).await;
    let mut zone = cluster.zone("zone-1").await;
    let (_one, _two) = (cluster.gateway("gateway-1").await, cluster.gateway("gateway-2").await);
    for _ in 0..2 {
        zone.until("link", |event| matches!(event, LinkEvent::Up { .. }).then_some(())).await;
    }
    let mut player = cluster.player("gateway-1", 7).await;
    let session = player.session;
    let gateway = world.session(session, SessionChange::Joined).await;
    world.hub.bind(&gateway, session, BackendKind::ZONE, "zone-1", Epoch(5));
    zone.until("bound", |event| matches!(event, LinkEvent::Bound { .. }).then_some(())).await;
    player.request(opcode::GET_INVENTORY, 1, b"held").await;
    player.request(opcode::LIST_CHARACTERS, 2, b"").await;
    // Both requests were read, and the first waits for the zone.
    world.delivered(session).await;

    player.resume(&cluster.address("gateway-2")).await.unwrap();
    assert_eq!((player.established.ready.continued, player.established.ready.received), (true, 2));
    let (gateway, _) = zone.bound(session).await;
    assert_eq!(&*gateway, "gateway-2");
    let received = zone.delivered(session).await;
    assert_eq!((received.len(), received[0].request, &received[0].payload[..]), (1, 1, &b"held"[..]));

    // The world still answers at the gateway that asked.
    world.hub.send(
        &"gateway-1".into(),
        &[session],
        vec![ServerMessage::reply(opcode::LIST_CHARACTERS, 2, "x")],
    );
    assert_eq!(player.text(opcode::LIST_CHARACTERS).await, "x");
}
