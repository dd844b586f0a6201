//! Sessions on their way here: claimed, and asked of the gateway that has them. Whoever asks this gateway for such a
//! session meanwhile, be it another connection of the client's or the gateway where the client is by now, waits for it;
//! otherwise its state would be nowhere to be found for a moment.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use shardkeep_types::SessionId;
use tokio::sync::OwnedMutexGuard;

type Turn = Arc<tokio::sync::Mutex<()>>;

/// One entry for each session that is on its way, and nothing for others.
#[derive(Clone, Default)]
pub(crate) struct Arrivals(Arc<Mutex<HashMap<SessionId, Turn>>>);

/// The session is on its way until this is dropped.
pub(crate) struct Arrival {
    arrivals: Arrivals,
    session: SessionId,
    turn: Option<OwnedMutexGuard<()>>,
}

impl Arrivals {
    /// To be called once the session is claimed. Others that bring it here go first.
    pub(crate) async fn begin(&self, session: SessionId) -> Arrival {
        let turn = self.0.lock().entry(session).or_default().clone();
        // Made before the wait, so that one who gives up leaves nothing behind.
        let mut arrival = Arrival { arrivals: self.clone(), session, turn: None };
        arrival.turn = Some(turn.lock_owned().await);
        arrival
    }

    /// Waits until the session has arrived, if it is on its way. What bounds the wait is what bounds the move.
    pub(crate) async fn over(&self, session: SessionId) {
        if self.0.lock().contains_key(&session) {
            drop(self.begin(session).await);
        }
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        let mut all = self.arrivals.0.lock();
        self.turn = None;
        // Others that wait for their turn hold it too.
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

    fn is_empty(arrivals: &Arrivals) -> bool {
        arrivals.0.lock().is_empty()
    }

    #[tokio::test]
    async fn who_asks_meanwhile_waits_and_nothing_is_left_behind() {
        let arrivals = Arrivals::default();
        arrivals.over(ME).await;
        assert!(is_empty(&arrivals));
        let first = arrivals.begin(ME).await;
        let mut asked = Box::pin(arrivals.over(ME));
        let mut second = Box::pin(arrivals.begin(ME));
        assert!(poll!(&mut asked).is_pending() && poll!(&mut second).is_pending());
        assert!(arrivals.over(OTHER).now_or_never().is_some(), "others do not wait");
        drop(first);
        asked.await;
        let second = second.await;
        assert!(arrivals.over(ME).now_or_never().is_none());
        drop(second);
        assert!(is_empty(&arrivals));
    }

    #[tokio::test]
    async fn who_gives_up_leaves_nothing_behind() {
        let arrivals = Arrivals::default();
        let first = arrivals.begin(ME).await;
        let mut second = Box::pin(arrivals.begin(ME));
        assert!(poll!(&mut second).is_pending());
        drop(first);
        assert!(!is_empty(&arrivals), "it is the second's turn");
        drop(second);
        assert!(is_empty(&arrivals));
    }
}
