//! Limits the connections of a port, in all and per address. A connection counts as a stranger until the client has
//! authenticated. When the port is full, a new connection takes the place of the oldest stranger of the address
//! prefix with the most strangers. So a crowd of silent connections cannot keep honest clients out. An authenticated
//! connection is never closed for another.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::{Origin, Prefix};

/// Most connections at a time. Overflow: see [`OverflowPolicy`]. The caller counts refusals ([`Full`]) and evictions
/// ([`Slot::evicted`]).
#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimits {
    pub all: usize,
    pub per_origin: usize,
    pub overflow: OverflowPolicy,
}

/// Treatment of strangers of the newcomer's prefix when the port is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverflowPolicy {
    /// The oldest of them is evicted, if no other prefix has more. For short handshakes: an attacker would have to
    /// connect faster than one handshake takes.
    EvictOldest,
    /// They stay. The newcomer is refused, unless another prefix has more strangers than its own has connections.
    /// For queues: if new connections evicted waiting ones, none would reach the front.
    RefuseNewcomer,
}

/// The bound that a new connection has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    All,
    Origin,
}

/// All connections of a port. Clones share them.
#[derive(Debug, Clone)]
pub struct ConnectionLimiter {
    bounds: ConnectionLimits,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    all: usize,
    next: u64,
    origins: HashMap<Origin, usize>,
    prefixes: HashMap<Prefix, PrefixConnections>,
    /// Prefixes with strangers, ordered by the number of strangers.
    prefixes_by_count: BTreeSet<(usize, Prefix)>,
}

#[derive(Debug, Default)]
struct PrefixConnections {
    connections: usize,
    /// Oldest first.
    unauthenticated: BTreeMap<u64, CancellationToken>,
}

/// The place of one connection. Dropping it frees the place.
#[derive(Debug)]
pub struct Slot {
    state: Arc<Mutex<State>>,
    number: u64,
    prefix: Prefix,
    /// The address that it counts for. `None` while only the load balancer's address is known.
    origin: Option<Origin>,
    evicted: CancellationToken,
}

impl ConnectionLimiter {
    pub fn new(bounds: ConnectionLimits) -> Self {
        Self { bounds, state: Arc::default() }
    }

    /// Takes a place for a connection from `address`.
    ///
    /// # Errors
    /// The bound that is reached.
    pub fn admit(&self, address: IpAddr) -> Result<Slot, Full> {
        // Checked first, so that an address at its bound evicts no other connection.
        if self.state.lock().of(Origin::of(address)) >= self.bounds.per_origin {
            return Err(Full::Origin);
        }
        self.claim(self.enter(address)?, address)
    }

    /// Takes a place for a connection from a load balancer, until the balancer names the client's address.
    ///
    /// # Errors
    /// When the port is full and no connection can be evicted.
    pub fn enter(&self, balancer: IpAddr) -> Result<Slot, Full> {
        let (prefix, evicted) = (Prefix::of(balancer), CancellationToken::new());
        let mut state = self.state.lock();
        if state.all >= self.bounds.all && !state.evict_one(prefix, self.bounds.overflow) {
            return Err(Full::All);
        }
        state.next += 1;
        let number = state.next;
        state.add(prefix, number, evicted.clone());
        Ok(Slot { state: self.state.clone(), number, prefix, origin: None, evicted })
    }

    /// Counts the place for `address` from now on.
    ///
    /// # Errors
    /// When the address has reached its bound; the place is freed.
    pub fn claim(&self, mut slot: Slot, address: IpAddr) -> Result<Slot, Full> {
        let (origin, prefix) = (Origin::of(address), Prefix::of(address));
        let mut state = self.state.lock();
        if state.of(origin) >= self.bounds.per_origin {
            drop(state);
            return Err(Full::Origin);
        }
        *state.origins.entry(origin).or_insert(0) += 1;
        // An evicted slot no longer has a place to move.
        if prefix != slot.prefix && state.remove_unauthenticated(slot.prefix, slot.number) {
            state.add(prefix, slot.number, slot.evicted.clone());
        }
        drop(state);
        (slot.origin, slot.prefix) = (Some(origin), prefix);
        Ok(slot)
    }

    /// From 0.0 (no connections) to 1.0 (full).
    pub fn load(&self) -> f64 {
        self.state.lock().all as f64 / self.bounds.all as f64
    }
}

impl State {
    fn of(&self, origin: Origin) -> usize {
        self.origins.get(&origin).copied().unwrap_or(0)
    }

    fn add(&mut self, prefix: Prefix, number: u64, evicted: CancellationToken) {
        self.all += 1;
        let entry = self.prefixes.entry(prefix).or_default();
        entry.connections += 1;
        let before = entry.unauthenticated.len();
        entry.unauthenticated.insert(number, evicted);
        self.update_rank(prefix, before, before + 1);
    }

