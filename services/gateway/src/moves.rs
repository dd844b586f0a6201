//! A planned move: another gateway, at which the client has proven itself, asks for a session. Nothing is lost or said
//! twice: see "A session moves" in `ARCHITECTURE.md`.
//!
//! The gateway that is left asks every backend of the session to fence it off, waits until each has answered behind
//! everything it had said, and only then seals what it hands over. The next one takes up the session's groups, and asks
//! the backends to lift their fences: they say what they have kept.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use metrics::counter;
use shardkeep_auth::Key;
use shardkeep_link::{ClientMessage, GatewayLink};
use shardkeep_rpc::{
    Malformed,
    gateway::{Binding, InFlightRequest, MoveSessionReply},
};
use shardkeep_types::{BackendKind, Epoch, GroupKey};
use tokio::{
    sync::oneshot,
    time::{sleep, timeout},
};
use tonic::Status;
use tracing::warn;

use crate::{
    core::Core,
    metrics::FENCES_LATE,
    session::{ClientState, Ending, Inner, Session},
};

/// How long a session waits for replies of backends that put up no fence, and how often it looks.
const REPLY_WAIT: Duration = Duration::from_millis(150);
const POLL_INTERVAL: Duration = Duration::from_millis(5);

impl Core {
    /// Gives the session away; it is over here.
    ///
    /// # Errors
    /// `ABORTED`: it has changed hands, or ended meanwhile.
    pub(crate) async fn hand_over(
        &self,
        session: &Arc<Session>,
        epoch: Epoch,
    ) -> Result<MoveSessionReply, Status> {
        let settled = self.fence(session, epoch)?;
        if timeout(self.config.move_within / 2, settled).await.is_err() {
            // What the backend says until the session is announced to it again is lost, as if this gateway had died.
            counter!(FENCES_LATE).increment(1);
            warn!(session = %session.id, "a backend did not put up its fence in time");
        }
        self.await_unfenced_replies(session).await;
        let reply = self.seal(session, epoch)?;
        self.finish(session);
        Ok(reply)
    }

    /// Nothing comes from the client here any more, and the backends are asked to keep what they say from now on.
    fn fence(&self, session: &Arc<Session>, epoch: Epoch) -> Result<oneshot::Receiver<()>, Status> {
        let subscribed = self.with_groups(|groups| (groups.subscribed_groups(session.id), Vec::new()));
        let mut inner = session.lock();
        if inner.epoch != epoch || inner.ended.is_some() || inner.moving.is_some() {
            return Err(changed_hands());
        }
        inner.client = ClientState::Disconnected { since: Instant::now(), address: inner.address() };
        inner.out.detach();
        let mut links: Vec<GatewayLink> =
            inner.bindings.iter().filter_map(|binding| self.links.get(&binding.instance)).collect();
        // To a group of many writers those speak too that the session is not bound to.
        for key in subscribed.into_iter().filter(|key| key.many_writer()) {
            let mut writers = self.links.all_serving(key.backend(), session.world);
            writers.retain(|link| !links.iter().any(|other| other.backend() == link.backend()));
            links.append(&mut writers);
        }
        let fence = session.fence(&inner);
        links.retain(|link| link.fence(fence));
        let settled = inner.begin_move(links.iter().map(|link| link.backend().clone()).collect());
        drop(inner);
        // A connection that still stands sees that it does not carry the session any more.
        session.waker.notify();
        Ok(settled)
    }

    /// Lets replies on their way here arrive whose backends do not keep them.
    async fn await_unfenced_replies(&self, session: &Session) {
        let awaiting_replies = |inner: &Inner| {
            inner.pending().any(|(_, kind)| {
                inner.bindings.get(kind).is_some_and(|binding| !inner.is_muted(&binding.instance))
            })
        };
        let until = Instant::now() + REPLY_WAIT;
        while awaiting_replies(&session.lock()) && Instant::now() < until {
            sleep(POLL_INTERVAL).await;
        }
    }

