//! Rate limits: a token bucket, and a bounded table of buckets by key (an address, an account, an operator).

use std::{
    collections::HashMap,
    hash::Hash,
    time::{Duration, Instant},
};

/// A token bucket that stores only the time at which it is full again (the "generic cell rate algorithm").
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TokenBucket {
    full_at: Option<Instant>,
}

impl TokenBucket {
    /// Takes a token, or returns how long to wait for one. A rate of 0 never gives one.
    ///
    /// # Errors
    /// The time until the next token, when the bucket is empty.
    pub fn take(&mut self, per_second: u32, burst: u32, now: Instant) -> Result<(), Duration> {
        if per_second == 0 || burst == 0 {
            return Err(Duration::MAX);
        }
        self.take_every(Duration::from_nanos(1_000_000_000 / u64::from(per_second)), burst, now)
    }

    /// Like [`Self::take`], with one new token per `interval`.
    ///
    /// # Errors
    /// The time until the next token, when the bucket is empty.
    pub fn take_every(&mut self, interval: Duration, burst: u32, now: Instant) -> Result<(), Duration> {
        let full_at = self.full_at(now) + interval;
        let wait = (full_at - now).saturating_sub(interval.saturating_mul(burst));
        if !wait.is_zero() {
            return Err(wait);
        }
        self.full_at = Some(full_at);
        Ok(())
    }

    /// Returns the token taken last.
    pub fn refund(&mut self, interval: Duration) {
        self.full_at = self.full_at.and_then(|at| at.checked_sub(interval));
    }

    /// When the bucket is full again; `now` if it is full already.
    pub fn full_at(&self, now: Instant) -> Instant {
        self.full_at.map_or(now, |at| at.max(now))
    }
}

/// One token bucket per key, all with the same rate and burst.
///
/// Bound: `capacity` keys. Overflow: buckets that are full again are dropped, because they remember nothing. If none
/// is full, the half that is full soonest is dropped, and [`Self::take_evicted`] counts it: those keys start with a
/// full burst. The owner of the limiter keeps the metric.
#[derive(Debug)]
pub struct KeyedLimiter<K> {
    interval: Duration,
    burst: u32,
    capacity: usize,
    buckets: HashMap<K, TokenBucket>,
    evicted: u64,
}

impl<K: Hash + Eq + Clone> KeyedLimiter<K> {
    /// Gives each key `burst` tokens at once and one more per `interval`.
    pub fn new(interval: Duration, burst: u32, capacity: usize) -> Self {
        Self { interval, burst, capacity: capacity.max(2), buckets: HashMap::new(), evicted: 0 }
    }

    /// Takes a token of this key. A refused key is not stored.
    ///
    /// # Errors
    /// The time until the next token, when the bucket of the key is empty.
    pub fn take(&mut self, key: &K, now: Instant) -> Result<(), Duration> {
        if let Some(bucket) = self.buckets.get_mut(key) {
            return bucket.take_every(self.interval, self.burst, now);
        }
        let mut bucket = TokenBucket::default();
        bucket.take_every(self.interval, self.burst, now)?;
        if self.buckets.len() >= self.capacity {
            self.evict(now);
        }
        self.buckets.insert(key.clone(), bucket);
        Ok(())
    }

    /// Returns the token that this key took last.
    pub fn refund(&mut self, key: &K) {
        if let Some(bucket) = self.buckets.get_mut(key) {
            bucket.refund(self.interval);
        }
    }

    /// Gives this key a full bucket.
    pub fn forget(&mut self, key: &K) {
        self.buckets.remove(key);
    }

    /// Keys that are stored.
    pub fn len(&self) -> usize {
        self.buckets.len()
    }

    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// Buckets dropped before they were full, since the last call.
    pub fn take_evicted(&mut self) -> u64 {
        std::mem::take(&mut self.evicted)
    }

    fn evict(&mut self, now: Instant) {
        self.evicted +=
            evict_expired(&mut self.buckets, self.capacity, now, |bucket| bucket.full_at(now)) as u64;
    }
}

/// Makes room in a map whose values expire: drops expired values; if the map then still holds `capacity` values, drops
/// the half that expires soonest. Returns how many values were dropped before they expired.
pub fn evict_expired<K: Hash + Eq, V>(
    map: &mut HashMap<K, V>,
    capacity: usize,
    now: Instant,
    expires_at: impl Fn(&V) -> Instant,
) -> usize {
    map.retain(|_, value| expires_at(value) > now);
    if map.len() < capacity {
        return 0;
    }
    let mut expiries: Vec<Instant> = map.values().map(&expires_at).collect();
    let middle = expiries.len() / 2;
    let (_, middle, _) = expiries.select_nth_unstable(middle);
    let (middle, before) = (*middle, map.len());
    map.retain(|_, value| expires_at(value) > middle);
    before - map.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn token_bucket_allows_burst_then_rate() {
        let (mut bucket, start) = (TokenBucket::default(), Instant::now());
        for _ in 0..4 {
            bucket.take(2, 4, start).unwrap();
        }
        assert_eq!(bucket.take(2, 4, start), Err(Duration::from_millis(500)));
        bucket.take(2, 4, start + Duration::from_millis(500)).unwrap();
        assert!(bucket.take(2, 4, start + Duration::from_millis(999)).is_err());
        assert_eq!(TokenBucket::default().take(0, 4, start), Err(Duration::MAX));
        bucket.refund(Duration::from_millis(500));
        bucket.take_every(Duration::from_millis(500), 4, start + Duration::from_millis(500)).unwrap();
        assert_eq!(bucket.full_at(start), start + Duration::from_millis(2_500));
        assert_eq!(bucket.full_at(start + 9 * SECOND), start + 9 * SECOND);
    }

    #[test]
    fn keyed_limiter_limits_each_key_alone() {
        let (mut limiter, now) = (KeyedLimiter::new(SECOND, 2, 100), Instant::now());
        assert!(limiter.take(&"a", now).is_ok() && limiter.take(&"a", now).is_ok());
        assert_eq!(limiter.take(&"a", now), Err(SECOND));
        assert!(limiter.take(&"b", now).is_ok());
        limiter.refund(&"a");
        assert!(limiter.take(&"a", now).is_ok());
        limiter.forget(&"a");
        assert!(limiter.take(&"a", now).is_ok() && limiter.take(&"a", now).is_ok());
    }

    #[test]
    fn keyed_limiter_at_capacity_evicts_full_buckets_first() {
        let (mut limiter, now) = (KeyedLimiter::new(SECOND, 2, 4), Instant::now());
        for key in 0..4 {
            limiter.take(&key, now).unwrap();
        }
        limiter.take(&4, now + SECOND).unwrap();
        assert_eq!((limiter.len(), limiter.take_evicted()), (1, 0), "the others were full again");
        for key in 5..8 {
            limiter.take(&key, now + SECOND).unwrap();
        }
        limiter.take(&7, now + SECOND).unwrap();
        limiter.take(&8, now + SECOND).unwrap();
        assert_eq!(limiter.take(&7, now + SECOND), Err(SECOND), "the emptiest bucket is kept");
        assert_eq!(limiter.take_evicted(), 3);
        assert!(limiter.len() <= 4);
    }
}
