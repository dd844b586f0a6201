//! Bounds connections, in all and per client address, and resumes for which the worlds have to be asked.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use shardkeep_daemon::{self as daemon, ConnectionLimiter, ConnectionLimits, Full, Origin, OverflowPolicy};
use shardkeep_types::KeyedLimiter;

/// Resumes of sessions unknown here, per second and address. A gateway that died sends its players all at once, and
/// many may share an address.
const RESUME_INTERVAL: Duration = Duration::from_millis(5);
const RESUME_BURST: u32 = 2_000;
/// Addresses whose resumes are counted.
const MAX_RESUMING_ADDRESSES: usize = 65_536;

/// Overflow: of an address, the newcomer is turned away; in all, the oldest connection without a session makes room,
/// for a handshake takes no time.
pub(crate) struct Throttle {
    limiter: ConnectionLimiter,
    resumes: Arc<Mutex<KeyedLimiter<Origin>>>,
}

/// One connection's slot among all, and among those of its address.
pub(crate) struct Slot {
    limiter: daemon::Slot,
    resumes: Arc<Mutex<KeyedLimiter<Origin>>>,
}

impl Throttle {
    /// So many connections in all, and from one address.
    pub(crate) fn new(all: usize, per_origin: usize) -> Self {
        let bounds = ConnectionLimits { all, per_origin, overflow: OverflowPolicy::EvictOldest };
        let resumes = KeyedLimiter::new(RESUME_INTERVAL, RESUME_BURST, MAX_RESUMING_ADDRESSES);
        Self { limiter: ConnectionLimiter::new(bounds), resumes: Arc::new(Mutex::new(resumes)) }
    }

    /// A slot for one more connection, or the bound that is reached.
    pub(crate) fn enter(&self, address: IpAddr) -> Result<Slot, &'static str> {
        self.slot(self.limiter.admit(address))
    }

    /// A slot for a balancer's connection, until its PROXY header names the client.
    pub(crate) fn enter_behind_balancer(&self, balancer: IpAddr) -> Result<daemon::Slot, &'static str> {
        self.limiter.enter(balancer).map_err(reason)
    }

    /// Counts the slot of a balancer's connection for the client behind it.
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

impl Slot {
    pub(crate) fn limiter(&self) -> &daemon::Slot {
        &self.limiter
    }

    /// The client has proved itself. Returns false if the connection was evicted before.
    pub(crate) fn proved(&self) -> bool {
        self.limiter.proved()
    }

    /// Whether the address may make the gateway ask the worlds now.
    pub(crate) fn may_resume(&self, now: Instant) -> bool {
        let Some(origin) = self.limiter.origin() else { return false };
        self.resumes.lock().take(&origin, now).is_ok()
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
        assert!(first.proved() && second.proved());
        assert_eq!(throttle.enter(address("192.0.2.2")).err(), Some("full"), "sessions are not evicted");
    }

    #[test]
    fn resumes_beyond_burst_are_refused() {
        let slot = Throttle::new(1, 1).enter("192.0.2.1".parse().unwrap()).unwrap();
        let now = Instant::now();
        assert_eq!((0..RESUME_BURST + 5).filter(|_| slot.may_resume(now)).count(), RESUME_BURST as usize);
    }
}
