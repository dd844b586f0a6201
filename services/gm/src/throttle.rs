//! How often somebody may try to sign in. Addresses and operators are limited apart: many operators may be tried
//! from one address no faster than few, and one operator from many addresses no faster than from one. Who signed in
//! from an address before is not held up there by what others try elsewhere, so nobody is locked out by a stranger.

use std::{
    collections::HashMap,
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// Attempts an address may make at once, and how often it gets another one.
const ADDRESS_BURST: u32 = 10;
const ADDRESS_REFILL: Duration = Duration::from_secs(6);
/// The same for an operator, over all addresses it never signed in from.
const OPERATOR_BURST: u32 = 5;
const OPERATOR_REFILL: Duration = Duration::from_secs(10);
/// Buckets remembered per table; full, the ones that are full again go first, then the oldest.
const MAX_ENTRIES: usize = 10_000;
/// How long a sign-in vouches for its address.
const TRUST_PERIOD: Duration = Duration::from_secs(30 * 24 * 3600);

#[derive(Default)]
pub(crate) struct Throttle {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    addresses: HashMap<IpAddr, Bucket>,
    operators: HashMap<String, Bucket>,
    trusted: HashMap<(String, IpAddr), Instant>,
}

impl Throttle {
    /// Counts an attempt.
    ///
    /// # Errors
    /// With how long to wait when there were too many.
    pub(crate) fn attempt(&self, operator: &str, address: IpAddr, now: Instant) -> Result<(), Duration> {
        let address = prefix(address);
        let inner = &mut *self.inner.lock();
        bucket(&mut inner.addresses, address, now).take(ADDRESS_BURST, ADDRESS_REFILL, now)?;
        let trusted = (operator.to_owned(), address);
        if inner.trusted.get(&trusted).is_some_and(|since| now.duration_since(*since) < TRUST_PERIOD) {
            return Ok(());
        }
        bucket(&mut inner.operators, trusted.0, now).take(OPERATOR_BURST, OPERATOR_REFILL, now)
    }

    /// The attempt was right: it does not count, and the address is familiar from now on.
    pub(crate) fn succeeded(&self, operator: &str, address: IpAddr, now: Instant) {
        let address = prefix(address);
        let inner = &mut *self.inner.lock();
        inner.addresses.remove(&address);
        inner.operators.remove(operator);
        if inner.trusted.len() >= MAX_ENTRIES {
            inner.trusted.retain(|_, since| now.duration_since(*since) < TRUST_PERIOD / 30);
        }
        if inner.trusted.len() < MAX_ENTRIES {
            inner.trusted.insert((operator.to_owned(), address), now);
        }
    }
}

/// IPv6 hosts have a whole /64 each (RFC 6177), so that is what is counted.
fn prefix(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address @ IpAddr::V4(_) => address,
    }
}

/// A token bucket by the time at which it will be full again.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    full_at: Instant,
}

impl Bucket {
    fn take(&mut self, burst: u32, refill: Duration, now: Instant) -> Result<(), Duration> {
        let after = self.full_at.max(now) + refill;
        let limit = now + refill * burst;
        if after > limit {
            return Err(after - limit);
        }
        self.full_at = after;
        Ok(())
    }
}

fn bucket<K: Eq + Hash + Clone>(buckets: &mut HashMap<K, Bucket>, key: K, now: Instant) -> &mut Bucket {
    if buckets.len() >= MAX_ENTRIES && !buckets.contains_key(&key) {
        buckets.retain(|_, bucket| bucket.full_at > now);
        if buckets.len() >= MAX_ENTRIES {
            let oldest = buckets.iter().min_by_key(|(_, bucket)| bucket.full_at).map(|(key, _)| key.clone());
            oldest.map(|key| buckets.remove(&key));
        }
    }
    buckets.entry(key).or_insert(Bucket { full_at: now })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        [198, 51, 100, last].into()
    }

    #[test]
    fn address_is_throttled_until_its_bucket_refills() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        let mut attempts =
            (0..ADDRESS_BURST).map(|number| throttle.attempt(&number.to_string(), address(1), now));
        assert!(attempts.all(|attempt| attempt.is_ok()));
        let wait = throttle.attempt("another", address(1), now).unwrap_err();
        assert_eq!(wait, ADDRESS_REFILL);
        assert!(throttle.attempt("another", address(1), now + wait).is_ok());
        assert!(throttle.attempt("another", address(2), now).is_ok());
    }

    #[test]
    fn operator_limit_over_many_addresses_spares_trusted_ones() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        throttle.succeeded("ann", address(200), now);
        let refused = (0..100).filter(|last| throttle.attempt("ann", address(*last), now).is_err()).count();
        assert_eq!(refused, 100 - OPERATOR_BURST as usize);
        assert!(throttle.attempt("ann", address(200), now).is_ok(), "her own address is familiar");
        assert!(throttle.attempt("ann", address(201), now + OPERATOR_REFILL).is_ok(), "others wait seconds");
    }

    #[test]
    fn ipv6_addresses_of_one_64_prefix_share_a_bucket() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        let host = |last: u16| IpAddr::from([0x2001, 0xdb8, 0, 7, 0, 0, 0, last]);
        for last in 0..10 {
            throttle.attempt(&last.to_string(), host(last), now).unwrap();
        }
        assert!(throttle.attempt("x", host(999), now).is_err());
    }

    #[test]
    fn throttle_tables_are_bounded() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        for number in 0..MAX_ENTRIES + 100 {
            let address = IpAddr::from([10, 0, (number >> 8) as u8, number as u8]);
            let _ = throttle.attempt(&format!("operator {number}"), address, now);
        }
        let inner = throttle.inner.lock();
        assert!(inner.addresses.len() <= MAX_ENTRIES && inner.operators.len() <= MAX_ENTRIES);
    }
}
