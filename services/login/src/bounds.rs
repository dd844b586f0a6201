//! How many connections there may be, in all and from one address.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::{
    Config,
    limits::{Origin, Prefix},
    metrics,
};

/// How many connections there may be. Overflow: the newcomer takes the place of the oldest that has not logged in yet,
/// of the address prefix that has most of those; only where its own prefix has as many, it is refused and counted. So
/// whoever holds connections open without logging in keeps nobody else out.
pub(crate) struct Bounds {
    size: usize,
    per_origin: usize,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    all: usize,
    next: u64,
    origins: HashMap<Origin, usize>,
    prefixes: HashMap<Prefix, Line>,
}

#[derive(Default)]
struct Line {
    connections: usize,
    /// Those that have not logged in yet, the oldest first.
    strangers: BTreeMap<u64, CancellationToken>,
}

impl Bounds {
    pub(crate) fn new(config: &Config) -> Self {
        let (size, per_origin) = (config.max_connections, config.max_connections_per_address);
        Self { size, per_origin, state: Arc::default() }
    }

    /// A place for a connection from there, or the name of the bound that is reached.
    pub(crate) fn admit(&self, address: IpAddr) -> Result<Place, &'static str> {
        self.claim(self.enter(address)?, address)
    }

    /// A place for a connection of a balancer, until it says for whom it connects.
    pub(crate) fn enter(&self, address: IpAddr) -> Result<Place, &'static str> {
        let (prefix, evicted) = (Prefix::of(address), CancellationToken::new());
        let mut state = self.state.lock();
        if state.all >= self.size && !state.evict(prefix) {
            return Err("connections");
        }
        state.next += 1;
        let number = state.next;
        state.count(prefix, number, evicted.clone());
        drop(state);
        metrics::connections(1.0);
        Ok(Place { state: self.state.clone(), number, prefix, origin: None, known: false, evicted })
    }

    /// The place now counts for that address.
    pub(crate) fn claim(&self, mut place: Place, address: IpAddr) -> Result<Place, &'static str> {
        let (origin, prefix) = (Origin::of(address), Prefix::of(address));
        let mut state = self.state.lock();
        let count = state.origins.entry(origin).or_insert(0);
        if *count >= self.per_origin {
            drop(state);
            return Err("connections_per_address");
        }
        *count += 1;
        if state.forget(place.prefix, place.number) {
            state.count(prefix, place.number, place.evicted.clone());
        }
        drop(state);
        (place.origin, place.prefix) = (Some(origin), prefix);
        Ok(place)
    }

    /// 0.0 nobody is here to 1.0: the next is refused, or takes another's place.
    pub(crate) fn load(&self) -> f64 {
        self.state.lock().all as f64 / self.size as f64
    }
}

impl State {
    fn count(&mut self, prefix: Prefix, number: u64, evicted: CancellationToken) {
        self.all += 1;
        let line = self.prefixes.entry(prefix).or_default();
        line.connections += 1;
        line.strangers.insert(number, evicted);
    }

    /// Ends the count of a connection that has not logged in; false: it has been evicted.
    fn forget(&mut self, prefix: Prefix, number: u64) -> bool {
        let found =
            self.prefixes.get_mut(&prefix).is_some_and(|line| line.strangers.remove(&number).is_some());
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

    /// Makes room for one of that prefix, if another has more strangers here than it has connections.
    fn evict(&mut self, newcomer: Prefix) -> bool {
        let own = self.prefixes.get(&newcomer).map_or(0, |line| line.connections);
        let most = self.prefixes.iter().max_by_key(|(_, line)| line.strangers.len());
        let Some((&prefix, line)) = most.filter(|(_, line)| line.strangers.len() > own + 1) else {
            return false;
        };
        let Some((&number, evicted)) = line.strangers.first_key_value() else { return false };
        evicted.cancel();
        metrics::refused("displaced");
        self.forget(prefix, number)
    }
}

/// One connection's share of the bounds; given back when dropped.
pub(crate) struct Place {
    state: Arc<Mutex<State>>,
    number: u64,
    prefix: Prefix,
    /// Whom it counts for.
    origin: Option<Origin>,
    /// Logged in: nobody takes this place.
    known: bool,
    evicted: CancellationToken,
}

impl Place {
    /// Cancelled when another connection takes the place.
    pub(crate) fn evicted(&self) -> CancellationToken {
        self.evicted.clone()
    }

