//! The gateway's end of the link to one backend: it dials, sends its hello, resumes the link or starts it anew, and
//! dials again when the stream breaks.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::{Stream, StreamExt, future::BoxFuture, stream::BoxStream};
use metrics::{counter, gauge};
use parking_lot::Mutex;
use shardkeep_rpc::{
    Malformed,
    batch::Batch,
    link::{self as proto, backend_frame, gateway_frame},
};
use shardkeep_types::{BackendKind, DaemonKind, Epoch, GroupKey, InstanceId, SessionId, WorldId};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tracing::{debug, info, warn};

use crate::{
    codec::{self, DeliverView},
    event::Route,
    message::{
        BackendItem, Bound, ClientMessage, ClientView, Fence, GatewayItem, SessionChange, SessionEvent,
        deliver_bytes,
    },
    metrics::{DROPPED, FRESH, LINKS, REFUSED, RESETS},
    outbound::{Outbound, Priority, StreamStep, Timer},
    pipe::{Arrival, Limits, Outgoing},
};
use shardkeep_cluster::Backoff;

/// Time in which a backend answers after it was dialled.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// Frames of a backend.
pub type BackendFrames = BoxStream<'static, Result<proto::BackendFrame, Status>>;

/// Opens a stream to a backend, at its present address.
pub trait Dial: Send + Sync {
    fn dial(&self, outbound: GatewayStream) -> BoxFuture<'_, Result<BackendFrames, Status>>;
}

/// The description of itself that a backend sends in its hello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendInfo {
    pub id: InstanceId,
    pub kind: BackendKind,
    pub world: WorldId,
    pub routes: Vec<Route>,
    pub auto_bind: bool,
    /// The backend keeps messages to a session that moves.
    pub fences: bool,
}

/// Handles what arrives on a link. Methods are called from the link's task and must not block.
pub trait LinkHandler: Send + Sync + 'static {
    /// The link is open. If it is `fresh`, announce bound sessions and watched groups through it before returning.
    fn up(&self, link: &GatewayLink, backend: &BackendInfo, fresh: bool);
    fn batch(&self, link: &GatewayLink, items: Vec<BackendItem>);
    /// The stream broke, and the backend is dialled again.
    fn down(&self, link: &GatewayLink);
}

/// The link to one backend instance; clones are the same link.
#[derive(Clone)]
pub struct GatewayLink {
    shared: Arc<Shared>,
}

struct Shared {
    gateway: InstanceId,
    backend: Arc<str>,
    state: Mutex<State>,
}

struct State {
    out: Outbound,
    phase: Phase,
    link_id: u64,
    /// Incarnation of the backend with which this link was last open.
    backend_incarnation: u64,
    info: Option<Arc<BackendInfo>>,
    streams: u64,
    /// The backend has answered on the present stream, so batches may be sent.
    hello_received: bool,
}

/// Which items the link accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The link accepts no item. When the link opens, the gateway announces its bound sessions and watched groups.
    Closed,
    /// The gateway announces its bound sessions and watched groups. The link accepts no client messages until then,
    /// because the backend needs the announcements first.
    Announcing,
    /// The link accepts all items. It stays in this phase while a broken stream can be resumed.
    Open,
}

impl GatewayLink {
    pub fn new(gateway: InstanceId, backend: &str, limits: Limits) -> Self {
        let state = State {
            out: Outbound::new("gateway", limits),
            phase: Phase::Closed,
            link_id: random(),
            backend_incarnation: 0,
            info: None,
            streams: 0,
            hello_received: false,
        };
        Self { shared: Arc::new(Shared { gateway, backend: backend.into(), state: Mutex::new(state) }) }
    }

    /// Instance name of the backend.
    pub fn backend(&self) -> &Arc<str> {
        &self.shared.backend
    }

    /// The description that the backend sent in its latest hello.
    pub fn info(&self) -> Option<Arc<BackendInfo>> {
        self.shared.state.lock().info.clone()
    }