    fn update_rank(&mut self, prefix: Prefix, before: usize, now: usize) {
        self.prefixes_by_count.remove(&(before, prefix));
        if now > 0 {
            self.prefixes_by_count.insert((now, prefix));
        }
    }

    /// Returns whether the connection was a stranger, and so still had its place.
    fn mark_authenticated(&mut self, prefix: Prefix, number: u64) -> bool {
        let Some(entry) = self.prefixes.get_mut(&prefix) else { return false };
        let before = entry.unauthenticated.len();
        let was_unauthenticated = entry.unauthenticated.remove(&number).is_some();
        if was_unauthenticated {
            self.update_rank(prefix, before, before - 1);
        }
        was_unauthenticated
    }

    fn remove_unauthenticated(&mut self, prefix: Prefix, number: u64) -> bool {
        let removed = self.mark_authenticated(prefix, number);
        if removed {
            self.release(prefix);
        }
        removed
    }

    fn release(&mut self, prefix: Prefix) {
        self.all -= 1;
        if let Some(entry) = self.prefixes.get_mut(&prefix) {
            entry.connections -= 1;
            if entry.connections == 0 {
                self.prefixes.remove(&prefix);
            }
        }
    }

    fn evict_one(&mut self, newcomer: Prefix, overflow: OverflowPolicy) -> bool {
        let Some(&(most, largest)) = self.prefixes_by_count.last() else { return false };
        let own = self.prefixes.get(&newcomer);
        let (connections, unauthenticated) =
            own.map_or((0, 0), |own| (own.connections, own.unauthenticated.len()));
        let victim = match overflow {
            OverflowPolicy::RefuseNewcomer if most > connections + 1 => largest,
            OverflowPolicy::RefuseNewcomer => return false,
            OverflowPolicy::EvictOldest if unauthenticated > 0 && most <= unauthenticated + 1 => newcomer,
            OverflowPolicy::EvictOldest => largest,
        };
        let oldest = self.prefixes.get(&victim).and_then(|entry| entry.unauthenticated.first_key_value());
        let Some((&number, evicted)) = oldest else { return false };
        evicted.cancel();
        self.remove_unauthenticated(victim, number)
    }
}

impl Slot {
    /// The client has authenticated, so its connection can no longer be evicted. Returns false if it was evicted
    /// before.
    pub fn proved(&self) -> bool {
        self.state.lock().mark_authenticated(self.prefix, self.number) || !self.evicted.is_cancelled()
    }

    /// Resolves when the place was given to another connection. This connection must then be closed.
    pub fn evicted(&self) -> impl Future<Output = ()> + use<> {
        self.evicted.clone().cancelled_owned()
    }

