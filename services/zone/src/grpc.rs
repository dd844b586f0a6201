//! The gRPC service of a zone: each call becomes a command to the tick loop and waits for its answer.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures::{Stream, StreamExt};
use prost::Message;
use shardkeep_cluster::{MESSAGE_LIMIT, Peer};
use shardkeep_daemon::contained;
use shardkeep_link::ClientMessage;
use shardkeep_rpc::{
    Malformed, link, session_id,
    zone::{
        AdmitReply, AdmitRequest, EvictReply, EvictRequest, MapSnapshot, ObserveRequest, OfferReply,
        OfferRequest, PeerFrame, SettleReply, SettleRequest, TeleportReply, TeleportRequest,
        zone_server::{Zone, ZoneServer},
    },
};
use shardkeep_sim::Map;
use shardkeep_types::{AccountId, EntityId, Epoch, Position};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    command::{Admission, Command, OfferedAvatar, Settlement},
    convert,
};

/// The shortest interval between two snapshots of a live map.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);

#[derive(Clone)]
pub(crate) struct ZoneService {
    name: Arc<str>,
    map: Arc<Map>,
    commands: mpsc::Sender<Command>,
    draining: CancellationToken,
}

impl ZoneService {
    pub(crate) fn new(
        name: &str,
        map: Arc<Map>,
        commands: mpsc::Sender<Command>,
        draining: CancellationToken,
    ) -> Self {
        Self { name: name.into(), map, commands, draining }
    }

    pub(crate) fn into_server(self) -> ZoneServer<Self> {
        ZoneServer::new(self)
            .max_decoding_message_size(MESSAGE_LIMIT)
            .max_encoding_message_size(MESSAGE_LIMIT)
    }

    /// Sends a command with a reply channel, and waits for the reply.
    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Status> {
        let (reply, answer) = oneshot::channel();
        let closing = || Status::unavailable("this zone is stopping");
        self.commands.send(command(reply)).await.map_err(|_| closing())?;
        answer.await.map_err(|_| closing())
    }
}

#[tonic::async_trait]
impl Zone for ZoneService {
    async fn admit(&self, request: Request<AdmitRequest>) -> Result<Response<AdmitReply>, Status> {
        let request = request.into_inner();
        let character = request.character.ok_or_else(|| Malformed::missing("character"))?;
        let entering = convert::entering(&character)?;
        let entity = EntityId::avatar(entering.character).0;
        let admission = Box::new(Admission {
            session: session_id(&request.session)?,
            session_epoch: Epoch(request.session_epoch),
            account: AccountId(request.account),
            entering,
        });
        let position = self.ask(|reply| Command::Admit { admission, term: request.term, reply }).await??;
        Ok(Response::new(AdmitReply { entity, position: Some(position.into()) }))
    }

    async fn evict(&self, request: Request<EvictRequest>) -> Result<Response<EvictReply>, Status> {
        let EvictRequest { character, epoch, reason } = request.into_inner();
        let (character, epoch) = (character.into(), Epoch(epoch));
        self.ask(|reply| Command::Evict { character, epoch, reason, reply }).await??;
        Ok(Response::new(EvictReply {}))
    }

    async fn teleport(&self, request: Request<TeleportRequest>) -> Result<Response<TeleportReply>, Status> {
        let request = request.into_inner();
        let to: Position = request.to.ok_or_else(|| Malformed::missing("to"))?.try_into()?;
        let character = request.character.into();
        self.ask(|reply| Command::Teleport { character, to, reply }).await??;
        Ok(Response::new(TeleportReply {}))
    }

    async fn offer(&self, request: Request<OfferRequest>) -> Result<Response<OfferReply>, Status> {
        let offered = Box::new(offered(request.into_inner())?);
        let answer = self.ask(|reply| Command::Offer { offered, reply }).await?;
        let accepted = answer.is_ok();
        Ok(Response::new(OfferReply { accepted, reason: answer.err().unwrap_or_default() }))
    }

