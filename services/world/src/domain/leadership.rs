//! This instance's view of the leadership, which the database grants by compare-and-set on its clock. The view always
//! ends before the lease does. A candidate takes and renews the lease.

use std::time::{Duration, Instant};

use shardkeep_types::Term;

/// The database's answer to a bid for the lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LeaseAnswer {
    Granted(Term),
    /// Name of the instance that holds the lease.
    HeldBy(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeadershipChange {
    /// A new term begins here, without knowledge of an earlier one.
    Gained(Term),
    /// The lease ended without renewal: issue nothing, but keep the state.
    Paused(Term),
    /// The lease was renewed after a pause, without another leader in between.
    Resumed(Term),
    /// Another instance leads.
    Lost(Term),
}

/// Starts as a standby.
#[derive(Debug, Default)]
pub(crate) struct Leadership {
    /// The term and the end of its lease.
    lease: Option<(Term, Instant)>,
    /// The lease has ended without renewal.
    paused: bool,
    holder: String,
}

impl Leadership {
    /// Applies the answer to a bid that was sent at `sent_at` for a lease of `ttl`. The database's lease starts later
    /// than `sent_at`, and a fifth of it is a margin, so this view ends first.
    pub(crate) fn apply_answer(
        &mut self,
        sent_at: Instant,
        ttl: Duration,
        answer: LeaseAnswer,
    ) -> Option<LeadershipChange> {
        let before = self.lease.take().map(|(term, _)| term);
        let paused = std::mem::take(&mut self.paused);
        match answer {
            LeaseAnswer::HeldBy(holder) => {
                self.holder = holder;
                before.map(LeadershipChange::Lost)
            }
            LeaseAnswer::Granted(term) => {
                self.lease = Some((term, sent_at + ttl * 4 / 5));
                if before != Some(term) {
                    return Some(LeadershipChange::Gained(term));
                }
                paused.then_some(LeadershipChange::Resumed(term))
            }
        }
    }

    /// Call this several times per second: detects the end of the lease.
    pub(crate) fn tick(&mut self, now: Instant) -> Option<LeadershipChange> {
        let (term, until) = self.lease?;
        let ended = until <= now && !self.paused;
        self.paused |= ended;
        ended.then_some(LeadershipChange::Paused(term))
    }

    /// The term under which commands may be issued now.
    pub(crate) fn term(&self, now: Instant) -> Option<Term> {
        self.lease.filter(|&(_, until)| now < until).map(|(term, _)| term)
    }

    /// The term and the end of its lease, which is in the past during a pause.
    pub(crate) fn lease(&self) -> Option<(Term, Instant)> {
        self.lease
    }

    /// Whether another instance leads, as far as this one knows. A standby answers no requests.
    pub(crate) fn is_standby(&self) -> bool {
        self.lease.is_none()
    }

    /// Of a standby: the name of the instance that holds the lease. Empty before the first answer.
    pub(crate) fn holder(&self) -> &str {
        &self.holder
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(5);

    fn granted(term: u64) -> LeaseAnswer {
        LeaseAnswer::Granted(Term(term))
    }

    fn denied() -> LeaseAnswer {
        LeaseAnswer::HeldBy("other".into())
    }

    #[test]
    fn leader_pauses_before_lease_end_and_resumes_on_renewal() {
        let start = Instant::now();
        let mut leadership = Leadership::default();
        assert_eq!(leadership.apply_answer(start, TTL, granted(3)), Some(LeadershipChange::Gained(Term(3))));
        assert_eq!(leadership.term(start + Duration::from_millis(3_999)), Some(Term(3)));
        assert_eq!(leadership.term(start + Duration::from_secs(4)), None);
        assert_eq!(leadership.tick(start + Duration::from_secs(4)), Some(LeadershipChange::Paused(Term(3))));
        assert!(!leadership.is_standby());
        let later = start + Duration::from_secs(60);
        assert_eq!(leadership.apply_answer(later, TTL, granted(3)), Some(LeadershipChange::Resumed(Term(3))));
        assert_eq!(leadership.term(later), Some(Term(3)));
    }

    #[test]
    fn renewal_in_time_changes_nothing() {
        let start = Instant::now();
        let mut leadership = Leadership::default();
        leadership.apply_answer(start, TTL, granted(1));
        let later = start + Duration::from_secs(1);
        assert_eq!(leadership.apply_answer(later, TTL, granted(1)), None);
        assert_eq!(leadership.tick(start + Duration::from_secs(4)), None);
    }

    #[test]
    fn pause_with_other_leader_ends_term() {
        let start = Instant::now();
        let mut leadership = Leadership::default();
        leadership.apply_answer(start, TTL, granted(1));
        leadership.tick(start + TTL);
        assert_eq!(
            leadership.apply_answer(start + TTL, TTL, denied()),
            Some(LeadershipChange::Lost(Term(1)))
        );
        assert!(leadership.is_standby());
        assert_eq!(leadership.holder(), "other");
        assert_eq!(
            leadership.apply_answer(start + TTL * 2, TTL, granted(3)),
            Some(LeadershipChange::Gained(Term(3)))
        );
    }

    #[test]
    fn higher_term_in_answer_starts_new_term() {
        let start = Instant::now();
        let mut leadership = Leadership::default();
        leadership.apply_answer(start, TTL, granted(1));
        assert_eq!(leadership.apply_answer(start, TTL, granted(5)), Some(LeadershipChange::Gained(Term(5))));
    }
}