    /// The address that it counts for. `None` while only the load balancer's address is known.
    pub fn origin(&self) -> Option<Origin> {
        self.origin
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.state.lock();
        // An evicted slot has no place to free.
        if !self.evicted.is_cancelled() && !state.remove_unauthenticated(self.prefix, self.number) {
            state.release(self.prefix);
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

    fn limiter(all: usize, per_origin: usize, overflow: OverflowPolicy) -> ConnectionLimiter {
        ConnectionLimiter::new(ConnectionLimits { all, per_origin, overflow })
    }

    fn address(network: u8, host: u8) -> IpAddr {
        [10, 0, network, host].into()
    }

    fn is_empty(limiter: &ConnectionLimiter) -> bool {
        let state = limiter.state.lock();
        state.all == 0
            && state.origins.is_empty()
            && state.prefixes.is_empty()
            && state.prefixes_by_count.is_empty()
    }

    fn evicted(slots: &[Slot]) -> Vec<bool> {
        slots.iter().map(|slot| slot.evicted.is_cancelled()).collect()
    }

    fn admit_from_network(limiter: &ConnectionLimiter, network: u8, hosts: u8) -> Vec<Slot> {
        (0..hosts).filter_map(|host| limiter.admit(address(network, host)).ok()).collect()
    }

    #[test]
    fn dropped_slots_are_released() {
        let limiter = limiter(3, 2, OverflowPolicy::RefuseNewcomer);
        let first = limiter.admit(address(0, 1)).ok();
        let second = limiter.admit(address(0, 1)).ok();
        assert_eq!(limiter.admit(address(0, 1)).err(), Some(Full::Origin));
        let third = limiter.admit(address(0, 2)).ok();
        assert_eq!(limiter.admit(address(0, 2)).err(), Some(Full::All));
        assert_eq!(limiter.load(), 1.0);
        drop((first, second, third));
        assert!(is_empty(&limiter));
        assert!(limiter.admit(address(0, 1)).is_ok());
    }

    #[test]
    fn idle_connections_are_evicted_for_other_prefixes() {
        let limiter = limiter(8, 100, OverflowPolicy::RefuseNewcomer);
        let idle = admit_from_network(&limiter, 0, 8);
        assert_eq!(limiter.admit(address(0, 9)).err(), Some(Full::All), "not its own");
        let players: Vec<Slot> =
            (1..=4).filter_map(|network| limiter.admit(address(network, 1)).ok()).collect();
        assert!(players.len() == 4 && players.iter().all(Slot::proved));
        assert_eq!(evicted(&idle), [true, true, true, true, false, false, false, false], "the oldest");
        assert_eq!(limiter.load(), 1.0);
        drop((idle, players));
        assert!(is_empty(&limiter));
    }

    #[test]
    fn evict_oldest_policy_evicts_the_longest_waiting() {
        let limiter = limiter(3, 100, OverflowPolicy::EvictOldest);
        let slots = admit_from_network(&limiter, 0, 3);
        assert!(slots[0].proved());
        let fourth = limiter.admit(address(0, 9)).unwrap();
        assert_eq!(evicted(&slots), [false, true, false]);
        assert!(!slots[1].proved() && slots[0].proved());
        let other = limiter.admit(address(1, 1)).unwrap();
        assert_eq!(evicted(&slots), [false, true, true], "the prefix that has most");
        let another = limiter.admit(address(1, 2)).unwrap();
        assert!(other.evicted.is_cancelled() && !fourth.evicted.is_cancelled(), "as many have the others");
        drop((slots, fourth, other));
        assert_eq!(limiter.state.lock().all, 1, "no lost place was given back twice");
        drop(another);
        assert!(is_empty(&limiter));
    }

    #[test]
    fn authenticated_connections_are_never_evicted() {
        for overflow in [OverflowPolicy::EvictOldest, OverflowPolicy::RefuseNewcomer] {
            let limiter = limiter(4, 100, overflow);
            let players = admit_from_network(&limiter, 0, 4);
            assert!(players.iter().all(Slot::proved));
            assert_eq!(limiter.admit(address(1, 1)).err(), Some(Full::All));
            assert_eq!(limiter.admit(address(0, 9)).err(), Some(Full::All));
            assert_eq!(evicted(&players), [false; 4]);
            drop(players);
            assert!(is_empty(&limiter));
        }
    }

    #[test]
    fn address_over_its_limit_evicts_no_other() {
        let limiter = limiter(4, 2, OverflowPolicy::EvictOldest);
        let first = [limiter.admit(address(0, 1)).unwrap(), limiter.admit(address(0, 1)).unwrap()];
        let others = [limiter.admit(address(1, 1)).unwrap(), limiter.admit(address(2, 1)).unwrap()];
        assert_eq!(limiter.admit(address(0, 1)).err(), Some(Full::Origin));
        assert_eq!((evicted(&first), evicted(&others)), (vec![false; 2], vec![false; 2]));
    }

    #[test]
    fn flood_is_limited_to_the_total() {
        let limiter = limiter(10, 1_000, OverflowPolicy::EvictOldest);
        let flood: Vec<Slot> = (0..1_000u16)
            .filter_map(|number| limiter.admit([10, 0, (number % 50) as u8, 1].into()).ok())
            .collect();
        assert_eq!(evicted(&flood).into_iter().filter(|evicted| !evicted).count(), 10);
        assert_eq!(limiter.state.lock().all, 10);
        drop(flood);
        assert!(is_empty(&limiter));
    }

    #[test]
    fn proxied_connection_counts_for_client_address() {
        let limiter = limiter(4, 1, OverflowPolicy::RefuseNewcomer);
        let first = limiter.claim(limiter.enter(address(0, 1)).unwrap(), address(1, 1)).unwrap();
        assert_eq!(first.origin(), Some(Origin::of(address(1, 1))));
        let second = limiter.enter(address(0, 1)).unwrap();
        assert_eq!(limiter.claim(second, address(1, 1)).err(), Some(Full::Origin));
        assert_eq!(limiter.state.lock().prefixes.len(), 1);
        drop(first);
        assert!(is_empty(&limiter));
    }

    #[tokio::test]
    async fn evicted_connection_is_notified() {
        let limiter = limiter(1, 10, OverflowPolicy::EvictOldest);
        let first = limiter.admit(address(0, 1)).unwrap();
        let evicted = first.evicted();
        let _second = limiter.admit(address(0, 1)).unwrap();
        evicted.await;
    }
}
