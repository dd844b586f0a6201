//! Bounds per client address: connections at once, and resumes that cost a question to the worlds.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use shardkeep_wire::limit::TokenBucket;

/// Resumes of sessions unknown here, per second and address. A gateway that died sends its players all at once, and
/// many may share an address.
const RESUMES: u32 = 200;
const RESUME_BURST: u32 = 2_000;
/// A bucket unused for so long is full again, and forgotten.
const FORGOTTEN: Duration = Duration::from_secs(30);
/// Addresses known before those to be forgotten are looked for.
const SWEEP: usize = 1_024;

#[derive(Clone, Default)]
pub(crate) struct Throttle(Arc<Mutex<Addresses>>);

#[derive(Default)]
struct Addresses {
    known: HashMap<IpAddr, Address>,
    /// How many were left by the last sweep.
    left: usize,
}

#[derive(Default)]
struct Address {
    connections: usize,
    resumes: TokenBucket,
    last_resume: Option<Instant>,
}

/// One connection's place among those of its address.
pub(crate) struct Place {
    throttle: Throttle,
    address: IpAddr,
}

impl Throttle {
    /// A place for one more connection; `None`: too many come from there.
    pub(crate) fn enter(&self, address: IpAddr, most: usize) -> Option<Place> {
        let address = prefix(address);
        let mut addresses = self.0.lock();
        addresses.make_room(Instant::now());
        let entry = addresses.known.entry(address).or_default();
        if entry.connections >= most {
            return None;
        }
        entry.connections += 1;
        Some(Place { throttle: self.clone(), address })
    }
}

impl Addresses {
    /// Forgets those that are not needed, each time their number has doubled: an address that resumed once and never
    /// came again would stay for ever, and an attacker with a prefix of IPv6 has no end of addresses.
    fn make_room(&mut self, now: Instant) {
        if self.known.len() < SWEEP.max(2 * self.left) {
            return;
        }
        self.known.retain(|_, address| !address.is_over(now));
        self.left = self.known.len();
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
        let mut addresses = self.throttle.0.lock();
        let entry = addresses.known.entry(self.address).or_default();
        entry.last_resume = Some(now);
        entry.resumes.take(RESUMES, RESUME_BURST, now).is_ok()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut addresses = self.throttle.0.lock();
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
        let throttle = Throttle::default();
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let first = throttle.enter(address("2001:db8::1"), 1).unwrap();
        assert!(throttle.enter(address("2001:db8::2"), 1).is_none(), "the same /64");
        assert!(throttle.enter(address("192.0.2.1"), 1).is_some());
        drop(first);
        assert!(throttle.enter(address("2001:db8::2"), 1).is_some());
        assert!(throttle.0.lock().known.is_empty());
    }

    #[test]
    fn addresses_that_resumed_once_are_forgotten() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        for host in 0..10 * SWEEP as u128 {
            let place = throttle.enter(IpAddr::V6((host << 64).into()), 1).unwrap();
            assert!(place.may_resume(now));
        }
        let mut addresses = throttle.0.lock();
        assert_eq!(addresses.known.len(), 10 * SWEEP, "their buckets are not full again yet");
        addresses.make_room(now + FORGOTTEN + Duration::from_secs(1));
        assert_eq!(addresses.known.len(), 0);
    }

    #[test]
    fn resumes_are_bounded() {
        let place = Throttle::default().enter("192.0.2.1".parse().unwrap(), 1).unwrap();
        let now = Instant::now();
        assert_eq!((0..RESUME_BURST + 5).filter(|_| place.may_resume(now)).count(), RESUME_BURST as usize);
    }
}
