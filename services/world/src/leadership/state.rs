//! Who leads the world: a row in the database, taken by compare-and-set on the database's clock. This is the
//! holder's own view of it, which always ends before the row does.

use std::time::{Duration, Instant};

use shardkeep_types::Term;

/// What the database answered to "may I lead, for this long?".
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LeaseAnswer {
    pub(crate) leader: bool,
    pub(crate) term: Term,
    pub(crate) holder: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeadershipChange {
    /// A new term begins here: nothing of an earlier one is known.
    Gained(Term),
    /// The lease ran out unrenewed: issue nothing, forget nothing.
    Paused(Term),
    /// Renewed after a pause, and nobody led in between.
    Resumed(Term),
    /// Somebody else leads.
    Lost(Term),
}

/// Begins as a standby.
#[derive(Debug, Default)]
pub(crate) struct Leadership {
    state: State,
    holder: String,
}

#[derive(Debug, Default, Clone, Copy)]
enum State {
    #[default]
    Standby,
    Leading {
        term: Term,
        until: Instant,
    },
    Paused {
        term: Term,
        until: Instant,
    },
}

impl Leadership {
    /// Takes the answer to a question that was sent at `sent_at` for a lease of `ttl`. The database counts the lease
    /// from later than `sent_at`, and a fifth is kept as margin, so this view ends first.
    pub(crate) fn apply_answer(
        &mut self,
        sent_at: Instant,
        ttl: Duration,
        answer: &LeaseAnswer,
    ) -> Option<LeadershipChange> {
        self.holder.clone_from(&answer.holder);
        let before = self.state;
        if !answer.leader {
            self.state = State::Standby;
            return before.term().map(LeadershipChange::Lost);
        }
        self.state = State::Leading { term: answer.term, until: sent_at + ttl * 4 / 5 };
        match before {
            State::Leading { term, .. } if term == answer.term => None,
            State::Paused { term, .. } if term == answer.term => Some(LeadershipChange::Resumed(term)),
            _ => Some(LeadershipChange::Gained(answer.term)),
        }
    }

    /// To be called often: notices that the lease has run out.
    pub(crate) fn tick(&mut self, now: Instant) -> Option<LeadershipChange> {
        match self.state {
            State::Leading { term, until } if until <= now => {
                self.state = State::Paused { term, until };
                Some(LeadershipChange::Paused(term))
            }
            _ => None,
        }
    }

    /// The term under which commands may be issued at this moment, if any.
    pub(crate) fn term(&self, now: Instant) -> Option<Term> {
        match self.state {
            State::Leading { term, until } if now < until => Some(term),
            _ => None,
        }
    }

    /// The term held and the end of its lease, which lies in the past during a pause.
    pub(crate) fn lease(&self) -> Option<(Term, Instant)> {
        match self.state {
            State::Standby => None,
            State::Leading { term, until } | State::Paused { term, until } => Some((term, until)),
        }
    }

    /// Whether another instance leads, as far as this one knows: it answers nothing then.
    pub(crate) fn is_standby(&self) -> bool {
        matches!(self.state, State::Standby)
    }

    /// Name of the instance that holds the row; empty before the first answer.
    pub(crate) fn holder(&self) -> &str {
        &self.holder
    }
}

impl State {
    fn term(self) -> Option<Term> {
        match self {
            Self::Standby => None,
            Self::Leading { term, .. } | Self::Paused { term, .. } => Some(term),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(5);

    fn granted(term: u64) -> LeaseAnswer {
        LeaseAnswer { leader: true, term: Term(term), holder: "me".into() }
    }

    fn denied(term: u64) -> LeaseAnswer {
        LeaseAnswer { leader: false, term: Term(term), holder: "other".into() }
    }

    #[test]
    fn leader_pauses_before_lease_end_and_resumes_on_renewal() {
        let start = Instant::now();
        let mut leadership = Leadership::default();
        assert_eq!(leadership.apply_answer(start, TTL, &granted(3)), Some(LeadershipChange::Gained(Term(3))));
        assert_eq!(leadership.term(start + Duration::from_millis(3_999)), Some(Term(3)));
        assert_eq!(leadership.term(start + Duration::from_secs(4)), None);
        assert_eq!(leadership.tick(start + Duration::from_secs(4)), Some(LeadershipChange::Paused(Term(3))));
        assert!(!leadership.is_standby());
        let later = start + Duration::from_secs(60);
        assert_eq!(
            leadership.apply_answer(later, TTL, &granted(3)),
            Some(LeadershipChange::Resumed(Term(3)))
        );
        assert_eq!(leadership.term(later), Some(Term(3)));
    }

    #[test]
    fn renewal_in_time_changes_nothing() {
        let start = Instant::now();
        let mut leadership = Leadership::default();
        leadership.apply_answer(start, TTL, &granted(1));
        let later = start + Duration::from_secs(1);
        assert_eq!(leadership.apply_answer(later, TTL, &granted(1)), None);
        assert_eq!(leadership.tick(start + Duration::from_secs(4)), None);
    }

    #[test]
    fn pause_with_other_leader_ends_term() {
        let start = Instant::now();
        let mut leadership = Leadership::default();
        leadership.apply_answer(start, TTL, &granted(1));
        leadership.tick(start + TTL);
        assert_eq!(
            leadership.apply_answer(start + TTL, TTL, &denied(2)),
            Some(LeadershipChange::Lost(Term(1)))
        );
        assert!(leadership.is_standby());
        assert_eq!(leadership.holder(), "other");
        assert_eq!(
            leadership.apply_answer(start + TTL * 2, TTL, &granted(3)),
            Some(LeadershipChange::Gained(Term(3)))
        );
    }

    #[test]
    fn higher_term_in_answer_starts_new_term() {
        let start = Instant::now();
        let mut leadership = Leadership::default();
        leadership.apply_answer(start, TTL, &granted(1));
        assert_eq!(leadership.apply_answer(start, TTL, &granted(5)), Some(LeadershipChange::Gained(Term(5))));
    }
}
