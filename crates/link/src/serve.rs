//! The gRPC side of the hub: one stream per gateway, with frames in both directions.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::{Stream, StreamExt};
use metrics::{counter, gauge};
use shardkeep_rpc::{
    batch::Batch,
    link::{self as proto, backend_frame, gateway_frame, link_server::Link},
};
use shardkeep_types::{DaemonKind, Epoch, InstanceId, SessionId};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use tracing::{info, warn};

use crate::{
    codec,
    event::{GatewayId, LinkEvent},
    hub::{LinkHub, Opened, Shared, State},
    message::{GatewayItem, SessionChange},
    metrics::{LINKS, REFUSED, RESETS},
    outbound::{StreamStep, Timer},
    pipe::{Arrival, Outgoing},
};
use shardkeep_cluster::Peer;

/// Time in which a gateway that has dialled sends its hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

#[tonic::async_trait]
impl Link for LinkHub {
    type OpenStream = BackendStream;

    async fn open(
        &self,
        request: Request<Streaming<proto::GatewayFrame>>,
    ) -> Result<Response<BackendStream>, Status> {
        let peer = Peer::of(&request)?;
        if peer.kind != DaemonKind::Gateway {
            return Err(Status::permission_denied("only gateways open links"));
        }
        self.accept(&peer.name, request.into_inner()).await.map(Response::new)
    }
}

impl LinkHub {
    /// Serves one stream of the gateway that its certificate names.
    pub(crate) async fn accept<S>(&self, name: &str, mut inbound: S) -> Result<BackendStream, Status>
    where
        S: Stream<Item = Result<proto::GatewayFrame, Status>> + Send + Unpin + 'static,
    {
        let hello = tokio::time::timeout(HELLO_TIMEOUT, first_frame(&mut inbound))
            .await
            .map_err(|_| Status::deadline_exceeded("no hello"))??;
        let id: InstanceId =
            hello.gateway.clone().ok_or_else(|| Status::invalid_argument("no gateway"))?.try_into()?;
        if id.name != name {
            return Err(Status::permission_denied("the certificate names another gateway"));
        }
        let gateway: GatewayId = name.into();
        let shared = &self.shared;
        let read_permit = shared.next_read_permit(&gateway);
        // The earlier reader may be in the middle of a batch. It finishes first, so that the count of received
        // batches is right.
        let reader_lock = read_permit.reader_lock.clone().lock_owned().await;
        let permit = reserve_event(shared).await?;
        let Opened { stream, resumed, received } = shared
            .open(&gateway, &hello, id.incarnation, permit)
            .ok_or_else(|| Status::aborted("a later start of this gateway is connected"))?;
        info!(gateway = name, resumed, "link up");
        gauge!(LINKS, "side" => "backend").increment(1.0);
        let (shared, link) = (shared.clone(), gateway.clone());
        tokio::spawn(async move {
            receive(&shared, &link, stream, inbound, &read_permit.superseded).await;
            drop(reader_lock);
            counter!(RESETS, "side" => "backend").increment(1);
            shared.closed(&link, stream);
            tokio::time::sleep(shared.limits.grace).await;
            if let Ok(permit) = reserve_event(&shared).await {
                shared.expire(&link, stream, permit);
            }
        });
        let shared = &self.shared;
        let spec = &shared.spec;
        let hello = proto::BackendHello {
            backend: Some((&shared.id).into()),
            kind: spec.kind.0.into(),
            world: spec.world.0,
            routes: spec.routes.iter().copied().map(Into::into).collect(),
            resumed,
            received,
            auto_bind: spec.auto_bind,
            fences: true,
        };
        Ok(BackendStream {
            shared: shared.clone(),
            gateway,
            stream,
            hello: Some(hello),
            timer: Timer::default(),
        })
    }
}

async fn first_frame<S>(inbound: &mut S) -> Result<proto::GatewayHello, Status>
where
    S: Stream<Item = Result<proto::GatewayFrame, Status>> + Unpin,
{
    match inbound.next().await.transpose()?.and_then(|frame| frame.frame) {
        Some(gateway_frame::Frame::Hello(hello)) => Ok(hello),
        _ => Err(Status::invalid_argument("the first frame must be a hello")),
    }
}

/// The frames for a gateway, pulled from the backend's end of the link.
pub struct BackendStream {
    shared: Arc<Shared>,
    gateway: GatewayId,
    stream: u64,
    hello: Option<proto::BackendHello>,
    timer: Timer,
}

impl Stream for BackendStream {
    type Item = Result<proto::BackendFrame, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let frame = |frame| Poll::Ready(Some(Ok(proto::BackendFrame { frame: Some(frame) })));
        if let Some(hello) = self.hello.take() {
            return frame(backend_frame::Frame::Hello(hello));
        }
        let Self { shared, gateway, stream, timer, .. } = &mut *self;
        let next = timer.poll(context, |context| {
            let mut state = shared.lock();
            let Some(end) = state.links.get_mut(gateway) else { return StreamStep::Ended };
            let next = end.out.poll(*stream, context);
            end.request_keyframes(&shared.events);
            next
        });
        match next {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Ready(Some(Outgoing::Ack(ack))) => frame(backend_frame::Frame::Ack(ack)),
            Poll::Ready(Some(Outgoing::Batch { sequence, ack, batch })) => {
                let batch = Batch { sequence, ack, items: Vec::new(), encoded: batch.items };
                frame(backend_frame::Frame::Batch(batch))
            }
        }
    }
}

