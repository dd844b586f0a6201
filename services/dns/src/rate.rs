//! Response rate limiting by network for UDP. A sender can forge its address, and without a limit the answers would flood
//! the owner of that address.
//!
//! The algorithm is GCRA: one number per network, the time at which all its answers so far would be due at the permitted
//! rate. The table has a fixed size, and all loops share it without a lock. When it is full, a new network replaces the
//! one whose time is earliest. The metric `shardkeep_dns_rate_evictions_total` counts this; the replaced network starts
//! again with its whole burst.

use std::{
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use metrics::Counter;

use crate::{
    config::RateConfig as Settings,
    metrics::rate_evictions,
    prefixes::{Prefix, Prefixes},
};

/// Slots that a network may occupy.
const WAYS: usize = 4;
/// The lower bits of a slot identify the network; the upper bits hold its time in microseconds.
const TAG_BITS: u32 = 20;
const TIME_BITS: u32 = u64::BITS - TAG_BITS;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;
/// After this many lost races an answer passes. The loops that won have counted their answers.
const ATTEMPTS: usize = 3;

/// The slots of all networks.
pub(crate) struct RateLimiter {
    sets: Box<[[AtomicU64; WAYS]]>,
    hasher: RandomState,
    /// Cost of one answer in microseconds; 0: no limit.
    interval: u64,
    /// Size of the burst in microseconds.
    burst: u64,
    exempt: Prefixes<()>,
    evictions: Counter,
}

impl RateLimiter {
    /// `config` must be valid.
    pub(crate) fn new(settings: &Settings) -> Self {
        let interval = match settings.answers_per_s {
            0 => 0,
            rate => (1_000_000 / u64::from(rate)).max(1),
        };
        let sets = if interval == 0 { 1 } else { (settings.networks / WAYS).next_power_of_two() };
        let mut exempt = Prefixes::new();
        for prefix in settings.exempt.iter().filter_map(|text| text.parse::<Prefix>().ok()) {
            exempt.insert(prefix, ());
        }
        Self {
            sets: std::iter::repeat_with(Default::default).take(sets).collect(),
            hasher: RandomState::new(),
            interval,
            burst: interval * u64::from(settings.burst.max(1)),
            exempt,
            evictions: rate_evictions(),
        }
    }

    /// Whether one more answer may go to this address. `now` is in microseconds since any fixed time.
    pub(crate) fn allows(&self, client: IpAddr, now: u64) -> bool {
        if self.interval == 0 || self.exempt.contains(client) {
            return true;
        }
        let hash = self.hasher.hash_one(network(client));
        let tag = hash & ((1 << TAG_BITS) - 1);
        let set = &self.sets[(hash >> TAG_BITS) as usize & (self.sets.len() - 1)];
        for _ in 0..ATTEMPTS {
            let (slot, found, owed) = self.find_slot(set, tag, now);
            // The burst does not cover this answer.
            if owed + self.interval > self.burst {
                return false;
            }
            let due = (now + owed + self.interval) & TIME_MASK;
            let next = due << TAG_BITS | tag;
            if slot.compare_exchange(found, next, Relaxed, Relaxed).is_ok() {
                let evicted = found & ((1 << TAG_BITS) - 1) != tag && self.owed(found, now) > 0;
                self.evictions.increment(evicted.into());
                return true;
            }
        }
        true
    }

    /// The slot of this network or the one to replace, the content of the slot, and the debt of the network.
    fn find_slot<'a>(&self, set: &'a [AtomicU64; WAYS], tag: u64, now: u64) -> (&'a AtomicU64, u64, u64) {
        let mut idle = (&set[0], 0, u64::MAX);
        for slot in set {
            let found = slot.load(Relaxed);
            let owed = self.owed(found, now);
            if found & ((1 << TAG_BITS) - 1) == tag {
                return (slot, found, owed);
            }
            if owed < idle.2 {
                idle = (slot, found, owed);
            }
        }
        (idle.0, idle.1, 0)
    }

    /// Microseconds until all answers of the slot's network are due.
    fn owed(&self, slot: u64, now: u64) -> u64 {
        let ahead = (slot >> TAG_BITS).wrapping_sub(now) & TIME_MASK;
        // A larger value than any debt is a time in the past. (The clock of a slot wraps around after 200 days.)
        if ahead > self.burst { 0 } else { ahead }
    }
}

