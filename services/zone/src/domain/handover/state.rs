//! A hand-over as two state machines, one in each zone. Exactly one zone owns an avatar, and the database decides
//! which one. A crash before the commit leaves the avatar at the source, a crash after it leaves the avatar at the
//! target.
//!
//! ```text
//! source:  Quiescing ──idle──▶ Offering ──accepted──▶ Transferring ──committed──▶ bind, settle, forget
//!              │                   │ refused               │ another owns it ──▶ settle(no), forget
//!              ▼                   ▼                       └ unknown ──▶ stays suspended, repeats the same call
//!         thaw (too long)        thaw
//! target:  offered ──settled──▶ enter      offered ──overdue──▶ load ──owned here──▶ enter and bind
//! ```

use shardkeep_types::Epoch;

/// The state of the source. In all of them the avatar moves, but begins nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// The source waits for the outcome of the avatar's hard actions.
    Quiescing,
    Offering,
    /// The source has asked the database. Only the answer ends this state.
    Transferring,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SourceEvent {
    /// No hard action of the avatar is pending.
    Idle,
    Accepted,
    /// The target refused or did not answer, or hard actions took too long. Nothing has changed.
    Refused,
    Committed(Epoch),
    /// In the database, another zone owns the avatar.
    Lost,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SourceStep {
    Offer,
    Transfer,
    /// The avatar continues at the source.
    Thaw,
    /// Binds the session to the target.
    Bind(Epoch),
    /// Tells the target the outcome.
    Settle {
        committed: bool,
    },
    /// The source removes the avatar.
    Forget,
}

impl Source {
    /// The state after an event (`None` when the hand-over is over), and the steps to take. Unexpected events change
    /// nothing.
    pub(crate) fn transition(self, event: SourceEvent) -> (Option<Self>, Vec<SourceStep>) {
        use SourceStep::{Bind, Forget, Offer, Settle, Thaw, Transfer};
        match (self, event) {
            (Self::Quiescing, SourceEvent::Idle) => (Some(Self::Offering), vec![Offer]),
            (Self::Quiescing, SourceEvent::Refused) => (None, vec![Thaw]),
            (Self::Offering, SourceEvent::Accepted) => (Some(Self::Transferring), vec![Transfer]),
            (Self::Offering, SourceEvent::Refused) => (None, vec![Thaw, Settle { committed: false }]),
            (Self::Transferring, SourceEvent::Committed(epoch)) => {
                (None, vec![Bind(epoch), Settle { committed: true }, Forget])
            }
            (Self::Transferring, SourceEvent::Lost) => (None, vec![Settle { committed: false }, Forget]),
            (state, _) => (Some(state), Vec::new()),
        }
    }
}

/// The ownership of an offered avatar in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ownership {
    /// The owner is this zone, in this incarnation.
    pub(crate) owned_here: bool,
    pub(crate) epoch: Epoch,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TargetEvent {
    Settled {
        committed: bool,
    },
    /// The settlement has not arrived in time.
    Overdue,
    Loaded(Ownership),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TargetStep {
    /// This zone owns the avatar with this epoch. `bind`: the source may have died before it bound the session.
    Enter { epoch: Epoch, bind: bool },
    /// Asks the database.
    Load,
    /// The hand-over may still be committed.
    Wait,
    /// The avatar never was this zone's, or is not any more.
    Drop,
}

/// The step of the target for an avatar offered with this epoch. Only the database makes the target the owner.
pub(crate) fn decide_target_step(offered: Epoch, event: TargetEvent) -> TargetStep {
    match event {
        TargetEvent::Settled { committed: true } => TargetStep::Enter { epoch: offered.next(), bind: false },
        TargetEvent::Settled { committed: false } => TargetStep::Drop,
        TargetEvent::Overdue => TargetStep::Load,
        TargetEvent::Loaded(Ownership { owned_here: true, epoch }) if epoch > offered => {
            TargetStep::Enter { epoch, bind: true }
        }
        TargetEvent::Loaded(Ownership { epoch, .. }) if epoch > offered => TargetStep::Drop,
        TargetEvent::Loaded(_) => TargetStep::Wait,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: Epoch = Epoch(4);

    /// A stand-in for the database: owner and epoch of the avatar.
    #[derive(Clone, Copy)]
    struct Row {
        at_target: bool,
        epoch: Epoch,
    }

    impl Row {
        fn new() -> Self {
            Self { at_target: false, epoch: BEFORE }
        }

        /// Idempotent, like `Transfer`.
        fn transfer(&mut self) -> SourceEvent {
            (self.at_target, self.epoch) = (true, BEFORE.next());
            SourceEvent::Committed(self.epoch)
        }

        fn load(self) -> TargetEvent {
            TargetEvent::Loaded(Ownership { owned_here: self.at_target, epoch: self.epoch })
        }
    }

    fn transferring() -> Source {
        let (state, steps) = Source::Quiescing.transition(SourceEvent::Idle);
        assert_eq!(steps, [SourceStep::Offer]);
        let (state, steps) = state.unwrap().transition(SourceEvent::Accepted);
        assert_eq!(steps, [SourceStep::Transfer]);
        state.unwrap()
    }

    #[test]
    fn committed_handover_binds_settles_and_enters() {
        let mut row = Row::new();
        let (state, steps) = transferring().transition(row.transfer());
        assert_eq!(state, None);
        let [SourceStep::Bind(epoch), SourceStep::Settle { committed: true }, SourceStep::Forget] = steps[..]
        else {
            panic!("{steps:?}");
        };
        let entered = decide_target_step(BEFORE, TargetEvent::Settled { committed: true });
        assert_eq!(entered, TargetStep::Enter { epoch, bind: false });
    }

    #[test]
    fn target_waits_when_source_dies_before_commit() {
        let row = Row::new();
        assert_eq!(decide_target_step(BEFORE, TargetEvent::Overdue), TargetStep::Load);
        assert_eq!(
            decide_target_step(BEFORE, row.load()),
            TargetStep::Wait,
            "the avatar is still the source's"
        );
        let elsewhere = TargetEvent::Loaded(Ownership { owned_here: false, epoch: Epoch(5) });
        assert_eq!(
            decide_target_step(BEFORE, elsewhere),
            TargetStep::Drop,
            "the world has given it to another zone"
        );
    }

    #[test]
    fn target_enters_when_source_dies_before_settle() {
        let mut row = Row::new();
        row.transfer();
        assert_eq!(decide_target_step(BEFORE, TargetEvent::Overdue), TargetStep::Load);
        assert_eq!(decide_target_step(BEFORE, row.load()), TargetStep::Enter { epoch: Epoch(5), bind: true });
    }

    #[test]
    fn unknown_transfer_outcome_is_awaited() {
        let mut row = Row::new();
        let state = transferring();
        row.transfer(); // its answer was lost
        for stray in [SourceEvent::Idle, SourceEvent::Accepted, SourceEvent::Refused] {
            assert_eq!(state.transition(stray), (Some(Source::Transferring), vec![]));
        }
        let (state, steps) = state.transition(row.transfer());
        assert_eq!((state, steps[0]), (None, SourceStep::Bind(Epoch(5))));
    }

    #[test]
    fn quiesce_timeout_thaws() {
        let (state, steps) = Source::Quiescing.transition(SourceEvent::Refused);
        assert_eq!((state, steps), (None, vec![SourceStep::Thaw]));
    }

    #[test]
    fn refused_offer_thaws_and_settles() {
        let (state, steps) = Source::Offering.transition(SourceEvent::Refused);
        assert_eq!((state, steps), (None, vec![SourceStep::Thaw, SourceStep::Settle { committed: false }]));
        assert_eq!(decide_target_step(BEFORE, TargetEvent::Settled { committed: false }), TargetStep::Drop);
    }

    #[test]
    fn source_that_lost_avatar_forgets_without_thaw() {
        let (state, steps) = transferring().transition(SourceEvent::Lost);
        assert_eq!(state, None);
        assert!(!steps.contains(&SourceStep::Thaw) && steps.contains(&SourceStep::Forget));
    }
}
