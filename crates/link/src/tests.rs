//! Tests of both ends of a link. The transport is in memory, and a test can break its stream.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures::{FutureExt, StreamExt, future::BoxFuture};
use parking_lot::Mutex;
use prost::Message;
use shardkeep_rpc::{batch::Batch, link as proto};
use shardkeep_types::{
    AccountId, BackendKind, DaemonKind, Epoch, Generation, GroupKey, InstanceId, SessionId, WorldId,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::*;

const SESSION: SessionId = SessionId([1; 16]);

fn group(number: u64) -> GroupKey {
    GroupKey::new(0x0200, 1, number)
}

fn instance(kind: DaemonKind, name: &str, incarnation: u64) -> InstanceId {
    InstanceId { kind, name: name.into(), incarnation }
}

fn hub(incarnation: u64, limits: Limits) -> (LinkHub, mpsc::Receiver<LinkEvent>) {
    let spec = BackendSpec {
        kind: BackendKind::ZONE,
        world: WorldId(1),
        routes: vec![Route { first: 0x1000, last: 0x1fff, max_payload: 1024, rate: 50, burst: 100 }],
        auto_bind: false,
    };
    LinkHub::with_limits(instance(DaemonKind::Zone, "zone-1", incarnation), spec, limits)
}

fn event(number: u64) -> ServerMessage {
    ServerMessage::event(0x1000, Bytes::copy_from_slice(&number.to_le_bytes()))
}

fn delta(bytes: usize) -> ServerMessage {
    ServerMessage::state(0x1001, 1, 0, vec![0; bytes])
}

fn session_event(epoch: u64, kind: SessionChange) -> SessionEvent {
    SessionEvent {
        session: SESSION,
        session_epoch: Epoch(epoch),
        kind,
        account: AccountId(1),
        world: WorldId(1),
        generation: Generation(1),
    }
}

/// Dials the hub that it holds; `cut` breaks the present stream in both directions.
#[derive(Clone)]
struct TestTransport {
    gateway: &'static str,
    hub: Arc<Mutex<LinkHub>>,
    cut: Arc<Mutex<CancellationToken>>,
}

impl TestTransport {
    fn new(gateway: &'static str, hub: &LinkHub) -> Self {
        Self { gateway, hub: Arc::new(Mutex::new(hub.clone())), cut: Arc::default() }
    }

    fn cut(&self) {
        std::mem::take(&mut *self.cut.lock()).cancel();
    }
}

impl Dial for TestTransport {
    fn dial(&self, outbound: GatewayStream) -> BoxFuture<'_, Result<BackendFrames, Status>> {
        let (hub, cut) = (self.hub.lock().clone(), self.cut.lock().clone());
        async move {
            let outbound =
                outbound.map(|frame| Ok(reencoded(&frame))).take_until(cut.clone().cancelled_owned()).boxed();
            let inbound =
                hub.accept(self.gateway, outbound).await?.map(|frame| frame.map(|frame| reencoded(&frame)));
            Ok(inbound.take_until(cut.cancelled_owned()).boxed())
        }
        .boxed()
    }
}

/// Encodes and decodes a frame, as a real stream does.
fn reencoded<F: Message + Default>(frame: &F) -> F {
    F::decode(&*frame.encode_to_vec()).unwrap()
}

/// A gateway that announces one session and one group, and records what arrives.
struct Recorder {
    ups: mpsc::UnboundedSender<bool>,
    items: mpsc::UnboundedSender<BackendItem>,
}

impl LinkHandler for Recorder {
    fn up(&self, link: &GatewayLink, _: &BackendInfo, fresh: bool) {
        if fresh {
            link.session(session_event(1, SessionChange::Joined));
            link.watch(group(7));
        }
        self.ups.send(fresh).unwrap();
    }

    fn batch(&self, _: &GatewayLink, items: Vec<BackendItem>) {
        for item in items {
            self.items.send(item).unwrap();
        }
    }

    fn down(&self, _: &GatewayLink) {}
}

struct Gateway {
    link: GatewayLink,
    transport: TestTransport,
    ups: mpsc::UnboundedReceiver<bool>,
    items: mpsc::UnboundedReceiver<BackendItem>,
    stop: CancellationToken,
}

