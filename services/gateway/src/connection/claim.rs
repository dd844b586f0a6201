//! A client has proved by the key of its world that a session is its own: this gateway claims the session there, and asks
//! the gateway that had it for its state.
//!
//! A claim cannot be taken back. So what follows is done to the end even if the connection is gone meanwhile: the
//! session is here then, and waits for its client.

use std::{net::IpAddr, sync::Arc, time::Instant};

use shardkeep_auth::{Key, session::SessionKeys};
use shardkeep_link::{ClientMessage, SessionChange};
use shardkeep_types::{BackendKind, Epoch, SessionId};
use shardkeep_wire::session::Inbox;

use crate::{
    backend::{Found, Worlds},
    core::{AttachedSession, Core},
    error::ConnectionError,
    moves::Moved,
    session::{ClientState, Ending, Identity, Outbox, ResumeKeys, Session},
};

/// Everything that a claim needs.
pub(super) struct ClaimTask {
    pub(super) core: Arc<Core>,
    pub(super) worlds: Arc<Worlds>,
    pub(super) address: IpAddr,
    pub(super) id: SessionId,
    pub(super) found: Found,
    /// The key that the client has proved.
    pub(super) used: Key,
    pub(super) keys: SessionKeys,
    /// Reliable messages that the client has.
    pub(super) received: u64,
}

pub(super) struct ClaimOutcome {
    pub(super) attached: AttachedSession,
    /// Both sides go on counting where they were.
    pub(super) continued: bool,
    /// In metrics: where the session was.
    pub(super) way: &'static str,
}

impl ClaimTask {
    pub(super) async fn run(self) -> Result<ClaimOutcome, ConnectionError> {
        let Self { core, worlds, id, found, used, keys, .. } = &self;
        let granted = worlds.claim(*id, found, used, &keys.world_resume).await?;
        // Another connection of the client's may be bringing it here at this moment.
        let _incoming = core.incoming_sessions.begin(*id).await;
        if let Some(session) = core.sessions.get(*id) {
            let (current, moving) = {
                let inner = session.lock();
                (inner.epoch, inner.moving.is_some())
            };
            if current > granted.epoch {
                return Err(ConnectionError::Overtaken);
            }
            // One that moves is asked for, below, where it goes to.
            if !moving && granted.may_hold_state(&core.name, current) {
                return self.reattach_local(&session, granted.epoch);
            }
            if !moving {
                core.end(&session, Ending::Moved);
            }
        }
        let moved = worlds.fetch_session(*id, &granted, core.config.move_within).await;
        self.restore_session(granted.epoch, moved)
    }

    /// Whether the client does not know yet that the log was begun anew: it comes with the key that it came with then.
    fn missed_restart(&self, restart_key: Option<&Key>) -> bool {
        restart_key == Some(&self.used)
    }

    /// The session is here; only the gateway's key did not reach the client, or was not told it.
    fn reattach_local(&self, session: &Arc<Session>, epoch: Epoch) -> Result<ClaimOutcome, ConnectionError> {
        let continued = {
            let mut inner = session.lock();
            inner.epoch = epoch;
            inner.keys = ResumeKeys::new(&self.keys);
            !self.missed_restart(inner.restart_key.as_ref())
        };
        let client_has = if continued { self.received } else { 0 };
        let attached = self
            .core
            .reattach(session, self.address, client_has, SessionChange::Joined)
            .map_err(|_| ConnectionError::Ticket)?;
        Ok(ClaimOutcome { attached, continued, way: "here" })
    }

    /// Makes the session anew from what its world and, if it answered, its gateway know.
    fn restore_session(&self, epoch: Epoch, moved: Option<Moved>) -> Result<ClaimOutcome, ConnectionError> {
        let Self { core, worlds, id, found, .. } = self;
        let way = if moved.is_some() { "moved" } else { "claimed" };
        let continued = moved.as_ref().is_some_and(|it| !self.missed_restart(it.restart_key.as_ref()));
        let mut moved = moved.unwrap_or_default();
        let groups = std::mem::take(&mut moved.groups);
        let connection = core.next_connection();
        let (session, for_world) = self.restore(epoch, moved, connection);
        // A client that counts wrong is turned away below, and its session left to end like others that nobody resumes.
        let accepted = {
            let mut inner = session.lock();
            inner.restart_key = (!continued).then(|| self.used.clone());
            inner.out.attach(if continued { self.received } else { 0 })
        };
        core.register_session(&session, &groups);
        let attached = AttachedSession::new(core.clone(), session.clone(), connection);
        worlds.session_opened(core, &session, &found.leader);
        core.deliver_to(*id, &mut session.lock(), &found.leader.id.name, for_world);
        accepted.map_err(|_| ConnectionError::Ticket)?;
        Ok(ClaimOutcome { attached, continued, way })
    }

    /// The session, and what its client said to the world and the world has not heard.
    fn restore(&self, epoch: Epoch, moved: Moved, connection: u64) -> (Arc<Session>, Vec<ClientMessage>) {
        let Self { core, found, .. } = self;
        let identity = Identity {
            id: self.id,
            account: found.account,
            account_name: found.account_name.clone(),
            generation: found.generation,
            world: found.leader.world,
        };
        let out = Outbox::restore(moved.sent_to_client, moved.unacknowledged);
        let inbox = Inbox::restore(moved.received_from_client);
        let client = ClientState::Connected { connection, address: self.address };
        let session = Session::new(identity, epoch, ResumeKeys::new(&self.keys), out, inbox, client);
        {
            let (mut inner, now) = (session.lock(), Instant::now());
            inner.muted_backends = moved.fenced;
            (inner.character, inner.queue_place) = (moved.character, moved.queue_place);
            moved.pending.into_iter().for_each(|(request, kind)| inner.restore_request(request, kind, now));
        }
        let known = found.bindings.iter().filter_map(|it| {
            let kind = u8::try_from(it.kind).ok().map(BackendKind)?;
            Some((kind, it.instance.clone(), Epoch(it.bind_epoch), Vec::new()))
        });
        let mut bindings: Vec<_> = known.chain(moved.bindings).collect();
        // The higher of two bindings to a kind is the later one; of the same, the one that knows what is held.
        bindings.sort_by_key(|(kind, _, epoch, _)| (*kind, *epoch));
        let mut for_world = Vec::new();
        for (kind, instance, epoch, held) in bindings {
            if kind == BackendKind::WORLD {
                for_world.extend(held);
            } else {
                core.restore_binding(&session, kind, &instance, epoch, held);
            }
        }
        (session, for_world)
    }
}
