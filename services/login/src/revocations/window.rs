//! From where each look at the store has to begin, by the database's clock. Looks overlap, because a statement's moment lies
//! before its commit; they go back where that is not enough: when it is not known what became of own logins, and when
//! the database's clock was set back, as after a failover. Looking at something twice is harmless.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// How far each look goes back behind the one before: a statement's moment may lie so long before its commit. What
/// takes longer is found when gateways say again what they hold.
pub(super) const OVERLAP_MS: u64 = 2_000;
/// For so long after logins of unknown outcome looks leave nothing out: a store may take its time with them.
const DOUBT: Duration = Duration::from_secs(60);
/// Doubts that arise within so long are one. So there are never more than a minute has of these.
const TOGETHER: Duration = Duration::from_secs(1);

/// Own logins of which it is not known who was let in.
#[derive(Default)]
pub(super) struct Doubts {
    /// The oldest first.
    open: VecDeque<Doubted>,
    /// The next look has to see everything since then.
    back_to: Option<Instant>,
}

struct Doubted {
    since: Instant,
    until: Instant,
}

impl Doubts {
    /// The statement that began then may have been carried out at any time since, or may still be.
    pub(super) fn add(&mut self, since: Instant, now: Instant) {
        self.go_back(since);
        let until = now + DOUBT;
        match self.open.back_mut().filter(|last| since < last.since + TOGETHER) {
            Some(last) => (last.since, last.until) = (last.since.min(since), until),
            None => self.open.push_back(Doubted { since, until }),
        }
    }

    /// Whether there are any; and since when the next look has to see everything. That is when a doubt arises, and once
    /// more when it ends.
    pub(super) fn take(&mut self, now: Instant) -> (bool, Option<Instant>) {
        while let Some(oldest) = self.open.pop_front_if(|oldest| oldest.until <= now) {
            self.go_back(oldest.since);
        }
        (!self.open.is_empty(), self.back_to.take())
    }

    fn go_back(&mut self, to: Instant) {
        self.back_to = Some(self.back_to.map_or(to, |already| already.min(to)));
    }
}

pub(super) struct Window {
    from_ms: u64,
    /// Looks leave nothing out, until they have caught up.
    wary: bool,
    asked: Instant,
    answered: Instant,
    /// The database's clock, between these two.
    now_ms: u64,
}

/// A look that was answered.
pub(super) struct Looked {
    pub(super) asked: Instant,
    pub(super) answered: Instant,
    /// The database's clock.
    pub(super) now_ms: u64,
    /// There is more than it could hold: up to where it came.
    pub(super) full_at_ms: Option<u64>,
}

impl Window {
    pub(super) fn new(asked: Instant, answered: Instant, now_ms: u64) -> Self {
        Self { from_ms: now_ms.saturating_sub(OVERLAP_MS), wary: false, asked, answered, now_ms }
    }

    pub(super) fn begin_ms(&self) -> u64 {
        self.from_ms
    }

    pub(super) fn is_wary(&self) -> bool {
        self.wary
    }

    /// The next look sees everything since then.
    pub(super) fn go_back(&mut self, to: Instant) {
        let ago = millis(self.answered.saturating_duration_since(to));
        self.from_ms = self.from_ms.min(self.now_ms.saturating_sub(ago).saturating_sub(OVERLAP_MS));
        self.wary = true;
    }