impl Drop for BackendStream {
    fn drop(&mut self) {
        gauge!(LINKS, "side" => "backend").decrement(1.0);
        self.shared.closed(&self.gateway, self.stream);
    }
}

/// Reads until the stream ends, breaks or is replaced. A batch is always handled completely.
async fn receive<S>(
    shared: &Arc<Shared>,
    gateway: &GatewayId,
    stream: u64,
    mut inbound: S,
    superseded: &CancellationToken,
) where
    S: Stream<Item = Result<proto::GatewayFrame, Status>> + Unpin,
{
    loop {
        let frame = tokio::select! {
            frame = inbound.next() => frame,
            () = superseded.cancelled() => return,
        };
        let handled = match frame {
            Some(Ok(frame)) => handle(shared, gateway, stream, frame).await,
            Some(Err(status)) => Err(status),
            None => return,
        };
        if let Err(status) = handled {
            warn!(gateway = &**gateway, reason = status.message(), "link broke");
            return;
        }
    }
}

async fn handle(
    shared: &Arc<Shared>,
    gateway: &GatewayId,
    stream: u64,
    frame: proto::GatewayFrame,
) -> Result<(), Status> {
    match frame.frame {
        Some(gateway_frame::Frame::Batch(batch)) => {
            let arrival =
                with_end(shared, gateway, stream, |end| end.out.pipe.arrived(batch.sequence, batch.ack))?;
            match arrival {
                Arrival::Duplicate => return Ok(()),
                Arrival::Gap => return Err(Status::data_loss("a batch is missing")),
                Arrival::New => {}
            }
            for item in batch.items {
                match codec::gateway_item(&item) {
                    Ok(item) => apply_item(shared, gateway, item).await?,
                    Err(error) => {
                        warn!(gateway = &**gateway, %error, "item refused");
                        counter!(REFUSED, "side" => "backend", "reason" => "malformed").increment(1);
                    }
                }
            }
            with_end(shared, gateway, stream, |end| end.out.schedule_ack())
        }
        Some(gateway_frame::Frame::Ack(ack)) => {
            with_end(shared, gateway, stream, |end| end.out.pipe.acknowledged(ack))
        }
        Some(gateway_frame::Frame::Hello(_)) | None => Err(Status::invalid_argument("unexpected frame")),
    }
}

fn with_end<R>(
    shared: &Shared,
    gateway: &GatewayId,
    stream: u64,
    act: impl FnOnce(&mut crate::hub::LinkEnd) -> R,
) -> Result<R, Status> {
    let mut state = shared.lock();
    match state.links.get_mut(gateway) {
        Some(end) if end.out.carried_by(stream) => Ok(act(end)),
        _ => Err(Status::aborted("the stream was replaced")),
    }
}

/// Turns one item into its event. The slot in the channel is reserved first, so that decisions under the lock and
/// events at the backend have the same order.
async fn apply_item(shared: &Arc<Shared>, gateway: &GatewayId, item: GatewayItem) -> Result<(), Status> {
    let permit = reserve_event(shared).await?;
    let mut state = shared.lock();
    match item {
        GatewayItem::Fence(fence) => shared.raise(&mut state, gateway, fence),
        GatewayItem::Lift(fence) if state.session_owners.allows(fence.session, fence.session_epoch) => {
            state.lift(gateway, fence);
        }
        item => match event_for_item(&mut state, gateway, item) {
            Some(event) => permit.send(event),
            None => counter!(REFUSED, "side" => "backend", "reason" => "session_epoch").increment(1),
        },
    }
    Ok(())
}

async fn reserve_event(shared: &Shared) -> Result<mpsc::Permit<'_, LinkEvent>, Status> {
    shared.events.reserve().await.map_err(|_| Status::unavailable("the backend is leaving"))
}

/// The event for an item; `None` when its gateway has lost the session to another.
fn event_for_item(state: &mut State, gateway: &GatewayId, item: GatewayItem) -> Option<LinkEvent> {
    let gateway = gateway.clone();
    let claim_session = |state: &mut State, session: SessionId, epoch: Epoch| {
        let taken = state.session_owners.take(session, epoch, &gateway);
        if taken {
            state.deliver_held(session, epoch, &gateway);
        }
        taken
    };
    match item {
        GatewayItem::Deliver { session, session_epoch, messages } => state
            .session_owners
            .allows(session, session_epoch)
            .then_some(LinkEvent::Deliver { gateway, session, session_epoch, messages }),
        GatewayItem::Session(event) => {
            let allowed = match event.kind {
                SessionChange::Left => {
                    let left = state.session_owners.leave(event.session, event.session_epoch);
                    if left {
                        state.fences.forget(event.session);
                    }
                    left
                }
                _ => claim_session(state, event.session, event.session_epoch),
            };
            allowed.then_some(LinkEvent::Session { gateway, event })
        }
        GatewayItem::Watch(group) => {
            state.watch(&gateway, group);
            Some(LinkEvent::Watched { gateway, group })
        }
        GatewayItem::Unwatch(group) => {
            state.unwatch(&gateway, group);
            Some(LinkEvent::Unwatched { gateway, group })
        }
        GatewayItem::Bound(bound) => {
            claim_session(state, bound.session, bound.session_epoch).then_some(LinkEvent::Bound {
                gateway,
                session: bound.session,
                session_epoch: bound.session_epoch,
                bind_epoch: bound.bind_epoch,
                account: bound.account,
                link_dead: bound.link_dead,
            })
        }
        // The hub answers these without the backend.
        GatewayItem::Fence(_) | GatewayItem::Lift(_) => None,
    }
}