    /// Whether messages get through now or soon. True during breaks that may be resumed, and while sessions are
    /// announced on a fresh link.
    pub fn is_open(&self) -> bool {
        self.shared.state.lock().phase != Phase::Closed
    }

    /// Delivers messages of a client.
    ///
    /// # Errors
    /// Gives the messages back if the backend cannot take them now.
    pub fn deliver(
        &self,
        session: SessionId,
        session_epoch: Epoch,
        messages: Vec<ClientMessage>,
    ) -> Result<(), Vec<ClientMessage>> {
        let accepted = self.try_deliver(session, session_epoch, messages.iter().map(ClientMessage::view));
        if accepted { Ok(()) } else { Err(messages) }
    }

    /// Delivers one borrowed message of a client. Returns false if the backend cannot take it now.
    pub fn deliver_one(&self, session: SessionId, session_epoch: Epoch, message: ClientView<'_>) -> bool {
        self.try_deliver(session, session_epoch, std::iter::once(message))
    }

    fn try_deliver<'a>(
        &self,
        session: SessionId,
        epoch: Epoch,
        messages: impl Iterator<Item = ClientView<'a>> + Clone,
    ) -> bool {
        let bytes = deliver_bytes(messages.clone());
        let mut state = self.shared.state.lock();
        let accepted = state.phase == Phase::Open
            && state
                .out
                .offer(bytes, |out| codec::encode(out, &DeliverView { session, epoch, messages }))
                .is_ok();
        if !accepted {
            counter!(DROPPED, "side" => "gateway").increment(1);
        }
        accepted
    }

    /// Tells the backend of a change. A resumed client waits for the answer, so that leaves at once; other changes
    /// wait for a batch.
    pub fn session(&self, event: SessionEvent) {
        let priority = match event.kind {
            SessionChange::Resumed => Priority::Prompt,
            SessionChange::Joined | SessionChange::LinkDead | SessionChange::Left => Priority::Deferred,
        };
        self.push_with(priority, GatewayItem::Session(event));
    }

    pub fn bound(&self, bound: Bound) {
        self.push(GatewayItem::Bound(bound));
    }

    pub fn watch(&self, group: GroupKey) {
        self.push(GatewayItem::Watch(group));
    }

    pub fn unwatch(&self, group: GroupKey) {
        self.push(GatewayItem::Unwatch(group));
    }

    /// The session leaves. Returns true if the backend will answer [`BackendItem::Fenced`].
    pub fn fence(&self, fence: Fence) -> bool {
        self.info().is_some_and(|info| info.fences) && self.push(GatewayItem::Fence(fence))
    }

    /// The session has arrived: the backend sends what it kept, then [`BackendItem::Lifted`].
    pub fn lift(&self, fence: Fence) {
        self.push(GatewayItem::Lift(fence));
    }

    /// Returns false if the link is closed. The gateway announces its state when the link opens.
    fn push(&self, item: GatewayItem) -> bool {
        self.push_with(Priority::Prompt, item)
    }

    #[allow(clippy::needless_pass_by_value, reason = "callers make the item for this call")]
    fn push_with(&self, priority: Priority, item: GatewayItem) -> bool {
        let mut state = self.shared.state.lock();
        let open = state.phase != Phase::Closed;
        if open {
            state.out.push(item.bytes(), priority, |out| codec::encode(out, &item));
        }
        open
    }

    /// Keeps the link open until `stop`.
    pub async fn run(&self, dial: &impl Dial, handler: &impl LinkHandler, stop: &CancellationToken) {
        let mut backoff = Backoff::default();
        while !stop.is_cancelled() {
            tokio::select! {
                () = stop.cancelled() => break,
                result = self.once(dial, handler, &mut backoff) => {
                    if let Err(status) = result {
                        debug!(backend = &*self.shared.backend, reason = status.message(), "link broke");
                    }
                }
            }
            let had_hello = {
                let mut state = self.shared.state.lock();
                state.out.close();
                std::mem::take(&mut state.hello_received)
            };
            if had_hello {
                info!(backend = &*self.shared.backend, "link broke; dialling again");
            }
            handler.down(self);
            tokio::select! {
                () = stop.cancelled() => break,
                () = backoff.wait() => {}
            }
        }
        self.shared.state.lock().out.close();
    }

    /// Runs one stream, from its hello to its end.
    async fn once(
        &self,
        dial: &impl Dial,
        handler: &impl LinkHandler,
        backoff: &mut Backoff,
    ) -> Result<(), Status> {
        let timed_out = |_| Status::deadline_exceeded("the backend did not answer");
        let (stream, hello) = self.shared.state.lock().begin_stream(&self.shared.gateway);
        let outbound = GatewayStream {
            shared: self.shared.clone(),
            stream,
            hello: Some(hello),
            timer: Timer::default(),
        };
        let mut inbound = timeout(HELLO_TIMEOUT, dial.dial(outbound)).await.map_err(timed_out)??;
        let hello = timeout(HELLO_TIMEOUT, first_frame(&mut inbound)).await.map_err(timed_out)??;
        let (resumed, received) = (hello.resumed, hello.received);
        let info = Arc::new(BackendInfo::try_from(hello)?);
        let fresh = self.shared.state.lock().accept_hello(resumed, received, &info)?;
        info!(backend = %info.id, fresh, "link up");
        let _open = OpenGauge::new();
        handler.up(self, &info, fresh);
        self.shared.state.lock().phase = Phase::Open;
        backoff.reset();
        while let Some(frame) = inbound.next().await {
            self.receive(frame?, stream, handler)?;
        }
        Ok(())
    }

    fn receive(
        &self,
        frame: proto::BackendFrame,
        stream: u64,
        handler: &impl LinkHandler,
    ) -> Result<(), Status> {
        let mut state = self.shared.state.lock();
        if !state.out.carried_by(stream) {
            return Err(Status::aborted("the link overflowed"));
        }
        match frame.frame {
            Some(backend_frame::Frame::Ack(ack)) => state.out.pipe.acknowledged(ack),
            Some(backend_frame::Frame::Batch(batch)) => {
                let arrival = state.out.pipe.arrived(batch.sequence, batch.ack);
                drop(state);
                match arrival {
                    Arrival::Duplicate => return Ok(()),
                    Arrival::Gap => return Err(Status::data_loss("a batch is missing")),
                    Arrival::New => {}
                }
                let items = batch.items.iter().filter_map(|item| self.parse(item)).collect();
                handler.batch(self, items);
                self.shared.state.lock().out.schedule_ack();
            }
            Some(backend_frame::Frame::Hello(_)) | None => {
                return Err(Status::invalid_argument("unexpected frame"));
            }
        }
        Ok(())
    }

    fn parse(&self, item: &Bytes) -> Option<BackendItem> {
        codec::backend_item(item)
            .inspect_err(|error| {
                warn!(backend = &*self.shared.backend, %error, "item refused");
                counter!(REFUSED, "side" => "gateway", "reason" => "malformed").increment(1);
            })
            .ok()
    }
}

