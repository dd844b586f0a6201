//! Sessions that this gateway has claimed and whose state it is fetching from another gateway. A second claim of such a
//! session, and another gateway's request for it, wait until it has arrived. Otherwise no gateway would have its state for
//! a moment.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use shardkeep_types::SessionId;
use tokio::sync::OwnedMutexGuard;

type Turn = Arc<tokio::sync::Mutex<()>>;

/// One entry for each session that is being fetched.
#[derive(Clone, Default)]
pub(crate) struct IncomingSessions(Arc<Mutex<HashMap<SessionId, Turn>>>);

/// The session counts as being fetched until this is dropped.
pub(crate) struct IncomingSession {
    incoming_sessions: IncomingSessions,
    session: SessionId,
    turn: Option<OwnedMutexGuard<()>>,
}

impl IncomingSessions {
    /// Call it once the session is claimed. Waits for earlier claims of the session here.
    pub(crate) async fn begin(&self, session: SessionId) -> IncomingSession {
        let turn = self.0.lock().entry(session).or_default().clone();
        // Made before the wait, so that a caller that gives up removes its entry.
        let mut incoming = IncomingSession { incoming_sessions: self.clone(), session, turn: None };
        incoming.turn = Some(turn.lock_owned().await);
        incoming
    }

    /// Waits until the session has arrived, if it is being fetched. The time limit of the move bounds the wait.
    pub(crate) async fn wait_until_arrived(&self, session: SessionId) {
        if self.0.lock().contains_key(&session) {
            drop(self.begin(session).await);
        }
    }
}

impl Drop for IncomingSession {
    fn drop(&mut self) {
        let mut all = self.incoming_sessions.0.lock();
        self.turn = None;
        // Callers that wait for their turn hold it too.
        if all.get(&self.session).is_some_and(|turn| Arc::strong_count(turn) == 1) {
            all.remove(&self.session);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, poll};

    use super::*;

    const ME: SessionId = SessionId([1; 16]);
    const OTHER: SessionId = SessionId([2; 16]);

    fn is_empty(incoming_sessions: &IncomingSessions) -> bool {
        incoming_sessions.0.lock().is_empty()
    }

    #[tokio::test]
    async fn incoming_session_makes_others_wait_and_is_removed() {
        let incoming_sessions = IncomingSessions::default();
        incoming_sessions.wait_until_arrived(ME).await;
        assert!(is_empty(&incoming_sessions));
        let first = incoming_sessions.begin(ME).await;
        let mut asked = Box::pin(incoming_sessions.wait_until_arrived(ME));
        let mut second = Box::pin(incoming_sessions.begin(ME));
        assert!(poll!(&mut asked).is_pending() && poll!(&mut second).is_pending());
        assert!(incoming_sessions.wait_until_arrived(OTHER).now_or_never().is_some(), "others do not wait");
        drop(first);
        asked.await;
        let second = second.await;
        assert!(incoming_sessions.wait_until_arrived(ME).now_or_never().is_none());
        drop(second);
        assert!(is_empty(&incoming_sessions));
    }

    #[tokio::test]
    async fn incoming_session_abandoned_while_waiting_is_removed() {
        let incoming_sessions = IncomingSessions::default();
        let first = incoming_sessions.begin(ME).await;
        let mut second = Box::pin(incoming_sessions.begin(ME));
        assert!(poll!(&mut second).is_pending());
        drop(first);
        assert!(!is_empty(&incoming_sessions), "it is the second's turn");
        drop(second);
        assert!(is_empty(&incoming_sessions));
    }
}
