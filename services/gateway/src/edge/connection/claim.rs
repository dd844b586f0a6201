//! Claims a session whose client has proved it by the world's key, and fetches its state from the gateway that had it.
//!
//! A claim cannot be undone. So the work is completed even if the connection closes meanwhile: the session is then here and
//! waits for its client.

use std::{net::IpAddr, sync::Arc};

use shardkeep_auth::{Key, session::SessionKeys};
use shardkeep_link::{ClientMessage, SessionChange};
use shardkeep_types::{BackendKind, Epoch, SessionId};

use crate::{
    app::{App, AttachedSession},
    domain::session::{BackendEffect, Ending, HeldBinding, Identity, ResumeKeys, Session, Snapshot},
    edge::worlds::{Found, Worlds},
    error::ConnectionError,
};

/// Everything that a claim needs.
pub(super) struct ClaimTask {
    pub(super) app: Arc<App>,
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
    /// Both sides continue their counts.
    pub(super) continued: bool,
    /// Where the session was, as a label for metrics.
    pub(super) way: &'static str,
}

impl ClaimTask {
    pub(super) async fn run(self) -> Result<ClaimOutcome, ConnectionError> {
        let Self { app, worlds, id, found, used, keys, .. } = &self;
        let granted = worlds.claim(*id, found, used, &keys.world_resume).await?;
        // Another connection of the client may be fetching the session at this moment.
        let _incoming = app.incoming_sessions().begin(*id).await;
        if let Some(session) = app.sessions().get(*id) {
            let (current, moving) = {
                let state = session.lock();
                (state.epoch(), state.is_moving())
            };
            if current > granted.epoch {
                return Err(ConnectionError::Overtaken);
            }
            // The state of a session that is leaving is fetched from where it goes.
            if !moving && granted.may_hold_state(app.name(), current) {
                return self.reattach_local(&session, granted.epoch);
            }
            if !moving {
                app.end(&session, Ending::Moved);
            }
        }
        let moved = worlds.fetch_session(*id, &granted, app.config().move_within).await;
        self.restore_session(granted.epoch, moved)
    }

    /// The session is here; the client has lost or never received the gateway's key.
    fn reattach_local(&self, session: &Arc<Session>, epoch: Epoch) -> Result<ClaimOutcome, ConnectionError> {
        let continued = session.lock().resume_by_claim(epoch, &self.used, &self.keys);
        let client_has = if continued { self.received } else { 0 };
        let attached = self
            .app
            .reattach(session, self.address, client_has, SessionChange::Joined)
            .map_err(|_| ConnectionError::Ticket)?;
        Ok(ClaimOutcome { attached, continued, way: "here" })
    }

    /// Makes the session anew from what its world and, if it answered, its last gateway know.
    fn restore_session(
        &self,
        epoch: Epoch,
        moved: Option<Snapshot>,
    ) -> Result<ClaimOutcome, ConnectionError> {
        let Self { app, worlds, found, .. } = self;
        let way = if moved.is_some() { "moved" } else { "claimed" };
        // A client that comes with the key of the restart does not know of the restart.
        let continued = moved.as_ref().is_some_and(|it| it.restart_key.as_ref() != Some(&self.used));
        let mut moved = moved.unwrap_or_default();
        let connection = app.next_connection();
        let restart_key = (!continued).then(|| self.used.clone());
        let session = Session::restore(
            self.identity(),
            epoch,
            ResumeKeys::new(&self.keys),
            &mut moved,
            restart_key,
            connection,
            self.address,
        );
        let for_world = self.restore_bindings(&session, moved.bindings);
        // A client that miscounts is refused below; its session ends like others that no client resumes.
        let accepted = session.lock().attach_restored(if continued { self.received } else { 0 });
        app.register_session(&session, &moved.groups);
        let attached = AttachedSession::new(app.clone(), session.clone(), connection);
        worlds.session_opened(app, &session, &found.leader);
        app.change(&session, |_| {
            vec![(found.leader.id.name.as_str().into(), BackendEffect::Deliver(for_world))]
        });
        accepted.map_err(|_| ConnectionError::Ticket)?;
        Ok(ClaimOutcome { attached, continued, way })
    }

    fn identity(&self) -> Identity {
        Identity {
            id: self.id,
            account: self.found.account,
            account_name: self.found.account_name.clone(),
            generation: self.found.generation,
            world: self.found.leader.world,
        }
    }

    /// Returns the client's messages for the world that the world has not received.
    fn restore_bindings(&self, session: &Session, moved: Vec<HeldBinding>) -> Vec<ClientMessage> {
        let mut bindings: Vec<_> = self.found.bindings.iter().cloned().chain(moved).collect();
        // Of two bindings to a kind, the one with the higher epoch is later. Of equal ones, the gateway's comes last: it
        // knows which messages are held.
        bindings.sort_by_key(|binding| (binding.kind, binding.epoch));
        let mut for_world = Vec::new();
        for binding in bindings {
            if binding.kind == BackendKind::WORLD {
                for_world.extend(binding.held);
            } else {
                self.app.restore_binding(session, binding);
            }
        }
        for_world
    }
}
