//! Rate limits for one client: a token bucket per kind of message, and a strike counter. The caller passes the time.
//! Neither allocates before its first use.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

pub use shardkeep_types::TokenBucket;

use crate::opcode::{Bucket, Rule, Violation};

/// Number of strikes that closes a connection, and the time window that counts them.
pub const STRIKES: usize = 16;
pub const STRIKE_WINDOW: Duration = Duration::from_secs(10);

/// Token buckets of one connection or session, one per bucket of the opcode table.
#[derive(Debug, Clone, Default)]
pub struct Limiter {
    buckets: [TokenBucket; Bucket::COUNT],
}

impl Limiter {
    pub fn allow(&mut self, rule: &Rule, now: Instant) -> Result<(), Violation> {
        let Some(rate) = rule.rate else { return Ok(()) };
        self.buckets[rate.bucket as usize]
            .take(rate.per_second, rate.burst, now)
            .map_err(|retry_after| Violation::TooFast { name: rule.name, retry_after })
    }
}

/// Counts strikes in a sliding window.
#[derive(Debug, Clone, Default)]
pub struct Strikes {
    at: VecDeque<Instant>,
    total: u64,
}

impl Strikes {
    /// Adds a strike. Returns true if the limit is exceeded.
    pub fn add(&mut self, now: Instant) -> bool {
        self.total += 1;
        while self.at.front().is_some_and(|first| now.saturating_duration_since(*first) >= STRIKE_WINDOW) {
            self.at.pop_front();
        }
        self.at.push_back(now);
        self.at.len() >= STRIKES
    }

    /// Total number of strikes, including those outside the window.
    pub fn total(&self) -> u64 {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::opcode;

    #[test]
    fn zone_actions_share_a_bucket_without_moves() {
        let (mut limiter, now) = (Limiter::default(), Instant::now());
        let rule = |opcode| opcode::lookup(opcode).unwrap();
        for _ in 0..80 {
            limiter.allow(rule(opcode::PICK_UP), now).unwrap();
        }
        let error = limiter.allow(rule(opcode::DROP), now).unwrap_err();
        assert_eq!(error, Violation::TooFast { name: "Drop", retry_after: Duration::from_millis(25) });
        limiter.allow(rule(opcode::MOVE), now).unwrap();
    }

    #[test]
    fn strikes_expire_after_window() {
        let (mut strikes, start) = (Strikes::default(), Instant::now());
        for n in 1..STRIKES {
            assert!(!strikes.add(start + Duration::from_millis(n as u64)));
        }
        assert!(!strikes.add(start + STRIKE_WINDOW + Duration::from_millis(1)));
        assert!(strikes.add(start + STRIKE_WINDOW + Duration::from_millis(1)));
        assert_eq!(strikes.total(), 17);
    }

    proptest! {
        #[test]
        fn token_bucket_never_exceeds_burst_plus_rate(
            gaps in proptest::collection::vec(0u64..200, 1..300),
            per_second in 1u32..50,
            burst in 1u32..20,
        ) {
            let (mut bucket, start) = (TokenBucket::default(), Instant::now());
            let (mut elapsed, mut taken) = (Duration::ZERO, 0u64);
            for gap in gaps {
                elapsed += Duration::from_millis(gap);
                taken += u64::from(bucket.take(per_second, burst, start + elapsed).is_ok());
            }
            let allowed = elapsed.as_secs_f64() * f64::from(per_second) + f64::from(burst);
            prop_assert!(taken as f64 <= allowed + 1e-3);
        }
    }
}
