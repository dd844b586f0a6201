//! The time window of each poll of the store, by the database's clock. Polls overlap, because the timestamp of a statement is
//! older than its commit, and because the database's clock may be set back, as after a failover. The window moves back
//! further when the outcome of own logins is unknown. Reading a revocation twice is harmless.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Overlap of two polls: the longest expected time between the timestamp of a statement and its commit. A commit that
/// takes longer is found when gateways list the sessions that they hold again.
pub(super) const OVERLAP_MS: u64 = 2_000;
/// How long polls include own logins after logins of unknown outcome, because the store may still commit them.
const UNCERTAIN_FOR: Duration = Duration::from_secs(60);
/// Uncertain periods that begin within this time are merged, which bounds their number.
const MERGE_WITHIN: Duration = Duration::from_secs(1);

/// Own logins of unknown outcome.
#[derive(Default)]
pub(super) struct UncertainLogins {
    /// In order of time.
    open: VecDeque<UncertainPeriod>,
    /// The next poll has to include everything since this time.
    rescan_from: Option<Instant>,
}

struct UncertainPeriod {
    since: Instant,
    until: Instant,
}

impl UncertainLogins {
    /// The statement that began at `since` may have been committed at any time since, or may still be.
    pub(super) fn add(&mut self, since: Instant, now: Instant) {
        self.rewind(since);
        let until = now + UNCERTAIN_FOR;
        match self.open.back_mut().filter(|last| since < last.since + MERGE_WITHIN) {
            Some(last) => (last.since, last.until) = (last.since.min(since), until),
            None => self.open.push_back(UncertainPeriod { since, until }),
        }
    }

    /// Whether there are uncertain logins, and the time since which the next poll has to include everything. There is such
    /// a time when a period begins, and once more when it ends.
    pub(super) fn take(&mut self, now: Instant) -> (bool, Option<Instant>) {
        while let Some(oldest) = self.open.pop_front_if(|oldest| oldest.until <= now) {
            self.rewind(oldest.since);
        }
        (!self.open.is_empty(), self.rescan_from.take())
    }

    fn rewind(&mut self, to: Instant) {
        self.rescan_from = Some(self.rescan_from.map_or(to, |already| already.min(to)));
    }
}

pub(super) struct Window {
    from_ms: u64,
    /// Polls include own logins until they have caught up.
    full_scan: bool,
    /// The last poll that read its window to the end.
    asked: Instant,
    answered: Instant,
    /// The database's clock between `asked` and `answered`.
    now_ms: u64,
}

/// The answer to a poll.
pub(super) struct PollResult {
    pub(super) asked: Instant,
    pub(super) answered: Instant,
    /// The database's clock.
    pub(super) now_ms: u64,
    /// The page was full: the time of its last revocation.
    pub(super) full_at_ms: Option<u64>,
}

impl Window {
    pub(super) fn new(asked: Instant, answered: Instant, now_ms: u64) -> Self {
        Self { from_ms: now_ms.saturating_sub(OVERLAP_MS), full_scan: false, asked, answered, now_ms }
    }

    pub(super) fn begin_ms(&self) -> u64 {
        self.from_ms
    }

    pub(super) fn is_full_scan(&self) -> bool {
        self.full_scan
    }

    /// The next poll includes everything since this time.
    pub(super) fn rewind(&mut self, to: Instant) {
        let ago = millis(self.answered.saturating_duration_since(to));
        self.from_ms = self.from_ms.min(self.now_ms.saturating_sub(ago).saturating_sub(OVERLAP_MS));
        self.full_scan = true;
    }