    /// From here on nothing is added to what is handed over.
    fn seal(&self, session: &Arc<Session>, epoch: Epoch) -> Result<MoveSessionReply, Status> {
        // Under the groups' lock, so that the list of groups fits the log.
        self.with_groups(|groups| {
            let mut inner = session.lock();
            if inner.epoch != epoch || inner.ended.is_some() {
                return (Err(changed_hands()), Vec::new());
            }
            inner.end(Ending::Moved);
            let (sent, unacknowledged) = inner.out.log();
            let bindings = inner.bindings.iter().map(|binding| Binding {
                kind: binding.kind.0.into(),
                instance: binding.instance.to_string(),
                bind_epoch: binding.epoch.0,
                held: binding.held().cloned().map(Into::into).collect(),
            });
            let pending =
                inner.pending().map(|(request, kind)| InFlightRequest { request, kind: kind.0.into() });
            let reply = MoveSessionReply {
                received_from_client: inner.inbox.received(),
                sent_to_client: sent,
                unacknowledged: unacknowledged.into_iter().map(Into::into).collect(),
                bindings: bindings.collect(),
                groups: groups.subscribed_groups(session.id).into_iter().map(Into::into).collect(),
                fenced: inner.muted_backends.iter().map(ToString::to_string).collect(),
                pending: pending.collect(),
                character: inner.character,
                queue_place: inner.queue_place,
                restart_key: inner.restart_key.as_ref().map(|key| key.expose().to_vec()).unwrap_or_default(),
            };
            (Ok(reply), Vec::new())
        })
    }

    /// The session has come from another gateway and hears the groups it heard there; what backends have kept for it
    /// follows. To be called before it is announced to them.
    pub(crate) fn resume_groups(&self, session: &Arc<Session>, groups: &[GroupKey]) {
        if !groups.is_empty() {
            // First: a backend whose fence is lifted publishes to those who watch.
            self.with_groups(|table| ((), table.subscribe(session, session.world, groups, None)));
        }
        let inner = session.lock();
        for link in inner.muted_backends.iter().filter_map(|backend| self.links.get(backend)) {
            link.lift(session.fence(&inner));
        }
    }
}

fn changed_hands() -> Status {
    Status::aborted("the session has changed hands")
}

/// What a session is told to go on with, read from the other gateway's answer.
#[derive(Debug, Default)]
pub(crate) struct Moved {
    pub(crate) received_from_client: u64,
    pub(crate) sent_to_client: u64,
    pub(crate) unacknowledged: Vec<bytes::Bytes>,
    /// Kind, instance and epoch, and what was held for it.
    pub(crate) bindings: Vec<(BackendKind, String, Epoch, Vec<ClientMessage>)>,
    pub(crate) groups: Vec<GroupKey>,
    pub(crate) fenced: Vec<Arc<str>>,
    pub(crate) pending: Vec<(u32, BackendKind)>,
    pub(crate) character: u64,
    pub(crate) queue_place: u32,
    /// As in [`Inner`].
    pub(crate) restart_key: Option<Key>,
}

impl TryFrom<MoveSessionReply> for Moved {
    type Error = Malformed;

    fn try_from(reply: MoveSessionReply) -> Result<Self, Malformed> {
        let binding = |it: Binding| {
            let held = it.held.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?;
            Ok((kind(it.kind)?, it.instance, Epoch(it.bind_epoch), held))
        };
        Ok(Self {
            received_from_client: reply.received_from_client,
            sent_to_client: reply.sent_to_client,
            unacknowledged: reply.unacknowledged.into_iter().map(Into::into).collect(),
            bindings: reply.bindings.into_iter().map(binding).collect::<Result<_, Malformed>>()?,
            groups: reply.groups.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            fenced: reply.fenced.into_iter().map(Into::into).collect(),
            pending: reply
                .pending
                .into_iter()
                .map(|it| Ok((it.request, kind(it.kind)?)))
                .collect::<Result<_, Malformed>>()?,
            character: reply.character,
            queue_place: reply.queue_place,
            restart_key: <[u8; 32]>::try_from(reply.restart_key).ok().map(Key::new),
        })
    }
}

fn kind(number: u32) -> Result<BackendKind, Malformed> {
    u8::try_from(number).map(BackendKind).map_err(|error| Malformed::new("kind", error))
}