    async fn settle(&self, request: Request<SettleRequest>) -> Result<Response<SettleReply>, Status> {
        let settlement = settlement(request.into_inner())?;
        self.ask(|reply| Command::Settle { settlement, reply }).await?;
        Ok(Response::new(SettleReply {}))
    }

    type PeerStream = Pin<Box<dyn Stream<Item = Result<PeerFrame, Status>> + Send>>;

    async fn peer(
        &self,
        request: Request<Streaming<PeerFrame>>,
    ) -> Result<Response<Self::PeerStream>, Status> {
        let peer = Peer::of(&request)?;
        let mut frames = request.into_inner();
        let commands = self.commands.clone();
        // The answer is an empty stream that stays open as long as the neighbour sends frames.
        let (keep_open, responses) = mpsc::channel::<Result<PeerFrame, Status>>(1);
        let read_frames = async move {
            while let Some(Ok(mut frame)) = frames.next().await {
                if let Some(from) = &mut frame.from {
                    from.name.clone_from(&peer.name);
                }
                if commands.send(Command::Peer { frame }).await.is_err() {
                    break;
                }
            }
            drop(keep_open);
        };
        // Frames become commands one by one; the tick loop owns the state.
        tokio::spawn(contained("neighbour stream", read_frames));
        Ok(Response::new(Box::pin(ReceiverStream::new(responses))))
    }

    type ObserveStream = Pin<Box<dyn Stream<Item = Result<MapSnapshot, Status>> + Send>>;

    async fn observe(
        &self,
        request: Request<ObserveRequest>,
    ) -> Result<Response<Self::ObserveStream>, Status> {
        let interval = Duration::from_millis(request.into_inner().interval_ms.into()).max(SHORTEST_INTERVAL);
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
                let snapshot = service.snapshot().await;
                if sender.send(snapshot).await.is_err() {
                    return;
                }
            }
        };
        tokio::spawn(contained("map stream", send_snapshots));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

impl ZoneService {
    async fn snapshot(&self) -> Result<MapSnapshot, Status> {
        let (sectors, seen) = self.ask(|reply| Command::Observe { reply }).await?;
        Ok(MapSnapshot {
            zone: self.name.to_string(),
            sectors: sectors.into_iter().map(Into::into).collect(),
            entities: seen.iter().map(convert::ghost).collect(),
            map_width_mm: self.map.width_mm().unsigned_abs(),
            map_height_mm: self.map.height_mm().unsigned_abs(),
        })
    }
}

fn offered(request: OfferRequest) -> Result<OfferedAvatar, Status> {
    let from = request.from.ok_or_else(|| Malformed::missing("from"))?.name;
    let character = request.character.ok_or_else(|| Malformed::missing("character"))?;
    let mut entering = convert::entering(&character)?;
    entering.epoch = Epoch(request.epoch);
    entering.velocity = (request.vx_mm_s, request.vy_mm_s);
    entering.last_input = request.last_input;
    entering.cooldown_ms = request.cooldown_ms.into();
    let admission = Admission {
        session: session_id(&request.session)?,
        session_epoch: Epoch(request.session_epoch),
        account: AccountId(request.account),
        entering,
    };
    Ok(OfferedAvatar { from, gateway: request.gateway, admission })
}

fn settlement(request: SettleRequest) -> Result<Settlement, Status> {
    let input = |bytes: Vec<u8>| {
        let message = link::ClientMessage::decode(&*bytes);
        let message = message.map_err(|error| Malformed::new("pending_inputs", error))?;
        ClientMessage::try_from(message)
    };
    Ok(Settlement {
        character: request.character.into(),
        epoch: Epoch(request.epoch),
        committed: request.committed,
        inputs: request.pending_inputs.into_iter().map(input).collect::<Result<_, Malformed>>()?,
        from: request.pending_from,
    })
}
