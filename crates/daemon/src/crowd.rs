//! A bounded number of connections before a door, in all and from one address. When it is full, a newcomer takes the
//! place of the oldest stranger (who has not proved who it is) of the address prefix that has most of those: a crowd that
//! says nothing then keeps out nobody who speaks. Who has proved itself is never made to leave.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::{Origin, Prefix};

/// How many connections there may be. Overflow: see [`Neighbours`]; whoever counts what it is given back
/// ([`Full`], [`Place::lost`]) keeps the counters.
#[derive(Debug, Clone, Copy)]
pub struct CrowdBounds {
    pub all: usize,
    pub per_origin: usize,
    pub neighbours: Neighbours,
}

/// What strangers of the newcomer's own prefix do when the door is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Neighbours {
    /// The oldest leaves, if no other prefix has more of them. Right where a handshake takes no time: the crowd would have
    /// to come faster than that.
    Leave,
    /// They stay, and the newcomer is refused unless another prefix has more strangers than its own has connections.
    /// Right where those inside wait in a queue: a crowd that pushes itself out never gets anywhere.
    Stay,
}

/// Which bound a newcomer has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    All,
    Origin,
}

/// Everybody before the door; clones are the same crowd.
#[derive(Debug, Clone)]
pub struct Crowd {
    bounds: CrowdBounds,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    all: usize,
    next: u64,
    origins: HashMap<Origin, usize>,
    prefixes: HashMap<Prefix, Line>,
    /// Prefixes that have strangers, by their number.
    ranks: BTreeSet<(usize, Prefix)>,
}

#[derive(Debug, Default)]
struct Line {
    connections: usize,
    /// The oldest first.
    strangers: BTreeMap<u64, CancellationToken>,
}

/// One connection's share of the bounds; given back when dropped.
#[derive(Debug)]
pub struct Place {
    state: Arc<Mutex<State>>,
    number: u64,
    prefix: Prefix,
    /// Whom it counts for; none while only a balancer is known.
    origin: Option<Origin>,
    lost: CancellationToken,
}

impl Crowd {
    pub fn new(bounds: CrowdBounds) -> Self {
        Self { bounds, state: Arc::default() }
    }

    /// A place for a connection from there.
    ///
    /// # Errors
    /// Names the bound that is reached.
    pub fn admit(&self, address: IpAddr) -> Result<Place, Full> {
        // An address that has too many must not crowd out others.
        if self.state.lock().of(Origin::of(address)) >= self.bounds.per_origin {
            return Err(Full::Origin);
        }
        self.claim(self.enter(address)?, address)
    }

    /// A place for a connection of a balancer, until it says for whom it connects.
    ///
    /// # Errors
    /// There is none.
    pub fn enter(&self, balancer: IpAddr) -> Result<Place, Full> {
        let (prefix, lost) = (Prefix::of(balancer), CancellationToken::new());
        let mut state = self.state.lock();
        if state.all >= self.bounds.all && !state.make_room(prefix, self.bounds.neighbours) {
            return Err(Full::All);
        }
        state.next += 1;
        let number = state.next;
        state.add(prefix, number, lost.clone());
        Ok(Place { state: self.state.clone(), number, prefix, origin: None, lost })
    }

    /// The place now counts for that address.
    ///
    /// # Errors
    /// The address has as many as it may; the place is given back.
    pub fn claim(&self, mut place: Place, address: IpAddr) -> Result<Place, Full> {
        let (origin, prefix) = (Origin::of(address), Prefix::of(address));
        let mut state = self.state.lock();
        if state.of(origin) >= self.bounds.per_origin {
            drop(state);
            return Err(Full::Origin);
        }
        *state.origins.entry(origin).or_insert(0) += 1;
        // A place that was lost meanwhile is somebody else's.
        if prefix != place.prefix && state.remove_stranger(place.prefix, place.number) {
            state.add(prefix, place.number, place.lost.clone());
        }
        drop(state);
        (place.origin, place.prefix) = (Some(origin), prefix);
        Ok(place)
    }

    /// 0.0 nobody is here to 1.0: the next is refused, or takes another's place.
    pub fn load(&self) -> f64 {
        self.state.lock().all as f64 / self.bounds.all as f64
    }
}

impl State {
    fn of(&self, origin: Origin) -> usize {
        self.origins.get(&origin).copied().unwrap_or(0)
    }

