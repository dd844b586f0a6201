//! How often one may try to log in. The rules:
//!
//! * an address may begin so many logins;
//! * only *wrong passwords* count against an account: per address and account few and slowly, per address over all
//!   accounts more (against trying one password everywhere), per account over all addresses more and quickly again;
//! * the last of these spares addresses from which the account has logged in lately, so nobody elsewhere can lock a
//!   player out for long;
//! * a proof is charged before it is looked at and given back if it was right, so that parallel guesses do not slip
//!   through; accounts that do not exist are counted like those that do.

use std::{
    collections::HashMap,
    hash::Hash,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use shardkeep_auth::AccountName;

use crate::{LoginError, config, metrics};

/// Whom a limit counts: an IPv4 address, or the /64 that one IPv6 host can choose from freely.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Origin(IpAddr);

impl Origin {
    /// As 16 bytes, IPv4 mapped into IPv6.
    pub(crate) fn octets(self) -> [u8; 16] {
        match self.0 {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        }
    }

    pub(crate) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(v6) => Self(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into()),
            v4 => Self(v4),
        }
    }
}

/// Who shares the exponentiations fairly: what a provider hands out, a /24 of IPv4 or a /56 of IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Prefix(IpAddr);

impl Prefix {
    pub(crate) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(v6) => Self(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 72)).into()),
            IpAddr::V4(v4) => Self(Ipv4Addr::from_bits(v4.to_bits() & (u32::MAX << 8)).into()),
        }
    }
}

pub(crate) struct Limits {
    config: config::Limits,
    state: Mutex<State>,
}

struct State {
    attempts: Buckets<Origin>,
    failures: Buckets<(Origin, AccountName)>,
    of_address: Buckets<Origin>,
    of_account: Buckets<AccountName>,
    trusted: HashMap<(Origin, AccountName), Instant>,
}

impl Limits {
    pub(crate) fn new(config: config::Limits) -> Self {
        let keys = config.remembered;
        let state = State {
            attempts: Buckets::new(config.attempts, keys),
            failures: Buckets::new(config.failures, keys),
            of_address: Buckets::new(config.failures_of_address, keys),
            of_account: Buckets::new(config.failures_of_account, keys),
            trusted: HashMap::new(),
        };
        Self { config, state: Mutex::new(state) }
    }

    /// A login begins.
    pub(crate) fn begin(&self, origin: Origin, now: Instant) -> Result<(), LoginError> {
        self.state.lock().attempts.take(&origin, now).map_err(throttled("attempts"))
    }

    /// Whether the account has logged in from there lately.
    pub(crate) fn is_trusted(&self, origin: Origin, account: &AccountName, now: Instant) -> bool {
        self.state.lock().is_trusted(&(origin, account.clone()), now)
    }

    /// A proof came: it counts as wrong until [`Self::proved`] says otherwise.
    pub(crate) fn charge(
        &self,
        origin: Origin,
        account: &AccountName,
        now: Instant,
    ) -> Result<(), LoginError> {
        let mut state = self.state.lock();
        let key = (origin, account.clone());
        state.failures.take(&key, now).map_err(throttled("failures"))?;
        if let Err(wait) = state.of_address.take(&origin, now) {
            state.failures.give_back(&key);
            return Err(throttled("failures_of_address")(wait));
        }
        if state.is_trusted(&key, now) {
            return Ok(());
        }
        if let Err(wait) = state.of_account.take(account, now) {
            state.failures.give_back(&key);
            state.of_address.give_back(&origin);
            return Err(throttled("failures_of_account")(wait));
        }
        Ok(())
    }

    /// The proof charged last was right: the address is trusted for a while.
    pub(crate) fn proved(&self, origin: Origin, account: &AccountName, now: Instant) {
        self.spare(origin, account, now);
        let mut state = self.state.lock();
        let key = (origin, account.clone());
        if state.trusted.len() >= self.config.remembered {
            forget(&mut state.trusted, self.config.remembered, now);
        }
        state.trusted.insert(key, now + self.config.trust);
    }

    /// The proof charged last was not even looked at: it costs nothing.
    pub(crate) fn spare(&self, origin: Origin, account: &AccountName, now: Instant) {
        let mut state = self.state.lock();
        let key = (origin, account.clone());
        state.failures.give_back(&key);
        state.of_address.give_back(&origin);
        if !state.is_trusted(&key, now) {
            state.of_account.give_back(account);
        }
    }
}

impl State {
    fn is_trusted(&self, key: &(Origin, AccountName), now: Instant) -> bool {
        self.trusted.get(key).is_some_and(|until| *until > now)
    }
}

fn throttled(limit: &'static str) -> impl FnOnce(Duration) -> LoginError {
    move |wait| LoginError::Throttled { limit, wait }
}

/// Token buckets, each kept as the moment when it will be full again.
struct Buckets<K> {
    bucket: config::Bucket,
    bound: usize,
    full_at: HashMap<K, Instant>,
}

