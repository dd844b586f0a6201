//! A bandwidth limit: a token bucket of bytes. Pieces reserve their turns in order of arrival. The whole state is the
//! instant from which the line is free.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How much unused time in the past may be used later.
const BURST: Duration = Duration::from_millis(250);

pub(crate) struct Throttle {
    /// Bytes per second; 0: no limit.
    rate: u64,
    next_free: Mutex<Option<Instant>>,
}

impl Throttle {
    pub(crate) fn new(rate: u64) -> Self {
        Self { rate, next_free: Mutex::new(None) }
    }

    /// Reserves bandwidth for `bytes`, and returns how long to wait before sending them. The reservation stands even if
    /// the caller gives up.
    pub(crate) fn reserve(&self, bytes: u32, now: Instant) -> Duration {
        if self.rate == 0 {
            return Duration::ZERO;
        }
        let takes = Duration::from_nanos(u64::from(bytes) * 1_000_000_000 / self.rate);
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        let mut next_free = self.next_free.lock();
        let begin = next_free.map_or(earliest, |next_free| next_free.max(earliest));
        *next_free = Some(begin + takes);
        begin.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reservations_queue_up_after_burst() {
        let (throttle, now) = (Throttle::new(100_000), Instant::now() + Duration::from_secs(1));
        // The burst of a quarter of a second is 25,000 bytes.
        assert_eq!(throttle.reserve(25_000, now), Duration::ZERO);
        assert_eq!(throttle.reserve(10_000, now), Duration::ZERO);
        assert_eq!(throttle.reserve(10_000, now), Duration::from_millis(100));
        assert_eq!(throttle.reserve(10_000, now), Duration::from_millis(200));
        assert_eq!(throttle.reserve(10_000, now + Duration::from_millis(250)), Duration::from_millis(50));
    }

    #[test]
    fn idle_time_beyond_burst_is_not_saved() {
        let (throttle, start) = (Throttle::new(1_000_000), Instant::now());
        let (mut now, mut sent) = (start + Duration::from_secs(60), 0u64);
        let end = now + Duration::from_secs(1);
        while now < end {
            now += throttle.reserve(50_000, now);
            sent += 50_000;
        }
        assert!((1_000_000..=1_350_000).contains(&sent), "{sent} in a second");
    }

    #[test]
    fn zero_rate_means_no_limit() {
        let (throttle, now) = (Throttle::new(0), Instant::now());
        assert!((0..1_000).all(|_| throttle.reserve(u32::MAX, now).is_zero()));
    }
}