impl State {
    /// Begins a stream, and returns its number and its hello.
    fn begin_stream(&mut self, gateway: &InstanceId) -> (u64, proto::GatewayHello) {
        counter!(RESETS, "side" => "gateway").increment(u64::from(self.streams > 0));
        if self.out.overflowed() || self.phase != Phase::Open {
            self.discard_link();
        }
        self.streams += 1;
        self.hello_received = false;
        self.out.attach(self.streams);
        let hello = proto::GatewayHello {
            gateway: Some(gateway.into()),
            link_id: self.link_id,
            backend_incarnation: self.backend_incarnation,
            received: self.out.pipe.received(),
        };
        (self.streams, hello)
    }

    /// The backend has answered. Returns true if the link starts anew.
    fn accept_hello(
        &mut self,
        resumed: bool,
        received: u64,
        info: &Arc<BackendInfo>,
    ) -> Result<bool, Status> {
        if resumed {
            if self.phase != Phase::Open || !self.out.pipe.can_resume(received) {
                self.discard_link();
                return Err(Status::data_loss("the link cannot be resumed from there"));
            }
            self.out.pipe.resume(received);
        } else {
            counter!(FRESH, "side" => "gateway").increment(1);
            self.out.restart();
            self.phase = Phase::Announcing;
        }
        self.backend_incarnation = info.id.incarnation;
        self.info = Some(info.clone());
        self.hello_received = true;
        self.out.wake();
        Ok(!resumed)
    }

