//! The gRPC service of a zone: each call becomes a command to the loop of a space and waits for its answer.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures::{Stream, StreamExt};
use shardkeep_cluster::{MESSAGE_LIMIT, Peer};
use shardkeep_daemon::contained;
use shardkeep_rpc::{
    Malformed, session_id,
    zone::{
        AdmitReply, AdmitRequest, EvictReply, EvictRequest, MapSnapshot, MirrorReply, MirrorRequest,
        ObserveRequest, OfferReply, OfferRequest, PeerFrame, SettleReply, SettleRequest, TakeSnapshotReply,
        TakeSnapshotRequest, TeleportReply, TeleportRequest,
        zone_server::{Zone, ZoneServer},
    },
};
use shardkeep_types::{AccountId, EntityId, Epoch, Position, SpaceId, Term};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    domain::{
        command::Command,
        effect::{Answer, CommandError},
        payload::{Admission, ReplyTo},
    },
    edge::{
        convert,
        message::{Message, ZoneMessage},
        switchboard::Switchboard,
    },
    metrics,
};

/// The shortest interval between two snapshots of a live map.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);

#[derive(Clone)]
pub(crate) struct ZoneService {
    name: Arc<str>,
    switchboard: Switchboard,
    zone: mpsc::Sender<ZoneMessage>,
    draining: CancellationToken,
}

impl ZoneService {
    pub(crate) fn new(
        name: &str,
        switchboard: Switchboard,
        zone: mpsc::Sender<ZoneMessage>,
        draining: CancellationToken,
    ) -> Self {
        Self { name: name.into(), switchboard, zone, draining }
    }

    pub(crate) fn into_server(self) -> ZoneServer<Self> {
        ZoneServer::new(self)
            .max_decoding_message_size(MESSAGE_LIMIT)
            .max_encoding_message_size(MESSAGE_LIMIT)
    }

    /// The queue of a space.
    async fn space(&self, space: SpaceId) -> Result<mpsc::Sender<Message>, Status> {
        let absent = || Status::unavailable(format!("space {space} is not in this zone"));
        self.switchboard.space_soon(space).await.ok_or_else(absent)
    }
}

/// Sends a command to a space and waits for the answer.
async fn ask(
    space: &mpsc::Sender<Message>,
    command: impl FnOnce(ReplyTo) -> Command + Send + 'static,
) -> Result<Answer, Status> {
    let (sender, answer) = oneshot::channel();
    let closing = || Status::unavailable("the space ends here");
    let call = Message::Call { command: Box::new(command), answer: sender };
    space.send(call).await.map_err(|_| closing())?;
    answer.await.map_err(|_| closing())
}

#[tonic::async_trait]
impl Zone for ZoneService {
    async fn admit(&self, request: Request<AdmitRequest>) -> Result<Response<AdmitReply>, Status> {
        let request = request.into_inner();
        let character = request.character.ok_or_else(|| Malformed::missing("character"))?;
        let entering = convert::entering(&character)?;
        let space = self.space(entering.position.space).await?;
        let entity = EntityId::avatar(entering.character).0;
        self.switchboard.expect(
            session_id(&request.session)?,
            entering.character,
            entering.position.space,
            entering.epoch,
        );
        let admission = Box::new(Admission {
            session: session_id(&request.session)?,
            session_epoch: Epoch(request.session_epoch),
            account: AccountId(request.account),
            entering,
        });
        let term = Term(request.term);
        let Answer::Admitted(answer) =
            ask(&space, move |reply| Command::Admit { admission, term, reply }).await?
        else {
            return Err(wrong_answer());
        };
        let position = answer.map_err(|error| status(&error))?;
        Ok(Response::new(AdmitReply { entity, position: Some(position.into()) }))
    }

    async fn evict(&self, request: Request<EvictRequest>) -> Result<Response<EvictReply>, Status> {
        let EvictRequest { character, epoch, reason } = request.into_inner();
        let (character, epoch) = (character.into(), Epoch(epoch));
        if let Some(space) = self.switchboard.space_of_character(character) {
            done(ask(&space, move |reply| Command::Evict { character, epoch, reason, reply }).await?)?;
        }
        Ok(Response::new(EvictReply {}))
    }

    async fn teleport(&self, request: Request<TeleportRequest>) -> Result<Response<TeleportReply>, Status> {
        let request = request.into_inner();
        let to: Position = request.to.ok_or_else(|| Malformed::missing("to"))?.try_into()?;
        let character = request.character.into();
        let absent = || Status::not_found("the character is not in this zone");
        let space = self.switchboard.space_of_character(character).ok_or_else(absent)?;
        done(ask(&space, move |reply| Command::Teleport { character, to, reply }).await?)?;
        Ok(Response::new(TeleportReply {}))
    }

    async fn offer(&self, request: Request<OfferRequest>) -> Result<Response<OfferReply>, Status> {
        let offered = Box::new(convert::offered(request.into_inner())?);
        let Admission { session, entering, .. } = &offered.admission;
        let at = entering.position.space;
        let space = self.space(at).await?;
        // The commit raises the epoch.
        self.switchboard.expect(*session, entering.character, at, entering.epoch.next());
        let Answer::Offered(answer) = ask(&space, move |reply| Command::Offer { offered, reply }).await?
        else {
            return Err(wrong_answer());
        };
        let accepted = answer.is_ok();
        Ok(Response::new(OfferReply { accepted, reason: answer.err().unwrap_or_default() }))
    }

