//! How fast one session may talk: a token bucket.

use std::time::{Duration, Instant};

/// Lines per second, and at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    pub(crate) rate: u32,
    pub(crate) burst: u32,
}

#[derive(Debug)]
pub(crate) struct Bucket {
    /// When the bucket will be (or has been) full.
    full_at: Instant,
}

impl Bucket {
    pub(crate) fn full(now: Instant) -> Self {
        Self { full_at: now }
    }

    /// Takes one line's worth.
    ///
    /// # Errors
    /// With the time to wait, when there is none.
    pub(crate) fn take(&mut self, now: Instant, limit: Limit) -> Result<(), Duration> {
        let one = Duration::from_secs(1) / limit.rate;
        let full_at = self.full_at.max(now) + one;
        let most = now + one * limit.burst;
        if full_at > most {
            return Err(full_at - most);
        }
        self.full_at = full_at;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_rate() {
        let limit = Limit { rate: 2, burst: 3 };
        let start = Instant::now();
        let mut bucket = Bucket::full(start);
        for _ in 0..3 {
            assert_eq!(bucket.take(start, limit), Ok(()));
        }
        assert_eq!(bucket.take(start, limit), Err(Duration::from_millis(500)));
        let later = start + Duration::from_millis(500);
        assert_eq!(bucket.take(later, limit), Ok(()));
        assert!(bucket.take(later, limit).is_err());
        let much_later = start + Duration::from_secs(60);
        assert_eq!((0..9).filter(|_| bucket.take(much_later, limit).is_ok()).count(), 3);
    }
}