    /// Moves the window forward. Returns how far the database's clock was set back, at least, if it was.
    pub(super) fn record_poll(&mut self, poll: &PollResult) -> Option<Duration> {
        if let Some(full_at_ms) = poll.full_at_ms {
            // The next poll must not read the same full page again.
            self.from_ms = full_at_ms;
            return None;
        }
        let since = |from: Instant, to: Instant| millis(to.saturating_duration_since(from));
        // The time of the previous poll, by the present clock. If the clock was set back since then, in any number of
        // steps, no later revocation has an earlier timestamp.
        self.from_ms =
            poll.now_ms.saturating_sub(since(self.asked, poll.answered)).saturating_sub(OVERLAP_MS);
        let back = (self.now_ms + since(self.answered, poll.asked)).saturating_sub(poll.now_ms);
        self.full_scan = false;
        (self.asked, self.answered, self.now_ms) = (poll.asked, poll.answered, poll.now_ms);
        (back > OVERLAP_MS).then(|| Duration::from_millis(back))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START_MS: u64 = 1_700_000_000_000;

    fn after(begin: Instant, ms: u64) -> Instant {
        begin + Duration::from_millis(ms)
    }

    /// A poll that was answered at once.
    fn poll(begin: Instant, at: u64, now_ms: u64) -> PollResult {
        let asked = after(begin, at);
        PollResult { asked, answered: asked, now_ms, full_at_ms: None }
    }

    fn window(begin: Instant) -> Window {
        Window::new(begin, begin, START_MS)
    }

    #[test]
    fn polls_overlap_and_full_page_is_continued() {
        let begin = Instant::now();
        let mut window = window(begin);
        assert_eq!(window.record_poll(&poll(begin, 200, START_MS + 200)), None);
        assert_eq!(window.begin_ms(), START_MS - OVERLAP_MS);
        let full = PollResult { full_at_ms: Some(START_MS - 500), ..poll(begin, 400, START_MS + 400) };
        window.record_poll(&full);
        assert_eq!(window.begin_ms(), START_MS - 500);
        // No revocation is lost while the store does not answer.
        window.record_poll(&poll(begin, 60_000, START_MS + 60_000));
        assert_eq!(window.begin_ms(), START_MS + 200 - OVERLAP_MS);
        window.record_poll(&poll(begin, 60_200, START_MS + 60_200));
        assert_eq!(window.begin_ms(), START_MS + 60_000 - OVERLAP_MS);
    }

    #[test]
    fn uncertain_login_rewinds_window_at_start_and_end() {
        let begin = Instant::now();
        let (mut window, mut uncertain_logins) = (window(begin), UncertainLogins::default());
        // A login begins at 1 s and is given up at 11 s, and polls continue meanwhile.
        for at in (200..11_000).step_by(200) {
            assert_eq!(uncertain_logins.take(after(begin, at)), (false, None));
            window.record_poll(&poll(begin, at, START_MS + at));
        }
        uncertain_logins.add(after(begin, 1_000), after(begin, 11_000));
        let (has_uncertain, rescan_from) = uncertain_logins.take(after(begin, 11_000));
        assert!(has_uncertain);
        window.rewind(rescan_from.unwrap());
        assert_eq!(window.begin_ms(), START_MS + 1_000 - OVERLAP_MS);
        assert!(window.is_full_scan());
        // If that poll fails, the next one covers the same time.
        assert_eq!(uncertain_logins.take(after(begin, 11_200)), (true, None));
        assert_eq!(window.begin_ms(), START_MS + 1_000 - OVERLAP_MS);
        window.record_poll(&poll(begin, 11_400, START_MS + 11_400));
        assert!(!window.is_full_scan() && window.begin_ms() == START_MS + 10_800 - OVERLAP_MS);
        let over = after(begin, 11_000) + UNCERTAIN_FOR;
        assert_eq!(uncertain_logins.take(over), (false, Some(after(begin, 1_000))));
        assert_eq!(uncertain_logins.take(over), (false, None));
    }

    #[test]
    fn uncertain_periods_are_merged_and_bounded() {
        let begin = Instant::now();
        let mut uncertain_logins = UncertainLogins::default();
        for at in (0..600_000).step_by(10) {
            uncertain_logins.add(after(begin, at), after(begin, at + 5));
            uncertain_logins.take(after(begin, at + 5));
            assert!(uncertain_logins.open.len() <= 62);
        }
    }

    #[test]
    fn clock_set_back_rewinds_the_window() {
        let begin = Instant::now();
        let mut window = window(begin);
        // The clock of the other server is 30 s behind, and it takes over after 5 s.
        let back = window.record_poll(&poll(begin, 5_200, START_MS + 5_200 - 30_000));
        assert_eq!(back, Some(Duration::from_secs(30)));
        // The next poll finds revocations with timestamps of the new clock.
        assert_eq!(window.begin_ms(), START_MS - 30_000 - OVERLAP_MS);
        assert_eq!(window.record_poll(&poll(begin, 5_400, START_MS + 5_400 - 30_000)), None);
        assert_eq!(window.begin_ms(), START_MS + 5_200 - 30_000 - OVERLAP_MS);
    }

    #[test]
    fn clock_set_back_in_small_steps_rewinds_the_window() {
        let begin = Instant::now();
        let mut window = window(begin);
        window.record_poll(&poll(begin, 200, START_MS + 200));
        window.record_poll(&poll(begin, 400, START_MS + 400 - 1_500));
        window.record_poll(&poll(begin, 600, START_MS + 600 - 3_000));
        let recorded_ms = START_MS + 500 - 3_000;
        assert!(window.begin_ms() <= recorded_ms, "a revocation since the second step is found");
    }

    #[test]
    fn clock_set_back_during_slow_full_page_rewinds_the_window() {
        let begin = Instant::now();
        let mut window = window(begin);
        // The clock is 5 s behind when the statement ends.
        let full_at_ms = Some(START_MS + 100);
        let full = PollResult {
            answered: after(begin, 4_200),
            full_at_ms,
            ..poll(begin, 200, START_MS + 4_200 - 5_000)
        };
        window.record_poll(&full);
        window.record_poll(&poll(begin, 4_400, START_MS + 4_400 - 5_000));
        let recorded_ms = START_MS + 4_100 - 5_000;
        assert!(window.begin_ms() <= recorded_ms, "a revocation during the full page is found");
    }

    #[test]
    fn slow_full_pages_are_not_taken_for_clock_set_back() {
        let begin = Instant::now();
        let mut window = window(begin);
        let slow = |at: u64, full_at_ms| PollResult {
            asked: after(begin, at),
            answered: after(begin, at + 4_000),
            now_ms: START_MS + at,
            full_at_ms,
        };
        assert_eq!(window.record_poll(&slow(200, Some(START_MS - 1_000))), None);
        assert_eq!(window.record_poll(&slow(4_400, Some(START_MS))), None);
        assert_eq!(window.begin_ms(), START_MS);
        for at in (8_600..100_000).step_by(4_200) {
            assert_eq!(window.record_poll(&slow(at, None)), None);
            assert!(window.begin_ms() + 20_000 > START_MS + at, "the window moves forward");
        }
    }
}
