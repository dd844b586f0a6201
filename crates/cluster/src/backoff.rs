//! Waiting times between attempts: exponential, with jitter so that many peers do not come back in step.

use std::time::Duration;

use shardkeep_daemon::random_u64;

/// Yields the waiting time before each next attempt. Call [`Self::reset`] after a success.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    limit: Duration,
    next: Duration,
}

impl Backoff {
    pub fn new(first: Duration, limit: Duration) -> Self {
        Self { first, limit, next: first }
    }

    /// The next waiting time: between half and all of a span that doubles up to the limit.
    pub fn next_delay(&mut self) -> Duration {
        self.delay(random_u64())
    }

    /// Sleeps for the next waiting time.
    pub async fn wait(&mut self) {
        tokio::time::sleep(self.next_delay()).await;
    }

    pub fn reset(&mut self) {
        self.next = self.first;
    }

    fn delay(&mut self, random: u64) -> Duration {
        let span = self.next;
        self.next = (span * 2).min(self.limit);
        let half = span / 2;
        let permille = u32::try_from(random % 1001).unwrap_or(0);
        half + half * permille / 1000
    }
}

impl Default for Backoff {
    /// 100 ms up to 2 s: for peers in the same cluster.
    fn default() -> Self {
        Self::new(Duration::from_millis(100), Duration::from_secs(2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_grows_to_limit_and_resets() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(300));
        let limit: Vec<u128> = (0..4).map(|_| backoff.delay(1000).as_millis()).collect();
        assert_eq!(limit, [100, 200, 300, 300]);
        assert_eq!(backoff.delay(0), Duration::from_millis(150));
        backoff.reset();
        assert_eq!(backoff.delay(0), Duration::from_millis(50));
    }
}