impl Gateway {
    async fn start(hub: &LinkHub) -> Self {
        Self::start_as("gateway-1", hub).await
    }

    async fn start_as(name: &'static str, hub: &LinkHub) -> Self {
        let link = GatewayLink::new(instance(DaemonKind::Gateway, name, 1), "zone-1", Limits::default());
        let (transport, stop) = (TestTransport::new(name, hub), CancellationToken::new());
        let ((ups_in, ups), (items_in, items)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
        let (running, dial, stopped) = (link.clone(), transport.clone(), stop.clone());
        tokio::spawn(async move {
            running.run(&dial, &Recorder { ups: ups_in, items: items_in }, &stopped).await;
        });
        let mut gateway = Self { link, transport, ups, items, stop };
        assert!(gateway.up().await, "the first time is fresh");
        gateway
    }

    /// Waits until the link is up. Returns whether it is fresh.
    async fn up(&mut self) -> bool {
        self.ups.recv().await.unwrap()
    }

    /// The items that arrive, up to and including the one that `last` accepts.
    async fn items_until(&mut self, last: impl Fn(&BackendItem) -> bool) -> Vec<BackendItem> {
        let mut received = Vec::new();
        while !received.last().is_some_and(&last) {
            received.push(self.items.recv().await.unwrap());
        }
        received
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn next_matching<T>(
    events: &mut mpsc::Receiver<LinkEvent>,
    wanted: impl Fn(LinkEvent) -> Option<T>,
) -> T {
    loop {
        if let Some(found) = wanted(events.recv().await.unwrap()) {
            return found;
        }
    }
}

#[tokio::test]
async fn fresh_link_announces_sessions_and_groups_first() {
    let (hub, mut events) = hub(1, Limits::default());
    let gateway = Gateway::start(&hub).await;
    let id: GatewayId = "gateway-1".into();
    assert_eq!(events.recv().await, Some(LinkEvent::Up { gateway: id.clone(), fresh: true }));
    assert!(matches!(events.recv().await, Some(LinkEvent::Session { .. })));
    assert_eq!(events.recv().await, Some(LinkEvent::Watched { gateway: id, group: group(7) }));
    assert_eq!(hub.watchers(group(7)), 1);
    assert_eq!(gateway.link.info().unwrap().routes.len(), 1);
}

#[tokio::test]
async fn stream_breaks_lose_and_repeat_no_item() {
    let (hub, mut events) = hub(1, Limits::default());
    let mut gateway = Gateway::start(&hub).await;
    let id: GatewayId = "gateway-1".into();
    for round in 0..20u64 {
        for n in 0..10 {
            let number = round * 10 + n;
            hub.send(&id, &[SESSION], vec![event(number)]);
            let message = ClientMessage {
                opcode: 0x1000,
                kind: MessageKind::Request,
                request: number,
                payload: Bytes::new(),
            };
            gateway.link.deliver(SESSION, Epoch(1), vec![message]).unwrap();
            if n % 3 == 0 {
                tokio::task::yield_now().await;
            }
        }
        gateway.transport.cut();
        assert!(!gateway.up().await, "resumed, not fresh");
    }
    for number in 0..200 {
        let received = next_matching(&mut events, |event| match event {
            LinkEvent::Deliver { messages, .. } => Some(messages[0].request),
            _ => None,
        });
        assert_eq!(received.await, number);
        let BackendItem::Send { messages, .. } = gateway.items.recv().await.unwrap() else {
            panic!("a send")
        };
        assert_eq!(messages, [event(number)]);
    }
}

#[tokio::test]
async fn dependent_items_wake_an_idle_stream() {
    let (hub, _events) = hub(1, Limits::default());
    let mut gateway = Gateway::start(&hub).await;
    let id: GatewayId = "gateway-1".into();
    for number in 0..50 {
        hub.send(&id, &[SESSION], vec![event(number)]);
        let received = tokio::time::timeout(Duration::from_secs(30), gateway.items.recv()).await;
        let Some(BackendItem::Send { messages, .. }) = received.expect("the stream wakes") else {
            panic!("a send")
        };
        assert_eq!(messages, [event(number)]);
    }
}

#[tokio::test]
async fn restarted_backend_gets_announcements_again() {
    let (first, _events) = hub(1, Limits::default());
    let mut gateway = Gateway::start(&first).await;
    let (second, mut events) = hub(2, Limits::default());
    *gateway.transport.hub.lock() = second.clone();
    gateway.transport.cut();
    assert!(gateway.up().await, "nothing of the old backend can be resumed");
    next_matching(&mut events, |event| matches!(event, LinkEvent::Watched { .. }).then_some(())).await;
    assert_eq!(second.watchers(group(7)), 1);
}

#[tokio::test]
async fn gateway_absent_beyond_grace_is_down() {
    let (hub, mut events) = hub(1, Limits { grace: Duration::ZERO, ..Limits::default() });
    let gateway = Gateway::start(&hub).await;
    gateway.stop.cancel();
    gateway.transport.cut();
    next_matching(&mut events, |event| matches!(event, LinkEvent::Down { .. }).then_some(())).await;
    assert_eq!(hub.watchers(group(7)), 0);
}

#[tokio::test]
async fn lower_session_epoch_is_refused() {
    let (hub, mut events) = hub(1, Limits::default());
    let gateway = Gateway::start(&hub).await;
    gateway.link.session(session_event(2, SessionChange::Joined));
    let message =
        ClientMessage { opcode: 0x1000, kind: MessageKind::Event, request: 0, payload: Bytes::new() };
    gateway.link.deliver(SESSION, Epoch(1), vec![message.clone()]).unwrap();
    gateway.link.deliver(SESSION, Epoch(2), vec![message]).unwrap();
    let epoch = next_matching(&mut events, |event| match event {
        LinkEvent::Deliver { session_epoch, .. } => Some(session_epoch),
        _ => None,
    });
    assert_eq!(epoch.await, Epoch(2));
}

#[tokio::test]
async fn messages_to_moving_session_arrive_at_next_gateway() {
    let (hub, mut events) = hub(1, Limits::default());
    let mut one = Gateway::start(&hub).await;
    let mut two = Gateway::start_as("gateway-2", &hub).await;
    let (first, second): (GatewayId, GatewayId) = ("gateway-1".into(), "gateway-2".into());
    let at = |epoch| Fence { session: SESSION, session_epoch: Epoch(epoch) };
    let send = |number| BackendItem::Send { sessions: vec![SESSION], messages: vec![event(number)] };
    while hub.watchers(group(7)) < 2 {
        events.recv().await;
    }

    hub.send(&first, &[SESSION], vec![event(0)]);
    assert!(one.link.fence(at(1)));
    let fenced = BackendItem::Fenced(at(1));
    assert_eq!(one.items_until(|item| *item == fenced).await, [send(0), fenced.clone()], "behind all before");

    hub.send(&first, &[SESSION], vec![event(1), delta(8)]);
    hub.publish(group(7), Epoch(1), PublishKind::Event, event(2));
    hub.send(&second, &[SESSION], vec![event(3)]);
    hub.bind(&first, SESSION, BackendKind::ZONE, "zone-2", Epoch(9));
    two.link.lift(at(2));
    let lifted = BackendItem::Lifted(at(2));
    let mut received = two.items_until(|item| *item == lifted).await;
    received.retain(|item| !matches!(item, BackendItem::Publish { .. }));
    let missed = BackendItem::Missed { session: SESSION, group: group(7), message: event(2) };
    let bind = BackendItem::Bind {
        session: SESSION,
        kind: BackendKind::ZONE,
        instance: "zone-2".into(),
        bind_epoch: Epoch(9),
    };
    assert_eq!(received, [send(1), missed, send(3), bind, lifted]);

    // The backend does not know yet that the session has moved.
    hub.send(&first, &[SESSION], vec![event(4)]);
    assert_eq!(two.items_until(|item| matches!(item, BackendItem::Send { .. })).await, [send(4)]);
    assert!(one.items.try_recv().is_ok_and(|item| matches!(item, BackendItem::Publish { .. })));
    assert!(one.items.try_recv().is_err(), "nothing but what is for those who stay");
    one.link.lift(at(1));
    assert_eq!(hub.watchers(group(7)), 2);
    assert!(one.link.fence(at(1)), "a stalled gateway is answered, and changes nothing");
    one.items_until(|item| *item == fenced).await;
    two.link.session(session_event(2, SessionChange::Joined));
    hub.send(&second, &[SESSION], vec![event(5)]);
    assert_eq!(two.items_until(|item| matches!(item, BackendItem::Send { .. })).await, [send(5)]);
}

/// Opens a link by hand and does not read it.
async fn unread_link(hub: &LinkHub) -> (GatewayId, crate::serve::BackendStream) {
    let hello = proto::GatewayHello {
        gateway: Some((&instance(DaemonKind::Gateway, "gateway-1", 1)).into()),
        link_id: 1,
        ..Default::default()
    };
    let mut encoded = BytesMut::new();
    crate::codec::encode(&mut encoded, &GatewayItem::Watch(group(7)));
    let watch = Batch { sequence: 1, encoded: encoded.freeze(), ..Batch::default() };
    // As the other side decodes it.
    let watch = Batch::decode(&*watch.encode_to_vec()).unwrap();
    let frames = [proto::gateway_frame::Frame::Hello(hello), proto::gateway_frame::Frame::Batch(watch)];
    let frames = frames.map(|frame| Ok(proto::GatewayFrame { frame: Some(frame) }));
    let inbound = futures::stream::iter(frames).chain(futures::stream::pending());
    ("gateway-1".into(), hub.accept("gateway-1", inbound.boxed()).await.unwrap())
}

fn published(frame: proto::BackendFrame) -> Vec<PublishKind> {
    let Some(proto::backend_frame::Frame::Batch(batch)) = frame.frame else { return Vec::new() };
    let kind = |item: Bytes| match crate::codec::backend_item(&item) {
        Ok(BackendItem::Publish { kind, .. }) => Some(kind),
        _ => None,
    };
    // As the other side decodes it.
    let batch = Batch::decode(&*batch.encode_to_vec()).unwrap();
    batch.items.into_iter().filter_map(kind).collect()
}

#[tokio::test]
async fn full_link_drops_state_and_requests_keyframe() {
    let (hub, mut events) = hub(1, Limits { soft_bytes: 1000, ..Limits::default() });
    let (_, mut stream) = unread_link(&hub).await;
    next_matching(&mut events, |event| matches!(event, LinkEvent::Watched { .. }).then_some(())).await;
    let publish = |kind| hub.publish(group(7), Epoch(1), kind, delta(200));

    publish(PublishKind::Delta);
    let wanted = Some(LinkEvent::KeyframeWanted { group: group(7) });
    assert_eq!(events.recv().await, wanted);
    publish(PublishKind::Keyframe);
    for _ in 0..9 {
        publish(PublishKind::Delta);
    }
    let mut received = Vec::new();
    while let Some(Some(Ok(frame))) = stream.next().now_or_never() {
        received.extend(published(frame));
    }
    assert_eq!(received[0], PublishKind::Keyframe, "a delta before the first keyframe makes no sense");
    assert!((2..9).contains(&received.len()), "the rest did not fit: {received:?}");
    assert_eq!(events.recv().await, wanted);

    publish(PublishKind::Delta);
    publish(PublishKind::Keyframe);
    publish(PublishKind::Delta);
    let frame = stream.next().await.unwrap().unwrap();
    assert_eq!(published(frame), [PublishKind::Keyframe, PublishKind::Delta]);
}

#[tokio::test]
async fn reliable_overflow_closes_the_stream() {
    let (hub, mut events) = hub(1, Limits { hard_bytes: 500, ..Limits::default() });
    let (gateway, mut stream) = unread_link(&hub).await;
    next_matching(&mut events, |event| matches!(event, LinkEvent::Watched { .. }).then_some(())).await;
    for number in 0..50 {
        hub.send(&gateway, &[SESSION], vec![event(number)]);
    }
    assert!(matches!(stream.next().await, Some(Ok(_))), "the hello was not taken yet");
    assert!(stream.next().await.is_none());
}