impl<K: Hash + Eq + Clone> Buckets<K> {
    fn new(bucket: config::Bucket, bound: usize) -> Self {
        Self { bucket, bound, full_at: HashMap::new() }
    }

    /// Takes a token, or says how long to wait for one.
    fn take(&mut self, key: &K, now: Instant) -> Result<(), Duration> {
        let config::Bucket { burst, every } = self.bucket;
        let before = self.full_at.get(key).map_or(now, |at| (*at).max(now));
        let full_at = before + every;
        let wait = (full_at - now).saturating_sub(every.saturating_mul(burst));
        if !wait.is_zero() {
            return Err(wait);
        }
        if !self.full_at.contains_key(key) && self.full_at.len() >= self.bound {
            forget(&mut self.full_at, self.bound, now);
        }
        self.full_at.insert(key.clone(), full_at);
        Ok(())
    }

    fn give_back(&mut self, key: &K) {
        if let Some(at) = self.full_at.get_mut(key) {
            *at = at.checked_sub(self.bucket.every).unwrap_or(*at);
        }
    }
}

/// Makes room: drops what is over, and if that is not enough the half that will be over first.
fn forget<K: Hash + Eq>(map: &mut HashMap<K, Instant>, bound: usize, now: Instant) {
    map.retain(|_, until| *until > now);
    if map.len() < bound {
        return;
    }
    let mut moments: Vec<Instant> = map.values().copied().collect();
    let middle = moments.len() / 2;
    let (_, middle, _) = moments.select_nth_unstable(middle);
    let (middle, before) = (*middle, map.len());
    map.retain(|_, until| *until > middle);
    metrics::limits_forgotten(before - map.len());
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
            remembered: 16,
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
    fn attempts_flow_again_after_a_while() {
        let (limits, now) = (limits(), Instant::now());
        assert!(limits.begin(origin(1), now).is_ok() && limits.begin(origin(1), now).is_ok());
        assert_eq!(limit(limits.begin(origin(1), now)), Some(("attempts", Duration::from_secs(1))));
        assert!(limits.begin(origin(2), now).is_ok());
        assert!(limits.begin(origin(1), now + Duration::from_secs(1)).is_ok());
    }

    #[test]
    fn only_failures_count() {
        let (limits, now) = (limits(), Instant::now());
        for _ in 0..50 {
            limits.charge(origin(1), &name("alice"), now).unwrap();
            limits.proved(origin(1), &name("alice"), now);
        }
        for _ in 0..3 {
            limits.charge(origin(1), &name("alice"), now).unwrap();
        }
        assert_eq!(
            limit(limits.charge(origin(1), &name("alice"), now)),
            Some(("failures", Duration::from_secs(10)))
        );
    }

    #[test]
    fn nobody_elsewhere_locks_a_player_out() {
        let (limits, now) = (limits(), Instant::now());
        limits.charge(origin(1), &name("alice"), now).unwrap();
        limits.proved(origin(1), &name("alice"), now);
        // A botnet guesses: the account's bucket empties.
        let refused = (2..200).find_map(|last| limit(limits.charge(origin(last), &name("alice"), now)));
        assert_eq!(refused, Some(("failures_of_account", Duration::from_secs(1))));
        // The player's own address goes on.
        limits.charge(origin(1), &name("alice"), now).unwrap();
        // And a new address of the player after a second.
        limits.charge(origin(250), &name("alice"), now + Duration::from_secs(1)).unwrap();
    }

    #[test]
    fn memory_is_bounded() {
        let (limits, now) = (limits(), Instant::now());
        for number in 0..1_000u16 {
            let account = name(&format!("account-{number}"));
            let origin = Origin::of([10, 1, (number >> 8) as u8, number as u8].into());
            limits.begin(origin, now).unwrap();
            limits.charge(origin, &account, now).unwrap();
            limits.proved(origin, &account, now);
        }
        let state = limits.state.lock();
        assert!(state.attempts.full_at.len() <= 16 && state.failures.full_at.len() <= 16);
        assert!(state.of_account.full_at.len() <= 16 && state.trusted.len() <= 16);
    }

    #[test]
    fn an_ipv6_host_is_one_origin() {
        let of = |text: &str| Origin::of(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8:0:2::1"));
        assert_eq!(of("::ffff:10.0.0.1"), origin(1));
    }

    #[test]
    fn a_prefix_is_what_a_provider_hands_out() {
        let of = |text: &str| Prefix::of(text.parse().unwrap());
        assert_eq!(of("10.0.0.1"), of("::ffff:10.0.0.255"));
        assert_ne!(of("10.0.0.1"), of("10.0.1.1"));
        assert_eq!(of("2001:db8:0:100::1"), of("2001:db8:0:1ff:ffff::1"));
        assert_ne!(of("2001:db8:0:100::1"), of("2001:db8:0:200::1"));
    }
}