    /// The player has logged in, and keeps the place.
    pub(crate) fn keep(&mut self) {
        let mut state = self.state.lock();
        let line = state.prefixes.get_mut(&self.prefix);
        self.known = line.is_some_and(|line| line.strangers.remove(&self.number).is_some());
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        metrics::connections(-1.0);
        let mut state = self.state.lock();
        if self.known {
            state.leave(self.prefix);
        } else {
            state.forget(self.prefix, self.number);
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

    fn bounds(size: usize, per_origin: usize) -> Bounds {
        let config =
            Config { max_connections: size, max_connections_per_address: per_origin, ..Config::default() };
        Bounds::new(&config)
    }

    fn address(network: u8, host: u8) -> IpAddr {
        [10, 0, network, host].into()
    }

    fn is_empty(bounds: &Bounds) -> bool {
        let state = bounds.state.lock();
        state.all == 0 && state.origins.is_empty() && state.prefixes.is_empty()
    }

    #[test]
    fn places_are_given_back() {
        let bounds = bounds(3, 2);
        let first = bounds.admit(address(0, 1)).ok();
        let second = bounds.admit(address(0, 1)).ok();
        assert_eq!(bounds.admit(address(0, 1)).err(), Some("connections_per_address"));
        let third = bounds.admit(address(0, 2)).ok();
        assert!(third.is_some());
        assert_eq!(bounds.admit(address(0, 2)).err(), Some("connections"));
        assert_eq!(bounds.load(), 1.0);
        drop((first, second, third));
        assert!(is_empty(&bounds));
        assert!(bounds.admit(address(0, 1)).is_ok());
    }

    #[test]
    fn who_only_holds_connections_open_keeps_nobody_out() {
        let bounds = bounds(8, 100);
        let idle: Vec<Place> = (0..8).filter_map(|host| bounds.admit(address(0, host)).ok()).collect();
        assert_eq!(idle.len(), 8);
        assert_eq!(bounds.admit(address(0, 9)).err(), Some("connections"), "not its own");
        let mut players: Vec<Place> =
            (1..=4).filter_map(|network| bounds.admit(address(network, 1)).ok()).collect();
        assert_eq!(players.len(), 4);
        players.iter_mut().for_each(Place::keep);
        let evicted: Vec<bool> = idle.iter().map(|place| place.evicted().is_cancelled()).collect();
        assert_eq!(evicted, [true, true, true, true, false, false, false, false], "the oldest");
        assert_eq!(bounds.load(), 1.0);
        drop((idle, players));
        assert!(is_empty(&bounds));
    }

    #[test]
    fn who_has_logged_in_stays() {
        let bounds = bounds(4, 100);
        let mut players: Vec<Place> = (0..4).filter_map(|host| bounds.admit(address(0, host)).ok()).collect();
        players.iter_mut().for_each(Place::keep);
        assert_eq!(bounds.admit(address(1, 1)).err(), Some("connections"));
        assert!(players.iter().all(|place| !place.evicted().is_cancelled()));
        drop(players);
        assert!(is_empty(&bounds));
    }

    #[test]
    fn behind_a_balancer_the_client_counts() {
        let bounds = bounds(4, 1);
        let place = bounds.enter(address(0, 1)).unwrap_or_else(|bound| panic!("{bound}"));
        let first = bounds.claim(place, address(1, 1));
        assert!(first.is_ok());
        let place = bounds.enter(address(0, 1)).unwrap_or_else(|bound| panic!("{bound}"));
        assert_eq!(bounds.claim(place, address(1, 1)).err(), Some("connections_per_address"));
        assert_eq!(bounds.state.lock().prefixes.len(), 1);
        drop(first);
        assert!(is_empty(&bounds));
    }
}