    /// Forgets the link, because it cannot be resumed.
    fn discard_link(&mut self) {
        self.link_id = random();
        self.backend_incarnation = 0;
        self.phase = Phase::Closed;
        self.out.restart();
    }
}

async fn first_frame(inbound: &mut BackendFrames) -> Result<proto::BackendHello, Status> {
    match inbound.next().await.transpose()?.and_then(|frame| frame.frame) {
        Some(backend_frame::Frame::Hello(hello)) => Ok(hello),
        _ => Err(Status::invalid_argument("the first frame must be a hello")),
    }
}

impl TryFrom<proto::BackendHello> for BackendInfo {
    type Error = Malformed;

    fn try_from(hello: proto::BackendHello) -> Result<Self, Malformed> {
        let id: InstanceId = hello.backend.ok_or_else(|| Malformed::missing("backend"))?.try_into()?;
        let kind =
            u8::try_from(hello.kind).map(BackendKind).map_err(|error| Malformed::new("kind", error))?;
        if !serves(id.kind, kind) {
            return Err(Malformed::new("kind", format!("a {} does not serve {kind}", id.kind)));
        }
        Ok(Self {
            id,
            kind,
            world: WorldId(hello.world),
            routes: hello.routes.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            auto_bind: hello.auto_bind,
            fences: hello.fences,
        })
    }
}

/// Whether this kind of daemon may serve as this kind of backend.
fn serves(daemon: DaemonKind, kind: BackendKind) -> bool {
    match daemon {
        DaemonKind::World => kind == BackendKind::WORLD,
        DaemonKind::Zone => kind == BackendKind::ZONE,
        DaemonKind::Chat => kind == BackendKind::CHAT,
        DaemonKind::Backend => kind >= BackendKind::FIRST_CUSTOM,
        _ => false,
    }
}

/// The frames for a backend, pulled from the gateway's end of the link.
pub struct GatewayStream {
    shared: Arc<Shared>,
    stream: u64,
    hello: Option<proto::GatewayHello>,
    timer: Timer,
}

impl Stream for GatewayStream {
    type Item = proto::GatewayFrame;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<proto::GatewayFrame>> {
        let frame = |frame| Poll::Ready(Some(proto::GatewayFrame { frame: Some(frame) }));
        if let Some(hello) = self.hello.take() {
            return frame(gateway_frame::Frame::Hello(hello));
        }
        let Self { shared, stream, timer, .. } = &mut *self;
        let next = timer.poll(context, |context| {
            let mut state = shared.state.lock();
            if state.out.carried_by(*stream) && !state.hello_received {
                state.out.store_waker(context);
                return StreamStep::Wait(None);
            }
            state.out.poll(*stream, context)
        });
        match next {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Ready(Some(Outgoing::Ack(ack))) => frame(gateway_frame::Frame::Ack(ack)),
            Poll::Ready(Some(Outgoing::Batch { sequence, ack, batch })) => {
                let batch = Batch { sequence, ack, items: Vec::new(), encoded: batch.items };
                frame(gateway_frame::Frame::Batch(batch))
            }
        }
    }
}

struct OpenGauge;

impl OpenGauge {
    fn new() -> Self {
        gauge!(LINKS, "side" => "gateway").increment(1.0);
        Self
    }
}

impl Drop for OpenGauge {
    fn drop(&mut self) {
        gauge!(LINKS, "side" => "gateway").decrement(1.0);
    }
}

/// Names a link over reconnections. It must be unlikely to repeat; it is no secret.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
