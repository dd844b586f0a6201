//! Rate limits of logins:
//!
//! * Each address may begin a number of logins.
//! * Only *wrong passwords* count against an account. The limit per address and account is the strictest. The limit per
//!   address over all accounts is higher, and stops a client that tries one password everywhere. The limit per account
//!   over all addresses is also higher, and recovers quickly.
//! * The last limit ignores addresses from which the account has logged in lately, so that attackers elsewhere cannot lock
//!   a player out.
//! * A proof is charged before it is checked, and refunded if it was right, so that parallel guesses cannot exceed a
//!   limit. Accounts that do not exist are counted in the same way.

use std::{
    collections::HashMap,
    hash::Hash,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use shardkeep_auth::AccountName;
use shardkeep_daemon::Origin;
use shardkeep_types::{KeyedLimiter, evict_expired};

use crate::{config, error::LoginError, metrics};

pub(crate) struct Limits {
    config: config::Limits,
    state: Mutex<State>,
}

struct State {
    attempts: KeyedLimiter<Origin>,
    failures: KeyedLimiter<(Origin, AccountName)>,
    address_failures: KeyedLimiter<Origin>,
    account_failures: KeyedLimiter<AccountName>,
    trusted: HashMap<(Origin, AccountName), Instant>,
}

impl Limits {
    pub(crate) fn new(config: config::Limits) -> Self {
        let keys = config.max_entries;
        let state = State {
            attempts: limiter(config.attempts, keys),
            failures: limiter(config.failures, keys),
            address_failures: limiter(config.failures_of_address, keys),
            account_failures: limiter(config.failures_of_account, keys),
            trusted: HashMap::new(),
        };
        Self { config, state: Mutex::new(state) }
    }

    /// Counts the begin of a login.
    pub(crate) fn begin(&self, origin: Origin, now: Instant) -> Result<(), LoginError> {
        let mut state = self.state.lock();
        let result = state.attempts.take(&origin, now).map_err(throttled("attempts"));
        state.count_evictions();
        result
    }

    /// Whether the account has logged in from this address lately.
    pub(crate) fn is_trusted(&self, origin: Origin, account: &AccountName, now: Instant) -> bool {
        self.state.lock().is_trusted(&(origin, account.clone()), now)
    }

    /// Counts a proof as wrong. [`Self::record_success`] corrects this; dropping the charge without
    /// [`Charge::settle`] does so too.
    pub(crate) fn charge(&self, origin: Origin, account: &AccountName) -> Result<Charge<'_>, LoginError> {
        self.take(origin, account, Instant::now())?;
        Ok(Charge { limits: self, origin, account: account.clone(), settled: false })
    }

    fn take(&self, origin: Origin, account: &AccountName, now: Instant) -> Result<(), LoginError> {
        let mut state = self.state.lock();
        state.count_evictions();
        let key = (origin, account.clone());
        state.failures.take(&key, now).map_err(throttled("failures"))?;
        if let Err(wait) = state.address_failures.take(&origin, now) {
            state.failures.refund(&key);
            return Err(throttled("failures_of_address")(wait));
        }
        if state.is_trusted(&key, now) {
            return Ok(());
        }
        if let Err(wait) = state.account_failures.take(account, now) {
            state.failures.refund(&key);
            state.address_failures.refund(&origin);
            return Err(throttled("failures_of_account")(wait));
        }
        Ok(())
    }

    /// Corrects the last charge after a right proof, and trusts the address for a while.
    pub(crate) fn record_success(&self, origin: Origin, account: &AccountName, now: Instant) {
        self.refund(origin, account, now);
        let mut state = self.state.lock();
        let key = (origin, account.clone());
        if state.trusted.len() >= self.config.max_entries {
            let evicted = evict_expired(&mut state.trusted, self.config.max_entries, now, |until| *until);
            metrics::limits_evicted(evicted);
        }
        state.trusted.insert(key, now + self.config.trust);
    }

    fn refund(&self, origin: Origin, account: &AccountName, now: Instant) {
        let mut state = self.state.lock();
        let key = (origin, account.clone());
        state.failures.refund(&key);
        state.address_failures.refund(&origin);
        if !state.is_trusted(&key, now) {
            state.account_failures.refund(account);
        }
    }
}

impl State {
    fn count_evictions(&mut self) {
        let evicted = self.attempts.take_evicted()
            + self.failures.take_evicted()
            + self.address_failures.take_evicted()
            + self.account_failures.take_evicted();
        if evicted > 0 {
            metrics::limits_evicted(usize::try_from(evicted).unwrap_or(usize::MAX));
        }
    }

