//! Bounds of connections, in all and per client address, and of resumes that cost a question to the worlds.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use shardkeep_daemon::{self as daemon, ConnectionLimiter, ConnectionLimits, Full, Origin, OverflowPolicy};
use shardkeep_wire::limit::TokenBucket;

/// Resumes of sessions unknown here, per second and address. A gateway that died sends its players all at once, and
/// many may share an address.
const RESUMES: u32 = 200;
const RESUME_BURST: u32 = 2_000;
/// A bucket unused for so long is full again, and forgotten.
const BUCKET_TTL: Duration = Duration::from_secs(30);
/// Addresses known before those to be forgotten are looked for.
const SWEEP_THRESHOLD: usize = 1_024;

/// Overflow: of an address, the newcomer is turned away; in all, the oldest connection without a session makes room,
/// for a handshake takes no time.
pub(crate) struct Throttle {
    limiter: ConnectionLimiter,
    resumes: Arc<Mutex<ResumeLimits>>,
}

/// Addresses that have resumed lately.
#[derive(Default)]
struct ResumeLimits {
    limits: HashMap<Origin, AddressLimit>,
    last_sweep: Option<Instant>,
}

struct AddressLimit {
    bucket: TokenBucket,
    last: Instant,
}

/// One connection's place among all, and among those of its address.
pub(crate) struct Slot {
    pub(crate) limiter: daemon::Slot,
    resumes: Arc<Mutex<ResumeLimits>>,
}

impl Throttle {
    /// So many connections in all, and from one address.
    pub(crate) fn new(all: usize, per_origin: usize) -> Self {
        let bounds = ConnectionLimits { all, per_origin, overflow: OverflowPolicy::EvictOldest };
        Self { limiter: ConnectionLimiter::new(bounds), resumes: Arc::default() }
    }

    /// A place for one more connection, or which bound is reached.
    pub(crate) fn enter(&self, address: IpAddr) -> Result<Slot, &'static str> {
        self.slot(self.limiter.admit(address))
    }

    /// A place for a connection of a balancer, until it says for whom it connects.
    pub(crate) fn enter_behind_balancer(&self, balancer: IpAddr) -> Result<daemon::Slot, &'static str> {
        self.limiter.enter(balancer).map_err(reason)
    }

    /// The place of a balancer's connection now counts for the client behind it.
    pub(crate) fn claim(&self, slot: daemon::Slot, address: IpAddr) -> Result<Slot, &'static str> {
        self.slot(self.limiter.claim(slot, address))
    }

    fn slot(&self, limiter: Result<daemon::Slot, Full>) -> Result<Slot, &'static str> {
        Ok(Slot { limiter: limiter.map_err(reason)?, resumes: self.resumes.clone() })
    }
}

fn reason(full: Full) -> &'static str {
    match full {
        Full::All => "full",
        Full::Origin => "address",
    }
}

impl ResumeLimits {
    /// Forgets those whose buckets are full again, now and then: an attacker with a prefix of IPv6 has no end of
    /// addresses.
    fn evict_idle(&mut self, now: Instant) {
        let recently = self.last_sweep.is_some_and(|at| now.saturating_duration_since(at) < BUCKET_TTL);
        if self.limits.len() >= SWEEP_THRESHOLD && !recently {
            self.limits.retain(|_, limit| now.saturating_duration_since(limit.last) <= BUCKET_TTL);
            self.last_sweep = Some(now);
        }
    }
}

impl Slot {
    /// Whether the address may make the gateway ask the worlds now.
    pub(crate) fn may_resume(&self, now: Instant) -> bool {
        let Some(origin) = self.limiter.origin() else { return false };
        let mut resumes = self.resumes.lock();
        resumes.evict_idle(now);
        let limit = resumes
            .limits
            .entry(origin)
            .or_insert_with(|| AddressLimit { bucket: TokenBucket::default(), last: now });
        limit.last = now;
        limit.bucket.take(RESUMES, RESUME_BURST, now).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn throttle_reports_which_bound_is_reached() {
        let throttle = Throttle::new(2, 1);
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let first = throttle.enter(address("2001:db8::1")).unwrap();
        assert_eq!(throttle.enter(address("2001:db8::2")).err(), Some("address"), "the same /64");
        let second = throttle.enter(address("192.0.2.1")).unwrap();
        assert!(first.limiter.proved() && second.limiter.proved());
        assert_eq!(throttle.enter(address("192.0.2.2")).err(), Some("full"), "sessions are not crowded out");
    }

    #[test]
    fn resume_limits_of_idle_addresses_are_evicted() {
        let (throttle, now) = (Throttle::new(1, 1), Instant::now());
        for host in 0..10 * SWEEP_THRESHOLD as u128 {
            let slot = throttle.enter(IpAddr::V6((host << 64).into())).unwrap();
            assert!(slot.may_resume(now));
        }
        let mut resumes = throttle.resumes.lock();
        assert_eq!(resumes.limits.len(), 10 * SWEEP_THRESHOLD, "their buckets are not full again yet");
        resumes.evict_idle(now + BUCKET_TTL + Duration::from_secs(1));
        assert_eq!(resumes.limits.len(), 0);
    }

    #[test]
    fn resumes_beyond_burst_are_refused() {
        let slot = Throttle::new(1, 1).enter("192.0.2.1".parse().unwrap()).unwrap();
        let now = Instant::now();
        assert_eq!((0..RESUME_BURST + 5).filter(|_| slot.may_resume(now)).count(), RESUME_BURST as usize);
    }
}
