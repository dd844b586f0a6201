//! A bounded number of clients before a door. When it is full, a newcomer takes the place of the one who has waited
//! longest without proving who it is: a crowd that says nothing can then not keep out those who speak, however many
//! addresses it has, unless it comes faster than a handshake takes. Who has proved itself is never made to leave.

use std::{collections::BTreeMap, future::Future, sync::Arc};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// Bound: `most`. Overflow: the oldest of the unproven leaves; where there is none, the newcomer is turned away.
#[derive(Debug, Clone)]
pub(crate) struct Crowd {
    most: usize,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// Everybody who has a place.
    inside: usize,
    /// Those who have not proved themselves, by the order in which they came.
    unproven: BTreeMap<u64, CancellationToken>,
    next: u64,
}

/// One client's place; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    number: u64,
    left: CancellationToken,
    state: Arc<Mutex<State>>,
}

impl Crowd {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, state: Arc::default() }
    }

    /// A place for a newcomer; `None`: all are taken by those who have proved themselves.
    pub(crate) fn enter(&self) -> Option<Place> {
        let mut state = self.state.lock();
        if state.inside >= self.most {
            let (_, oldest) = state.unproven.pop_first()?;
            oldest.cancel();
            state.inside -= 1;
        }
        state.inside += 1;
        let (number, left) = (state.next, CancellationToken::new());
        state.next += 1;
        state.unproven.insert(number, left.clone());
        Some(Place { number, left, state: self.state.clone() })
    }
}

impl Place {
    /// The client has proved who it is, and is not made to leave any more. False: its place is lost already.
    #[must_use]
    pub(crate) fn proved(&self) -> bool {
        self.state.lock().unproven.remove(&self.number).is_some()
    }

    /// Returns when the place was given to somebody else; the connection must be closed then.
    pub(crate) fn lost(&self) -> impl Future<Output = ()> + use<> {
        self.left.clone().cancelled_owned()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.state.lock();
        // A place that was lost is somebody else's already.
        if !self.left.is_cancelled() {
            state.unproven.remove(&self.number);
            state.inside -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Crowd {
        /// Those inside, and the unproven of them.
        fn counts(&self) -> (usize, usize) {
            let state = self.state.lock();
            (state.inside, state.unproven.len())
        }
    }

    #[test]
    fn a_newcomer_takes_the_place_of_who_has_waited_longest() {
        let crowd = Crowd::new(3);
        let places: Vec<Place> = (0..3).filter_map(|_| crowd.enter()).collect();
        assert!(places[0].proved());
        let fourth = crowd.enter().unwrap();
        assert!(places[1].left.is_cancelled() && !places[0].left.is_cancelled());
        assert!(!places[1].proved());
        drop(places);
        assert_eq!(crowd.counts().0, 1, "the lost place was not given back twice");
        drop(fourth);
        assert_eq!(crowd.counts(), (0, 0));
    }

    #[test]
    fn who_has_proved_itself_stays() {
        let crowd = Crowd::new(2);
        let places: Vec<Place> = (0..2).filter_map(|_| crowd.enter()).collect();
        assert!(places.iter().all(Place::proved));
        assert!(crowd.enter().is_none());
        assert!(places.iter().all(|place| !place.left.is_cancelled()));
        drop(places);
        assert!(crowd.enter().is_some());
    }

    #[test]
    fn a_flood_has_no_more_than_the_bound() {
        let crowd = Crowd::new(10);
        let flood: Vec<Place> = (0..1_000).filter_map(|_| crowd.enter()).collect();
        assert_eq!(flood.iter().filter(|place| !place.left.is_cancelled()).count(), 10);
        assert_eq!(crowd.counts(), (10, 10));
    }

    #[tokio::test]
    async fn who_lost_its_place_is_told() {
        let crowd = Crowd::new(1);
        let first = crowd.enter().unwrap();
        let lost = first.lost();
        let _second = crowd.enter().unwrap();
        lost.await;
    }
}