/// The network whose addresses share one limit: /24 for IPv4, /56 for IPv6, as providers assign them.
pub(crate) fn network(client: IpAddr) -> u64 {
    match client {
        IpAddr::V4(address) => u64::from(address.to_bits() >> 8),
        IpAddr::V6(address) => 1 << 56 | (address.to_bits() >> 72) as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(answers_per_s: u32, burst: u32, networks: usize) -> RateLimiter {
        let exempt = vec!["127.0.0.0/8".into()];
        RateLimiter::new(&Settings { answers_per_s, burst, networks, exempt, ..Settings::default() })
    }

    fn ipv4(third: u8, last: u8) -> IpAddr {
        [203, 0, third, last].into()
    }

    fn passed(rate: &RateLimiter, client: IpAddr, times: usize, now: u64) -> usize {
        (0..times).filter(|_| rate.allows(client, now)).count()
    }

    #[test]
    fn network_gets_burst_then_rate() {
        let rate = rate(10, 20, 1024);
        let now = 1_000_000_000;
        assert_eq!(passed(&rate, ipv4(1, 1), 50, now), 20);
        assert_eq!(passed(&rate, ipv4(1, 200), 50, now), 0, "the whole /24 shares");
        assert_eq!(passed(&rate, ipv4(2, 1), 50, now), 20, "another does not");
        assert_eq!(passed(&rate, ipv4(1, 1), 50, now + 99_000), 0);
        assert_eq!(passed(&rate, ipv4(1, 1), 50, now + 500_000), 5);
        assert_eq!(passed(&rate, ipv4(1, 1), 50, now + 60_000_000), 20, "no more is saved up");
        assert_eq!(passed(&rate, [127, 0, 0, 1].into(), 500, now), 500, "exempt");
    }

    #[test]
    fn ipv6_networks_are_56_bits_wide() {
        let rate = rate(10, 20, 1024);
        let passed = |address: &str| passed(&rate, address.parse().unwrap(), 50, 7);
        assert_eq!(passed("2001:db8:0:ff::1"), 20);
        assert_eq!(passed("2001:db8:0:1::1"), 0);
        assert_eq!(passed("2001:db8:0:100::1"), 20);
    }

    #[test]
    fn slot_clock_wraps_around() {
        let rate = rate(10, 20, 1024);
        let now = TIME_MASK - 50_000;
        assert_eq!(passed(&rate, ipv4(1, 1), 50, now), 20);
        assert_eq!(passed(&rate, ipv4(1, 1), 50, now + 500_000), 5);
        assert_eq!(passed(&rate, ipv4(1, 1), 50, now + (1 << TIME_BITS) / 2), 20);
    }

    #[test]
    fn full_table_evicts_one_network() {
        let rate = rate(1, 2, WAYS);
        let networks = 0..WAYS as u8;
        for network in networks.clone() {
            assert_eq!(passed(&rate, ipv4(network, 1), 9, 0), 2);
        }
        // The fifth network replaces one of them, and the limit applies to it too.
        assert_eq!(passed(&rate, ipv4(99, 1), 9, 0), 2);
        let refused = networks.filter(|network| !rate.allows(ipv4(*network, 1), 0)).count();
        assert_eq!(refused, WAYS - 1);
    }

    #[test]
    fn zero_rate_means_no_limit() {
        assert_eq!(passed(&rate(0, 1, WAYS), ipv4(1, 1), 1000, 0), 1000);
        // The highest rate is one answer per microsecond.
        assert_eq!(passed(&rate(1_000_000, 1, WAYS), ipv4(1, 1), 10, 0), 1);
    }
}