    fn add(&mut self, prefix: Prefix, number: u64, lost: CancellationToken) {
        self.all += 1;
        let line = self.prefixes.entry(prefix).or_default();
        line.connections += 1;
        let before = line.strangers.len();
        line.strangers.insert(number, lost);
        self.rank(prefix, before, before + 1);
    }

    fn rank(&mut self, prefix: Prefix, before: usize, now: usize) {
        self.ranks.remove(&(before, prefix));
        if now > 0 {
            self.ranks.insert((now, prefix));
        }
    }

    /// Whether it was a stranger.
    fn know(&mut self, prefix: Prefix, number: u64) -> bool {
        let Some(line) = self.prefixes.get_mut(&prefix) else { return false };
        let before = line.strangers.len();
        let known = line.strangers.remove(&number).is_some();
        if known {
            self.rank(prefix, before, before - 1);
        }
        known
    }

    fn remove_stranger(&mut self, prefix: Prefix, number: u64) -> bool {
        let found = self.know(prefix, number);
        if found {
            self.leave(prefix);
        }
        found
    }

    fn leave(&mut self, prefix: Prefix) {
        self.all -= 1;
        if let Some(line) = self.prefixes.get_mut(&prefix) {
            line.connections -= 1;
            if line.connections == 0 {
                self.prefixes.remove(&prefix);
            }
        }
    }

    fn make_room(&mut self, newcomer: Prefix, neighbours: Neighbours) -> bool {
        let Some(&(most, crowded)) = self.ranks.last() else { return false };
        let own = self.prefixes.get(&newcomer);
        let (connections, strangers) = own.map_or((0, 0), |own| (own.connections, own.strangers.len()));
        let leaves = match neighbours {
            Neighbours::Stay if most > connections + 1 => crowded,
            Neighbours::Stay => return false,
            Neighbours::Leave if strangers > 0 && most <= strangers + 1 => newcomer,
            Neighbours::Leave => crowded,
        };
        let oldest = self.prefixes.get(&leaves).and_then(|line| line.strangers.first_key_value());
        let Some((&number, lost)) = oldest else { return false };
        lost.cancel();
        self.remove_stranger(leaves, number)
    }
}

impl Place {
    /// The client has proved who it is, and is not made to leave any more. False: its place is lost already.
    pub fn proved(&self) -> bool {
        self.state.lock().know(self.prefix, self.number) || !self.lost.is_cancelled()
    }

    /// Returns when the place was given to somebody else; the connection must be closed then.
    pub fn lost(&self) -> impl Future<Output = ()> + use<> {
        self.lost.clone().cancelled_owned()
    }

