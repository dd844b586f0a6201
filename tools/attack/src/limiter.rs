//! Limits of an attack: attempts per second, attempts in all, end time, and share of the processor.

use std::{sync::Arc, time::Duration};

use rustix::time::{ClockId, clock_gettime};
use tokio::time::{Instant, sleep, sleep_until};

/// Processor time that may be ahead of the share, so that short bursts are not cut into pieces.
const BURST_ALLOWANCE: Duration = Duration::from_millis(20);

/// Most time that a delayed attack makes up for.
const CATCH_UP_LIMIT: Duration = Duration::from_millis(200);

/// Bounds the share of one core that this process uses. Attacks wait while the share is used up.
#[derive(Debug)]
pub struct CpuLimiter {
    share: f64,
    started: Instant,
    used_before: Duration,
}

impl CpuLimiter {
    /// `share` of one core, above 0.
    pub fn new(share: f64) -> Self {
        Self { share, started: Instant::now(), used_before: used() }
    }

    /// Mean share of one core used so far.
    pub fn mean(&self) -> f64 {
        let elapsed = self.started.elapsed().as_secs_f64();
        if elapsed > 0.0 { self.used().as_secs_f64() / elapsed } else { 0.0 }
    }

    fn used(&self) -> Duration {
        used().saturating_sub(self.used_before)
    }

    /// Waits until this process has not used more than its share, or until the end.
    pub async fn wait(&self, until: Instant) {
        loop {
            let pause = excess(self.used(), self.started.elapsed(), self.share);
            if pause.is_zero() {
                return;
            }
            sleep_until((Instant::now() + pause).min(until)).await;
            if Instant::now() >= until {
                return;
            }
        }
    }
}

/// How long to do nothing until what was used is the share again.
fn excess(used: Duration, elapsed: Duration, share: f64) -> Duration {
    let over = used.saturating_sub(elapsed.mul_f64(share) + BURST_ALLOWANCE);
    over.div_f64(share).min(Duration::from_secs(3_600))
}

/// Processor time of this process.
fn used() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Lets one attack go on, attempt by attempt.
#[derive(Debug)]
pub struct AttemptLimiter {
    gap: Duration,
    due: Instant,
    left: u64,
    until: Instant,
    cpu_limiter: Arc<CpuLimiter>,
}

impl AttemptLimiter {
    /// `rate` attempts a second, at most as many as that makes until `until`.
    pub fn new(rate: u32, until: Instant, cpu_limiter: Arc<CpuLimiter>) -> Self {
        let now = Instant::now();
        let seconds = until.saturating_duration_since(now).as_secs_f64().ceil();
        // A rate is at most some thousands a second, and the time minutes.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small and positive")]
        let left = (seconds * f64::from(rate)) as u64;
        Self { gap: Duration::from_secs(1) / rate.max(1), due: now, left, until, cpu_limiter }
    }

    /// Waits for the next attempt's turn; false: the attack is over.
    pub async fn next(&mut self) -> bool {
        if self.left == 0 {
            return false;
        }
        sleep_until(self.due.min(self.until)).await;
        self.cpu_limiter.wait(self.until).await;
        let now = Instant::now();
        if now >= self.until {
            return false;
        }
        self.due = (self.due + self.gap).max(now.checked_sub(CATCH_UP_LIMIT).unwrap_or(now));
        self.left -= 1;
        true
    }

    pub fn until(&self) -> Instant {
        self.until
    }

    /// Waits as long, or to the end of the attack. False: it is over.
    pub async fn pause(&self, time: Duration) -> bool {
        let left = self.until.saturating_duration_since(Instant::now());
        sleep(time.min(left)).await;
        time < left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_excess_pauses_until_share_is_met() {
        let second = Duration::from_secs(1);
        assert_eq!(excess(second / 2, second, 0.5), Duration::ZERO);
        assert_eq!(excess(second, second, 0.5), (second / 2 - BURST_ALLOWANCE) * 2);
        assert_eq!(excess(second, Duration::ZERO, 1.0), second - BURST_ALLOWANCE);
    }

    #[tokio::test(start_paused = true)]
    async fn limiter_bounds_count_rate_and_time() {
        let started = Instant::now();
        let mut limiter =
            AttemptLimiter::new(10, started + Duration::from_secs(2), Arc::new(CpuLimiter::new(1_000.0)));
        let mut attempts = 0;
        while limiter.next().await {
            attempts += 1;
        }
        assert_eq!(attempts, 20);
        assert!(started.elapsed() <= Duration::from_secs(2));
        assert!(!limiter.pause(Duration::from_secs(9)).await);
    }
}