    async fn settle(&self, request: Request<SettleRequest>) -> Result<Response<SettleReply>, Status> {
        let request = request.into_inner();
        let space = self.space(SpaceId(request.space)).await?;
        let settlement = convert::settlement_from_proto(request)?;
        ask(&space, move |reply| Command::Settle { settlement, reply }).await?;
        Ok(Response::new(SettleReply {}))
    }

    async fn take_snapshot(
        &self,
        request: Request<TakeSnapshotRequest>,
    ) -> Result<Response<TakeSnapshotReply>, Status> {
        let request = request.into_inner();
        let space = self.space(SpaceId(request.space)).await?;
        let snapshot = convert::snapshot_from_proto(&request.spawns, request.avatars)?;
        done(ask(&space, move |reply| Command::TakeSnapshot { snapshot, reply }).await?)?;
        Ok(Response::new(TakeSnapshotReply {}))
    }

    async fn mirror(&self, request: Request<MirrorRequest>) -> Result<Response<MirrorReply>, Status> {
        let request = request.into_inner();
        let from = request.from.ok_or_else(|| Malformed::missing("from"))?;
        let snapshot = convert::snapshot_from_proto(&request.spawns, request.avatars)?;
        let (zone, space) = ((from.name, from.incarnation), SpaceId(request.space));
        let message = ZoneMessage::Mirrored { zone, space, snapshot };
        self.zone.send(message).await.map_err(|_| Status::unavailable("this zone is stopping"))?;
        Ok(Response::new(MirrorReply {}))
    }

    type PeerStream = Pin<Box<dyn Stream<Item = Result<PeerFrame, Status>> + Send>>;

    async fn peer(
        &self,
        request: Request<Streaming<PeerFrame>>,
    ) -> Result<Response<Self::PeerStream>, Status> {
        let peer = Peer::of(&request)?;
        let mut frames = request.into_inner();
        let switchboard = self.switchboard.clone();
        // The answer is an empty stream that stays open as long as the neighbour sends frames.
        let (keep_open, responses) = mpsc::channel::<Result<PeerFrame, Status>>(1);
        let read_frames = async move {
            while let Some(Ok(frame)) = frames.next().await {
                let space = switchboard.space(SpaceId(frame.space));
                let (frame, malformed) = convert::frame_from_proto(frame);
                if malformed > 0 {
                    tracing::debug!(zone = peer.name, malformed, "a neighbour sent malformed ghosts");
                    (0..malformed).for_each(|_| metrics::refused("ghost"));
                }
                let command = Command::Peer { from: peer.name.clone(), frame };
                // A space that ends, or has not begun, needs no news.
                if let Some(space) = space {
                    let _ = space.send(Message::Command(command)).await;
                }
            }
            drop(keep_open);
        };
        // Frames become commands one by one; the loop owns the state.
        tokio::spawn(contained("neighbour stream", read_frames));
        Ok(Response::new(Box::pin(ReceiverStream::new(responses))))
    }

    type ObserveStream = Pin<Box<dyn Stream<Item = Result<MapSnapshot, Status>> + Send>>;

    async fn observe(
        &self,
        request: Request<ObserveRequest>,
    ) -> Result<Response<Self::ObserveStream>, Status> {
        let request = request.into_inner();
        let interval = Duration::from_millis(request.interval_ms.into()).max(SHORTEST_INTERVAL);
        let (sender, receiver) = mpsc::channel(1);
        let service = self.clone();
        let send_snapshots = async move {
            let mut interval = tokio::time::interval(interval);
            interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    _ = interval.tick() => {}
                    () = service.draining.cancelled() => return,
                    () = sender.closed() => return,
                }
                for snapshot in service.snapshots().await {
                    if sender.send(snapshot).await.is_err() {
                        return;
                    }
                }
            }
        };
        tokio::spawn(contained("map stream", send_snapshots));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

impl ZoneService {
    /// Snapshots of all spaces; an empty one when there is none.
    async fn snapshots(&self) -> Vec<Result<MapSnapshot, Status>> {
        let zone = self.name.to_string();
        let queues = self.switchboard.spaces();
        let spaces: Vec<u32> = queues.iter().map(|(space, _)| space.0).collect();
        if spaces.is_empty() {
            return vec![Ok(MapSnapshot { zone, ..MapSnapshot::default() })];
        }
        let mut snapshots = Vec::new();
        for (space, queue) in &queues {
            // A space that ends has no snapshot.
            let Ok(answer) = ask(queue, |reply| Command::Observe { reply }).await else { continue };
            let Answer::Observed(seen) = answer else { return vec![Err(wrong_answer())] };
            snapshots.push(Ok(MapSnapshot {
                zone: zone.clone(),
                sectors: seen.sectors.into_iter().map(Into::into).collect(),
                entities: seen.entities.iter().map(convert::ghost).collect(),
                map_width_mm: seen.width_mm,
                map_height_mm: seen.height_mm,
                space: space.0,
                spaces: spaces.clone(),
            }));
        }
        snapshots
    }
}

fn done(answer: Answer) -> Result<(), Status> {
    match answer {
        Answer::Done(answer) => answer.map_err(|error| status(&error)),
        _ => Err(wrong_answer()),
    }
}

fn wrong_answer() -> Status {
    Status::internal("the zone gave the answer of another call")
}

fn status(error: &CommandError) -> Status {
    let message = error.to_string();
    match error {
        CommandError::Invalid(_) => Status::invalid_argument(message),
        CommandError::NotFound(_) => Status::not_found(message),
        CommandError::Precondition(_) => Status::failed_precondition(message),
        CommandError::Full(_) => Status::resource_exhausted(message),
        CommandError::Unavailable(_) => Status::unavailable(message),
    }
}