    /// Whom it counts for; none while only a balancer is known.
    pub fn origin(&self) -> Option<Origin> {
        self.origin
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.state.lock();
        // A place that was lost is somebody else's already.
        if !self.lost.is_cancelled() && !state.remove_stranger(self.prefix, self.number) {
            state.leave(self.prefix);
        }
        if let Some(origin) = self.origin
            && let Some(count) = state.origins.get_mut(&origin)
        {
            *count -= 1;
            if *count == 0 {
                state.origins.remove(&origin);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crowd(all: usize, per_origin: usize, neighbours: Neighbours) -> Crowd {
        Crowd::new(CrowdBounds { all, per_origin, neighbours })
    }

    fn address(network: u8, host: u8) -> IpAddr {
        [10, 0, network, host].into()
    }

    fn is_empty(crowd: &Crowd) -> bool {
        let state = crowd.state.lock();
        state.all == 0 && state.origins.is_empty() && state.prefixes.is_empty() && state.ranks.is_empty()
    }

    fn lost(places: &[Place]) -> Vec<bool> {
        places.iter().map(|place| place.lost.is_cancelled()).collect()
    }

    fn of_network(crowd: &Crowd, network: u8, hosts: u8) -> Vec<Place> {
        (0..hosts).filter_map(|host| crowd.admit(address(network, host)).ok()).collect()
    }

    #[test]
    fn places_are_given_back() {
        let crowd = crowd(3, 2, Neighbours::Stay);
        let first = crowd.admit(address(0, 1)).ok();
        let second = crowd.admit(address(0, 1)).ok();
        assert_eq!(crowd.admit(address(0, 1)).err(), Some(Full::Origin));
        let third = crowd.admit(address(0, 2)).ok();
        assert_eq!(crowd.admit(address(0, 2)).err(), Some(Full::All));
        assert_eq!(crowd.load(), 1.0);
        drop((first, second, third));
        assert!(is_empty(&crowd));
        assert!(crowd.admit(address(0, 1)).is_ok());
    }

    #[test]
    fn who_only_holds_connections_open_keeps_nobody_out() {
        let crowd = crowd(8, 100, Neighbours::Stay);
        let idle = of_network(&crowd, 0, 8);
        assert_eq!(crowd.admit(address(0, 9)).err(), Some(Full::All), "not its own");
        let players: Vec<Place> =
            (1..=4).filter_map(|network| crowd.admit(address(network, 1)).ok()).collect();
        assert!(players.len() == 4 && players.iter().all(Place::proved));
        assert_eq!(lost(&idle), [true, true, true, true, false, false, false, false], "the oldest");
        assert_eq!(crowd.load(), 1.0);
        drop((idle, players));
        assert!(is_empty(&crowd));
    }

    #[test]
    fn where_neighbours_leave_a_newcomer_takes_the_place_of_who_has_waited_longest() {
        let crowd = crowd(3, 100, Neighbours::Leave);
        let places = of_network(&crowd, 0, 3);
        assert!(places[0].proved());
        let fourth = crowd.admit(address(0, 9)).unwrap();
        assert_eq!(lost(&places), [false, true, false]);
        assert!(!places[1].proved() && places[0].proved());
        let other = crowd.admit(address(1, 1)).unwrap();
        assert_eq!(lost(&places), [false, true, true], "the prefix that has most");
        let another = crowd.admit(address(1, 2)).unwrap();
        assert!(other.lost.is_cancelled() && !fourth.lost.is_cancelled(), "as many have the others");
        drop((places, fourth, other));
        assert_eq!(crowd.state.lock().all, 1, "no lost place was given back twice");
        drop(another);
        assert!(is_empty(&crowd));
    }

    #[test]
    fn who_has_proved_itself_stays() {
        for neighbours in [Neighbours::Leave, Neighbours::Stay] {
            let crowd = crowd(4, 100, neighbours);
            let players = of_network(&crowd, 0, 4);
            assert!(players.iter().all(Place::proved));
            assert_eq!(crowd.admit(address(1, 1)).err(), Some(Full::All));
            assert_eq!(crowd.admit(address(0, 9)).err(), Some(Full::All));
            assert_eq!(lost(&players), [false; 4]);
            drop(players);
            assert!(is_empty(&crowd));
        }
    }

    #[test]
    fn an_address_that_has_too_many_crowds_out_nobody() {
        let crowd = crowd(4, 2, Neighbours::Leave);
        let first = [crowd.admit(address(0, 1)).unwrap(), crowd.admit(address(0, 1)).unwrap()];
        let others = [crowd.admit(address(1, 1)).unwrap(), crowd.admit(address(2, 1)).unwrap()];
        assert_eq!(crowd.admit(address(0, 1)).err(), Some(Full::Origin));
        assert_eq!((lost(&first), lost(&others)), (vec![false; 2], vec![false; 2]));
    }

    #[test]
    fn a_flood_has_no_more_than_the_bound() {
        let crowd = crowd(10, 1_000, Neighbours::Leave);
        let flood: Vec<Place> = (0..1_000u16)
            .filter_map(|number| crowd.admit([10, 0, (number % 50) as u8, 1].into()).ok())
            .collect();
        assert_eq!(lost(&flood).into_iter().filter(|lost| !lost).count(), 10);
        assert_eq!(crowd.state.lock().all, 10);
        drop(flood);
        assert!(is_empty(&crowd));
    }

    #[test]
    fn behind_a_balancer_the_client_counts() {
        let crowd = crowd(4, 1, Neighbours::Stay);
        let first = crowd.claim(crowd.enter(address(0, 1)).unwrap(), address(1, 1)).unwrap();
        assert_eq!(first.origin(), Some(Origin::of(address(1, 1))));
        let second = crowd.enter(address(0, 1)).unwrap();
        assert_eq!(crowd.claim(second, address(1, 1)).err(), Some(Full::Origin));
        assert_eq!(crowd.state.lock().prefixes.len(), 1);
        drop(first);
        assert!(is_empty(&crowd));
    }

    #[tokio::test]
    async fn who_lost_its_place_is_told() {
        let crowd = crowd(1, 10, Neighbours::Leave);
        let first = crowd.admit(address(0, 1)).unwrap();
        let lost = first.lost();
        let _second = crowd.admit(address(0, 1)).unwrap();
        lost.await;
    }
}
