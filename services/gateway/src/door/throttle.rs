//! Bounds of connections, in all and per client address, and of resumes that cost a question to the worlds.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use shardkeep_wire::limit::TokenBucket;

use super::crowd::{self, Crowd};

/// Resumes of sessions unknown here, per second and address. A gateway that died sends its players all at once, and
/// many may share an address.
const RESUMES: u32 = 200;
const RESUME_BURST: u32 = 2_000;
/// A bucket unused for so long is full again, and forgotten.
const FORGOTTEN: Duration = Duration::from_secs(30);
/// Addresses known before those to be forgotten are looked for.
const SWEEP: usize = 1_024;

/// Overflow: of an address, the newcomer is turned away; in all, the oldest connection without a session makes room.
pub(crate) struct Throttle {
    crowd: Crowd,
    per_address: usize,
    addresses: Arc<Mutex<Addresses>>,
}

#[derive(Default)]
struct Addresses {
    known: HashMap<IpAddr, Address>,
    swept: Option<Instant>,
}

#[derive(Default)]
struct Address {
    connections: usize,
    resumes: TokenBucket,
    last_resume: Option<Instant>,
}

/// One connection's place among all, and among those of its address.
pub(crate) struct Place {
    pub(crate) crowd: crowd::Place,
    addresses: Arc<Mutex<Addresses>>,
    address: IpAddr,
}

impl Throttle {
    /// So many connections in all, and from one address.
    pub(crate) fn new(most: usize, per_address: usize) -> Self {
        Self { crowd: Crowd::new(most), per_address, addresses: Arc::default() }
    }

    /// A place for one more connection, or which bound is reached.
    pub(crate) fn enter(&self, address: IpAddr) -> Result<Place, &'static str> {
        self.count(address, || self.crowd.enter().ok_or("full"))
    }

    /// A place for a connection of a balancer, until it says for whom it connects.
    pub(crate) fn enter_behind_balancer(&self) -> Result<crowd::Place, &'static str> {
        self.crowd.enter().ok_or("full")
    }

    /// The place of a balancer's connection now counts for the client behind it.
    pub(crate) fn claim(&self, place: crowd::Place, address: IpAddr) -> Result<Place, &'static str> {
        self.count(address, || Ok(place))
    }

    fn count(
        &self,
        address: IpAddr,
        crowd: impl FnOnce() -> Result<crowd::Place, &'static str>,
    ) -> Result<Place, &'static str> {
        let address = prefix(address);
        let mut addresses = self.addresses.lock();
        addresses.make_room(Instant::now());
        let here = addresses.known.get(&address).map_or(0, |entry| entry.connections);
        // Asked first: an address that has too many must not crowd out others.
        if here >= self.per_address {
            return Err("address");
        }
        let crowd = crowd()?;
        addresses.known.entry(address).or_default().connections += 1;
        Ok(Place { crowd, addresses: self.addresses.clone(), address })
    }
}

impl Addresses {
    /// Forgets those that are not needed, now and then: an address that resumed once and never came again would stay
    /// for ever, and an attacker with a prefix of IPv6 has no end of addresses.
    fn make_room(&mut self, now: Instant) {
        let lately = self.swept.is_some_and(|at| now.saturating_duration_since(at) < FORGOTTEN);
        if self.known.len() >= SWEEP && !lately {
            self.known.retain(|_, address| !address.is_over(now));
            self.swept = Some(now);
        }
    }
}

impl Address {
    fn is_over(&self, now: Instant) -> bool {
        let rested = |last| now.saturating_duration_since(last) > FORGOTTEN;
        self.connections == 0 && self.last_resume.is_none_or(rested)
    }
}

impl Place {
    /// Whether the address may make the gateway ask the worlds now.
    pub(crate) fn may_resume(&self, now: Instant) -> bool {
        let mut addresses = self.addresses.lock();
        let entry = addresses.known.entry(self.address).or_default();
        entry.last_resume = Some(now);
        entry.resumes.take(RESUMES, RESUME_BURST, now).is_ok()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut addresses = self.addresses.lock();
        if let Some(entry) = addresses.known.get_mut(&self.address) {
            entry.connections -= 1;
            if entry.is_over(Instant::now()) {
                addresses.known.remove(&self.address);
            }
        }
    }
}

/// One subscriber of IPv6 has at least a /64.
fn prefix(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_places() {
        let throttle = Throttle::new(10, 1);
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let first = throttle.enter(address("2001:db8::1")).unwrap();
        assert_eq!(throttle.enter(address("2001:db8::2")).err(), Some("address"), "the same /64");
        assert!(throttle.enter(address("192.0.2.1")).is_ok());
        drop(first);
        assert!(throttle.enter(address("2001:db8::2")).is_ok());
        assert!(throttle.addresses.lock().known.is_empty());
    }

    #[test]
    fn sessions_are_not_crowded_out() {
        let throttle = Throttle::new(1, 10);
        let first = throttle.enter([192, 0, 2, 1].into()).unwrap();
        let second = throttle.enter([192, 0, 2, 1].into()).unwrap();
        drop(first);
        assert!(second.crowd.proved());
        assert_eq!(throttle.enter([192, 0, 2, 2].into()).err(), Some("full"));
    }

    #[test]
    fn addresses_that_resumed_once_are_forgotten() {
        let (throttle, now) = (Throttle::new(1, 1), Instant::now());
        for host in 0..10 * SWEEP as u128 {
            let place = throttle.enter(IpAddr::V6((host << 64).into())).unwrap();
            assert!(place.may_resume(now));
        }
        let mut addresses = throttle.addresses.lock();
        assert_eq!(addresses.known.len(), 10 * SWEEP, "their buckets are not full again yet");
        addresses.make_room(now + FORGOTTEN + Duration::from_secs(1));
        assert_eq!(addresses.known.len(), 0);
    }

    #[test]
    fn resumes_are_bounded() {
        let place = Throttle::new(1, 1).enter("192.0.2.1".parse().unwrap()).unwrap();
        let now = Instant::now();
        assert_eq!((0..RESUME_BURST + 5).filter(|_| place.may_resume(now)).count(), RESUME_BURST as usize);
    }
}
