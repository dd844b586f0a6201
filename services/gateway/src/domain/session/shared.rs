//! The session as connections, links and groups share it: what identifies it, its state behind a lock, and the waker of
//! the connection that carries it.

use std::{net::IpAddr, sync::Arc};

use bytes::Bytes;
use metrics::counter;
use parking_lot::{Mutex, MutexGuard};
use shardkeep_auth::Key;
use shardkeep_link::{Bound, Fence, SessionChange, SessionEvent};
use shardkeep_types::{AccountId, Epoch, Generation, GroupKey, SessionId, WorldId};

use super::{
    keys::ResumeKeys, outbox::EnqueueResult, snapshot::Snapshot, state::State, waker::ConnectionWaker,
};
use crate::{domain::groups::Subscriber, metrics::SHED};

pub(crate) struct Session {
    identity: Identity,
    waker: ConnectionWaker,
    state: Mutex<State>,
}

/// The parts of a session that never change.
pub(crate) struct Identity {
    pub(crate) id: SessionId,
    pub(crate) account: AccountId,
    pub(crate) account_name: String,
    pub(crate) generation: Generation,
    pub(crate) world: WorldId,
}

impl Session {
    /// A session that begins on this connection. Its world has not given it an epoch yet.
    pub(crate) fn begin(identity: Identity, keys: ResumeKeys, connection: u64, address: IpAddr) -> Arc<Self> {
        Self::new(identity, State::new(keys, connection, address), connection)
    }

    /// A session that another gateway held, as far as that gateway could hand it over. The connection takes it up with
    /// [`State::attach`].
    pub(crate) fn restore(
        identity: Identity,
        epoch: Epoch,
        keys: ResumeKeys,
        snapshot: &mut Snapshot,
        restart_key: Option<Key>,
        connection: u64,
        address: IpAddr,
    ) -> Arc<Self> {
        let mut state = State::new(keys, connection, address);
        state.restore(epoch, snapshot, restart_key);
        Self::new(identity, state, connection)
    }

    fn new(identity: Identity, state: State, connection: u64) -> Arc<Self> {
        Arc::new(Self { identity, waker: ConnectionWaker::new(connection), state: Mutex::new(state) })
    }

    pub(crate) fn id(&self) -> SessionId {
        self.identity.id
    }

    pub(crate) fn account(&self) -> AccountId {
        self.identity.account
    }

    pub(crate) fn account_name(&self) -> &str {
        &self.identity.account_name
    }

    pub(crate) fn generation(&self) -> Generation {
        self.identity.generation
    }

    pub(crate) fn world(&self) -> WorldId {
        self.identity.world
    }

    /// When the session began, in milliseconds since the Unix epoch. The first 48 bits of its id hold it, so every
    /// gateway that takes the session over continues the same clock.
    pub(crate) fn started_ms(&self) -> u64 {
        self.id().0[..6].iter().fold(0, |ms, byte| ms << 8 | u64::from(*byte))
    }

    /// Wakes the connection that carries the session.
    pub(crate) fn waker(&self) -> &ConnectionWaker {
        &self.waker
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    pub(crate) fn event(&self, state: &State, kind: SessionChange) -> SessionEvent {
        SessionEvent {
            session: self.id(),
            session_epoch: state.epoch(),
            kind,
            account: self.account(),
            world: self.world(),
            generation: self.generation(),
        }
    }

    /// The session as its present gateway names it to backends when it moves.
    pub(crate) fn fence(&self, state: &State) -> Fence {
        Fence { session: self.id(), session_epoch: state.epoch() }
    }

    pub(crate) fn bound(&self, state: &State, bind_epoch: Epoch) -> Bound {
        Bound {
            session: self.id(),
            session_epoch: state.epoch(),
            bind_epoch,
            account: self.account(),
            link_dead: state.is_link_dead(),
        }
    }
}

impl Subscriber for Arc<Session> {
    fn session(&self) -> SessionId {
        self.id()
    }

    fn keyframe(&self, group: GroupKey, message: &Bytes) {
        count(self.lock().keyframe(group, message));
    }

    fn part(&self, group: GroupKey, message: &Bytes) {
        count(self.lock().part(group, message));
    }

    fn delta(&self, group: GroupKey, message: &Bytes) {
        count(self.lock().delta(group, message));
    }

    fn event(&self, from: &str, message: &Bytes) {
        self.lock().group_event(from, message);
    }

    fn set_pending(&self) -> bool {
        self.waker.set_pending()
    }

    fn leave(&self, group: GroupKey) {
        self.lock().leave_group(group);
    }
}

fn count(result: EnqueueResult) {
    if result == EnqueueResult::Shed {
        counter!(SHED).increment(1);
    }
}
