//! Delays between attempts to connect.

use std::time::Duration;

/// Delays that double from 100 ms to 3.2 s.
#[derive(Default)]
pub(super) struct Backoff(u32);

impl Backoff {
    pub(super) fn next(&mut self) -> Duration {
        let wait = Duration::from_millis(100 << self.0);
        self.0 = (self.0 + 1).min(5);
        wait
    }

    pub(super) fn reset(&mut self) {
        self.0 = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reconnect_delays_grow_to_limit_and_reset() {
        let mut backoff = Backoff::default();
        let waits: Vec<u128> = (0..7).map(|_| backoff.next().as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 3200]);
        backoff.reset();
        assert_eq!(backoff.next().as_millis(), 100);
    }
}