    /// Says how far the clock went back, at least, if it did.
    pub(super) fn looked(&mut self, look: &Looked) -> Option<Duration> {
        let behind = |since: Duration| (self.now_ms + millis(since)).saturating_sub(look.now_ms);
        let least = behind(look.asked.saturating_duration_since(self.answered));
        let most = behind(look.answered.saturating_duration_since(self.asked));
        // Going back for nothing costs little, but whoever always does so never comes to an end.
        let back = if look.full_at_ms.is_some() { least } else { most };
        self.from_ms = match look.full_at_ms {
            // What was written since the last look has the new clock's time.
            full_at_ms if back > OVERLAP_MS => {
                let since = self.now_ms.saturating_sub(back).saturating_sub(OVERLAP_MS);
                full_at_ms.map_or(since, |full| full.min(since))
            }
            // A full page must not be read again and again.
            Some(full_at_ms) => full_at_ms,
            None => self.from_ms.max(look.now_ms.saturating_sub(OVERLAP_MS)),
        };
        self.wary &= look.full_at_ms.is_some();
        (self.asked, self.answered, self.now_ms) = (look.asked, look.answered, look.now_ms);
        (least > OVERLAP_MS).then(|| Duration::from_millis(least))
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

    /// Answered at once.
    fn look(begin: Instant, at: u64, now_ms: u64) -> Looked {
        let asked = after(begin, at);
        Looked { asked, answered: asked, now_ms, full_at_ms: None }
    }

    fn window(begin: Instant) -> Window {
        Window::new(begin, begin, START_MS)
    }

    #[test]
    fn looks_overlap_and_full_pages_are_gone_on_with() {
        let begin = Instant::now();
        let mut window = window(begin);
        assert_eq!(window.looked(&look(begin, 200, START_MS + 200)), None);
        assert_eq!(window.begin_ms(), START_MS + 200 - OVERLAP_MS);
        let full = Looked { full_at_ms: Some(START_MS - 500), ..look(begin, 400, START_MS + 400) };
        window.looked(&full);
        assert_eq!(window.begin_ms(), START_MS - 500);
        // Nothing is lost while the store is away.
        window.looked(&look(begin, 60_000, START_MS + 60_000));
        assert_eq!(window.begin_ms(), START_MS + 60_000 - OVERLAP_MS);
    }

    #[test]
    fn a_doubt_goes_back_to_the_begin_of_the_call_when_it_arises_and_when_it_ends() {
        let begin = Instant::now();
        let (mut window, mut doubts) = (window(begin), Doubts::default());
        // Begun at 1 s; meanwhile looks go on; given up at 11 s.
        for at in (200..11_000).step_by(200) {
            assert_eq!(doubts.take(after(begin, at)), (false, None));
            window.looked(&look(begin, at, START_MS + at));
        }
        doubts.add(after(begin, 1_000), after(begin, 11_000));
        let (doubted, back_to) = doubts.take(after(begin, 11_000));
        assert!(doubted);
        window.go_back(back_to.unwrap());
        assert_eq!(window.begin_ms(), START_MS + 1_000 - OVERLAP_MS);
        assert!(window.is_wary());
        // Should that look fail, the next one sees as much.
        assert_eq!(doubts.take(after(begin, 11_200)), (true, None));
        assert_eq!(window.begin_ms(), START_MS + 1_000 - OVERLAP_MS);
        window.looked(&look(begin, 11_400, START_MS + 11_400));
        assert!(!window.is_wary() && window.begin_ms() == START_MS + 11_400 - OVERLAP_MS);
        let over = after(begin, 11_000) + DOUBT;
        assert_eq!(doubts.take(over), (false, Some(after(begin, 1_000))));
        assert_eq!(doubts.take(over), (false, None));
    }

    #[test]
    fn doubts_are_few_however_many_calls_fail() {
        let begin = Instant::now();
        let mut doubts = Doubts::default();
        for at in (0..600_000).step_by(10) {
            doubts.add(after(begin, at), after(begin, at + 5));
            doubts.take(after(begin, at + 5));
            assert!(doubts.open.len() <= 62);
        }
    }

    #[test]
    fn a_clock_that_goes_back_hides_nothing() {
        let begin = Instant::now();
        let mut window = window(begin);
        // The other server is 30 s behind; it took over after 5 s.
        let back = window.looked(&look(begin, 5_200, START_MS + 5_200 - 30_000));
        assert_eq!(back, Some(Duration::from_secs(30)));
        // What was written by the new clock since the last look is seen by the next.
        assert_eq!(window.begin_ms(), START_MS - 30_000 - OVERLAP_MS);
        assert_eq!(window.looked(&look(begin, 5_400, START_MS + 5_400 - 30_000)), None);
        assert_eq!(window.begin_ms(), START_MS + 5_400 - 30_000 - OVERLAP_MS);
    }

    #[test]
    fn slow_answers_are_no_clocks_that_go_back_and_full_pages_come_to_an_end() {
        let begin = Instant::now();
        let mut window = window(begin);
        let slow = |at: u64, full_at_ms| Looked {
            asked: after(begin, at),
            answered: after(begin, at + 4_000),
            now_ms: START_MS + at,
            full_at_ms,
        };
        assert_eq!(window.looked(&slow(200, Some(START_MS - 1_000))), None);
        assert_eq!(window.looked(&slow(4_400, Some(START_MS))), None);
        assert_eq!(window.begin_ms(), START_MS);
        for at in (8_600..100_000).step_by(4_200) {
            assert_eq!(window.looked(&slow(at, None)), None);
            assert!(window.begin_ms() + 20_000 > START_MS + at, "it keeps up");
        }
    }
}
