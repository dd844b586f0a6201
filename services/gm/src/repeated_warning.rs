//! A warning that many requests can cause. It is logged at most once per interval, with the number of repetitions.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Limits how often one warning is logged.
pub(crate) struct RepeatedWarning {
    interval: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    logged: Option<Instant>,
    suppressed: u64,
}

impl RepeatedWarning {
    pub(crate) fn new(interval: Duration) -> Self {
        Self { interval, state: Mutex::default() }
    }

    /// Counts an occurrence. Returns `Some` when the caller must log the warning now, with the number of occurrences
    /// since the last logged one.
    pub(crate) fn occurred(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock();
        if state.logged.is_some_and(|logged| now.duration_since(logged) < self.interval) {
            state.suppressed += 1;
            return None;
        }
        state.logged = Some(now);
        Some(std::mem::take(&mut state.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_warning_is_logged_once_per_interval_with_a_count() {
        let warning = RepeatedWarning::new(Duration::from_secs(60));
        let start = Instant::now();
        let at = |seconds| warning.occurred(start + Duration::from_secs(seconds));
        assert_eq!(at(0), Some(0));
        assert_eq!((1..60).filter_map(at).count(), 0);
        assert_eq!(at(60), Some(59));
        assert_eq!(at(121), Some(0));
    }
}
