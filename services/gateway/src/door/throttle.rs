//! Bounds of connections, in all and per client address, and of resumes that cost a question to the worlds.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use shardkeep_daemon::{self as daemon, Crowd, CrowdBounds, Full, Neighbours, Origin};
use shardkeep_wire::limit::TokenBucket;

/// Resumes of sessions unknown here, per second and address. A gateway that died sends its players all at once, and
/// many may share an address.
const RESUMES: u32 = 200;
const RESUME_BURST: u32 = 2_000;
/// A bucket unused for so long is full again, and forgotten.
const FORGOTTEN: Duration = Duration::from_secs(30);
/// Addresses known before those to be forgotten are looked for.
const SWEEP: usize = 1_024;

/// Overflow: of an address, the newcomer is turned away; in all, the oldest connection without a session makes room,
/// for a handshake takes no time.
pub(crate) struct Throttle {
    crowd: Crowd,
    resumes: Arc<Mutex<Resumes>>,
}

/// Addresses that have resumed lately.
#[derive(Default)]
struct Resumes {
    known: HashMap<Origin, Resuming>,
    swept: Option<Instant>,
}

struct Resuming {
    bucket: TokenBucket,
    last: Instant,
}

/// One connection's place among all, and among those of its address.
pub(crate) struct Place {
    pub(crate) crowd: daemon::Place,
    resumes: Arc<Mutex<Resumes>>,
}

impl Throttle {
    /// So many connections in all, and from one address.
    pub(crate) fn new(all: usize, per_origin: usize) -> Self {
        let bounds = CrowdBounds { all, per_origin, neighbours: Neighbours::Leave };
        Self { crowd: Crowd::new(bounds), resumes: Arc::default() }
    }

    /// A place for one more connection, or which bound is reached.
    pub(crate) fn enter(&self, address: IpAddr) -> Result<Place, &'static str> {
        self.place(self.crowd.admit(address))
    }

    /// A place for a connection of a balancer, until it says for whom it connects.
    pub(crate) fn enter_behind_balancer(&self, balancer: IpAddr) -> Result<daemon::Place, &'static str> {
        self.crowd.enter(balancer).map_err(reason)
    }

    /// The place of a balancer's connection now counts for the client behind it.
    pub(crate) fn claim(&self, place: daemon::Place, address: IpAddr) -> Result<Place, &'static str> {
        self.place(self.crowd.claim(place, address))
    }

    fn place(&self, crowd: Result<daemon::Place, Full>) -> Result<Place, &'static str> {
        Ok(Place { crowd: crowd.map_err(reason)?, resumes: self.resumes.clone() })
    }
}

fn reason(full: Full) -> &'static str {
    match full {
        Full::All => "full",
        Full::Origin => "address",
    }
}

impl Resumes {
    /// Forgets those whose buckets are full again, now and then: an attacker with a prefix of IPv6 has no end of
    /// addresses.
    fn make_room(&mut self, now: Instant) {
        let lately = self.swept.is_some_and(|at| now.saturating_duration_since(at) < FORGOTTEN);
        if self.known.len() >= SWEEP && !lately {
            self.known.retain(|_, resuming| now.saturating_duration_since(resuming.last) <= FORGOTTEN);
            self.swept = Some(now);
        }
    }
}

impl Place {
    /// Whether the address may make the gateway ask the worlds now.
    pub(crate) fn may_resume(&self, now: Instant) -> bool {
        let Some(origin) = self.crowd.origin() else { return false };
        let mut resumes = self.resumes.lock();
        resumes.make_room(now);
        let resuming = resumes
            .known
            .entry(origin)
            .or_insert_with(|| Resuming { bucket: TokenBucket::default(), last: now });
        resuming.last = now;
        resuming.bucket.take(RESUMES, RESUME_BURST, now).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_bound_is_reached_is_told() {
        let throttle = Throttle::new(2, 1);
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let first = throttle.enter(address("2001:db8::1")).unwrap();
        assert_eq!(throttle.enter(address("2001:db8::2")).err(), Some("address"), "the same /64");
        let second = throttle.enter(address("192.0.2.1")).unwrap();
        assert!(first.crowd.proved() && second.crowd.proved());
        assert_eq!(throttle.enter(address("192.0.2.2")).err(), Some("full"), "sessions are not crowded out");
    }

    #[test]
    fn addresses_that_resumed_once_are_forgotten() {
        let (throttle, now) = (Throttle::new(1, 1), Instant::now());
        for host in 0..10 * SWEEP as u128 {
            let place = throttle.enter(IpAddr::V6((host << 64).into())).unwrap();
            assert!(place.may_resume(now));
        }
        let mut resumes = throttle.resumes.lock();
        assert_eq!(resumes.known.len(), 10 * SWEEP, "their buckets are not full again yet");
        resumes.make_room(now + FORGOTTEN + Duration::from_secs(1));
        assert_eq!(resumes.known.len(), 0);
    }

    #[test]
    fn resumes_are_bounded() {
        let place = Throttle::new(1, 1).enter("192.0.2.1".parse().unwrap()).unwrap();
        let now = Instant::now();
        assert_eq!((0..RESUME_BURST + 5).filter(|_| place.may_resume(now)).count(), RESUME_BURST as usize);
    }
}