    fn is_trusted(&self, key: &(Origin, AccountName), now: Instant) -> bool {
        self.trusted.get(key).is_some_and(|until| *until > now)
    }
}

/// A proof that is being checked. Dropping it refunds the charge, because the pool refused the proof or the client
/// disconnected before it was checked.
pub(crate) struct Charge<'a> {
    limits: &'a Limits,
    origin: Origin,
    account: AccountName,
    settled: bool,
}

impl Charge<'_> {
    /// The proof was checked: the charge stands.
    pub(crate) fn settle(mut self) {
        self.settled = true;
    }
}

impl Drop for Charge<'_> {
    fn drop(&mut self) {
        if !self.settled {
            self.limits.refund(self.origin, &self.account, Instant::now());
        }
    }
}

fn throttled(limit: &'static str) -> impl FnOnce(Duration) -> LoginError {
    move |wait| LoginError::Throttled { limit, wait }
}

fn limiter<K: Hash + Eq + Clone>(bucket: config::Bucket, capacity: usize) -> KeyedLimiter<K> {
    KeyedLimiter::new(bucket.every, bucket.burst, capacity)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        let second = Duration::from_secs(1);
        Limits::new(config::Limits {
            attempts: config::Bucket::new(2, second),
            failures: config::Bucket::new(3, 10 * second),
            failures_of_address: config::Bucket::new(100, second),
            failures_of_account: config::Bucket::new(5, second),
            trust: 3600 * second,
            max_entries: 16,
        })
    }

    fn name(name: &str) -> AccountName {
        AccountName::normalise(name).unwrap()
    }

    fn origin(last: u8) -> Origin {
        Origin::of([10, 0, 0, last].into())
    }

    fn limit(result: Result<(), LoginError>) -> Option<(&'static str, Duration)> {
        match result {
            Ok(()) => None,
            Err(LoginError::Throttled { limit, wait }) => Some((limit, wait)),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn attempts_are_refilled_over_time() {
        let (limits, now) = (limits(), Instant::now());
        assert!(limits.begin(origin(1), now).is_ok() && limits.begin(origin(1), now).is_ok());
        assert_eq!(limit(limits.begin(origin(1), now)), Some(("attempts", Duration::from_secs(1))));
        assert!(limits.begin(origin(2), now).is_ok());
        assert!(limits.begin(origin(1), now + Duration::from_secs(1)).is_ok());
    }

    #[test]
    fn successful_logins_are_not_charged() {
        let (limits, now) = (limits(), Instant::now());
        for _ in 0..50 {
            limits.take(origin(1), &name("alice"), now).unwrap();
            limits.record_success(origin(1), &name("alice"), now);
        }
        for _ in 0..3 {
            limits.take(origin(1), &name("alice"), now).unwrap();
        }
        assert_eq!(
            limit(limits.take(origin(1), &name("alice"), now)),
            Some(("failures", Duration::from_secs(10)))
        );
    }

    #[test]
    fn guessing_elsewhere_does_not_lock_out_trusted_address() {
        let (limits, now) = (limits(), Instant::now());
        limits.take(origin(1), &name("alice"), now).unwrap();
        limits.record_success(origin(1), &name("alice"), now);
        // Guesses from many addresses empty the account's bucket.
        let refused = (2..200).find_map(|last| limit(limits.take(origin(last), &name("alice"), now)));
        assert_eq!(refused, Some(("failures_of_account", Duration::from_secs(1))));
        // The trusted address is not limited.
        limits.take(origin(1), &name("alice"), now).unwrap();
        // A new address of the player can log in after a second.
        limits.take(origin(250), &name("alice"), now + Duration::from_secs(1)).unwrap();
    }

    #[test]
    fn limits_evict_keys_above_bound() {
        let (limits, now) = (limits(), Instant::now());
        for number in 0..1_000u16 {
            let account = name(&format!("account-{number}"));
            let origin = Origin::of([10, 1, (number >> 8) as u8, number as u8].into());
            limits.begin(origin, now).unwrap();
            limits.take(origin, &account, now).unwrap();
            limits.record_success(origin, &account, now);
        }
        let state = limits.state.lock();
        assert!(state.attempts.len() <= 16 && state.failures.len() <= 16);
        assert!(state.account_failures.len() <= 16 && state.trusted.len() <= 16);
    }
}
