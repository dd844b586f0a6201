//! How often operators may try to sign in. An attempt counts for its address and for its operator. An operator who
//! has signed in from an address before is limited there by the address alone, so a stranger cannot lock anyone out.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use shardkeep_daemon::Origin;
use shardkeep_types::KeyedLimiter;

/// Attempts per address at once, and the time after which one more is allowed.
const ADDRESS_BURST: u32 = 10;
const ADDRESS_INTERVAL: Duration = Duration::from_secs(6);
/// The same per operator, over all addresses from which the operator has never signed in.
const OPERATOR_BURST: u32 = 5;
const OPERATOR_INTERVAL: Duration = Duration::from_secs(10);
/// Bound of each table. `KeyedLimiter` states what is dropped when it is full.
const MAX_ENTRIES: usize = 10_000;
/// A sign-in makes its address trusted for this long.
const TRUST_PERIOD: Duration = Duration::from_secs(30 * 24 * 3600);

pub(crate) struct Throttle {
    inner: Mutex<Inner>,
}

struct Inner {
    addresses: KeyedLimiter<Origin>,
    links: KeyedLimiter<Origin>,
    operators: KeyedLimiter<String>,
    /// When an operator last signed in from an address. Bound: `MAX_ENTRIES`. When it is full, entries older than a
    /// day are dropped; if none is, the new one is not stored.
    trusted: HashMap<(String, Origin), Instant>,
}

impl Default for Throttle {
    fn default() -> Self {
        let by_address = || KeyedLimiter::new(ADDRESS_INTERVAL, ADDRESS_BURST, MAX_ENTRIES);
        let inner = Inner {
            addresses: by_address(),
            links: by_address(),
            operators: KeyedLimiter::new(OPERATOR_INTERVAL, OPERATOR_BURST, MAX_ENTRIES),
            trusted: HashMap::new(),
        };
        Self { inner: Mutex::new(inner) }
    }
}

impl Throttle {
    /// Counts an attempt with a password.
    ///
    /// # Errors
    /// The time to wait when there were too many.
    pub(crate) fn attempt_password(
        &self,
        operator: &str,
        address: IpAddr,
        now: Instant,
    ) -> Result<(), Duration> {
        let address = Origin::of(address);
        let inner = &mut *self.inner.lock();
        inner.addresses.take(&address, now)?;
        let key = (operator.to_owned(), address);
        if inner.trusted.get(&key).is_some_and(|since| now.duration_since(*since) < TRUST_PERIOD) {
            return Ok(());
        }
        inner.operators.take(&key.0, now)
    }

    /// Counts an attempt with a one-time link. A link cannot be guessed, so only its address counts: an attempt from
    /// elsewhere never delays it.
    ///
    /// # Errors
    /// The time to wait when there were too many.
    pub(crate) fn attempt_link(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        self.inner.lock().links.take(&Origin::of(address), now)
    }

    /// The password was right: earlier attempts no longer count, and the address is trusted from now on.
    pub(crate) fn password_accepted(&self, operator: &str, address: IpAddr, now: Instant) {
        let address = Origin::of(address);
        let inner = &mut *self.inner.lock();
        inner.addresses.forget(&address);
        inner.operators.forget(&operator.to_owned());
        if inner.trusted.len() >= MAX_ENTRIES {
            inner.trusted.retain(|_, since| now.duration_since(*since) < TRUST_PERIOD / 30);
        }
        if inner.trusted.len() < MAX_ENTRIES {
            inner.trusted.insert((operator.to_owned(), address), now);
        }
    }
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
            (0..ADDRESS_BURST).map(|number| throttle.attempt_password(&number.to_string(), address(1), now));
        assert!(attempts.all(|attempt| attempt.is_ok()));
        let wait = throttle.attempt_password("another", address(1), now).unwrap_err();
        assert_eq!(wait, ADDRESS_INTERVAL);
        assert!(throttle.attempt_password("another", address(1), now + wait).is_ok());
        assert!(throttle.attempt_password("another", address(2), now).is_ok());
    }

    #[test]
    fn operator_limit_over_many_addresses_spares_trusted_ones() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        throttle.password_accepted("ann", address(200), now);
        let attempt = |last, now| throttle.attempt_password("ann", address(last), now);
        let refused = (0..100).filter(|last| attempt(*last, now).is_err()).count();
        assert_eq!(refused, 100 - OPERATOR_BURST as usize);
        assert!(attempt(200, now).is_ok(), "her trusted address has no operator limit");
        assert!(attempt(201, now + OPERATOR_INTERVAL).is_ok(), "other addresses wait for seconds only");
    }

    #[test]
    fn link_attempts_of_one_address_do_not_delay_another_address() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        while throttle.attempt_link(address(1), now).is_ok() {}
        assert!(throttle.attempt_link(address(2), now).is_ok());
        assert!(throttle.attempt_password("ann", address(1), now).is_ok(), "links have their own limit");
    }
}
