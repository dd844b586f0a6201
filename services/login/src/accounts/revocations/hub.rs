//! Passes revocations to the followers of this replica, each once.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use shardkeep_store::accounts::{
    AccountGeneration, RevocationCause, logins::Process, revocations::Revocation,
};
use shardkeep_types::{AccountId, Generation};
use tokio::sync::broadcast;

use crate::{
    accounts::revocations::{
        watchers::GenerationWatchers,
        window::{OVERLAP_MS, UncertainLogins, Window},
    },
    metrics,
};

/// Lists that wait for the slowest follower. Overflow: that follower is disconnected and counted; it connects again and
/// says which sessions it holds.
const BACKLOG: usize = 256;

pub(crate) type RevocationBatch = Arc<Vec<Revocation>>;

pub(crate) struct Revocations {
    followers: broadcast::Sender<RevocationBatch>,
    /// The connections to this replica.
    watchers: Arc<GenerationWatchers>,
    /// Recently published revocations, because polls overlap.
    recent: Mutex<RecentRevocations>,
    /// Polls leave out the logins of this process, which are published when they happen.
    process: Process,
    uncertain_logins: Mutex<UncertainLogins>,
}

/// Guards a statement that logs accounts in. Unless it is resolved, polls find out which logins succeeded.
pub(crate) struct LoginGuard<'a> {
    revocations: &'a Revocations,
    since: Instant,
}

impl LoginGuard<'_> {
    /// The outcome of the logins is known and published.
    pub(crate) fn resolved(self) {
        std::mem::forget(self);
    }
}

impl Drop for LoginGuard<'_> {
    fn drop(&mut self) {
        self.revocations.uncertain_logins.lock().add(self.since, Instant::now());
    }
}

impl Revocations {
    pub(crate) fn new(process: Process) -> Self {
        Self {
            followers: broadcast::Sender::new(BACKLOG),
            watchers: Arc::default(),
            recent: Mutex::default(),
            process,
            uncertain_logins: Mutex::default(),
        }
    }

    pub(crate) fn watchers(&self) -> &Arc<GenerationWatchers> {
        &self.watchers
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<RevocationBatch> {
        self.followers.subscribe()
    }

    /// Create the guard before the statement begins.
    pub(crate) fn login_guard(&self) -> LoginGuard<'_> {
        LoginGuard { revocations: self, since: Instant::now() }
    }

    /// The process whose logins the next poll can leave out. Moves the window back where that is necessary.
    pub(super) fn excluded_process(&self, window: &mut Window, now: Instant) -> Process {
        let (has_uncertain, rescan_from) = self.uncertain_logins.lock().take(now);
        if let Some(rescan_from) = rescan_from {
            window.rewind(rescan_from);
        }
        if has_uncertain || window.is_full_scan() { Process::NONE } else { self.process }
    }

    /// Publishes generations that this replica raised, without waiting for the next poll. No gateway is called for this:
    /// worlds refuse the old generations until the followers have the news.
    pub(crate) fn notify_followers(
        &self,
        raised: impl IntoIterator<Item = AccountGeneration>,
        cause: &RevocationCause,
    ) {
        let revocation = |AccountGeneration { id, generation }| Revocation {
            account: id,
            below: generation,
            cause: cause.clone(),
            at_ms: 0,
        };
        self.publish(raised.into_iter().map(revocation).collect(), Instant::now());
    }

    pub(super) fn publish(&self, mut found: Vec<Revocation>, now: Instant) {
        self.recent.lock().retain_new(&mut found, now);
        if !found.is_empty() {
            metrics::revocations(found.len());
            self.watchers.raise(&found);
            // There may be no follower; a new one says which sessions it holds.
            let _ = self.followers.send(Arc::new(found));
        }
    }
}

#[derive(Default)]
struct RecentRevocations {
    below: HashMap<AccountId, (Generation, Instant)>,
    last_sweep: Option<Instant>,
}

impl RecentRevocations {
    /// Remembers the new revocations in `found`, and removes the others from it.
    fn retain_new(&mut self, found: &mut Vec<Revocation>, now: Instant) {
        let kept = Duration::from_millis(2 * OVERLAP_MS);
        // One sweep serves many logins.
        if self.last_sweep.is_none_or(|at| now.saturating_duration_since(at) >= kept) {
            self.below.retain(|_, (_, at)| now.saturating_duration_since(*at) < kept);
            self.last_sweep = Some(now);
        }
        found.retain(|new| match self.below.get_mut(&new.account) {
            // Before a quiet time, every poll finds the last revocations again: they stay as long as they are found.
            Some((below, at)) if *below >= new.below => {
                *at = now;
                false
            }
            _ => {
                self.below.insert(new.account, (new.below, now));
                true
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::revocations::window::PollResult;

    #[test]
    fn logins_of_unknown_outcome_are_polled_for() {
        let ours = Process::new([1; 8]);
        let (revocations, now) = (Revocations::new(ours), Instant::now());
        let mut window = Window::new(now, now, 1_000_000);
        revocations.login_guard().resolved();
        assert_eq!(revocations.excluded_process(&mut window, now), ours);
        drop(revocations.login_guard());
        assert_eq!(revocations.excluded_process(&mut window, now), Process::NONE);
        let later = now + Duration::from_secs(3_600);
        assert_eq!(revocations.excluded_process(&mut window, later), Process::NONE, "one more full poll");
        window.record_poll(&PollResult {
            asked: later,
            answered: later,
            now_ms: 4_600_000,
            full_at_ms: None,
        });
        assert_eq!(revocations.excluded_process(&mut window, later), ours, "the doubt is over");
    }

    #[test]
    fn revocation_is_published_once_per_generation() {
        let (revocations, now) = (Revocations::new(Process::new([1; 8])), Instant::now());
        let mut follower = revocations.subscribe();
        let of = |account, below| Revocation {
            account: AccountId(account),
            below: Generation(below),
            cause: RevocationCause { code: 9, detail: String::new() },
            at_ms: 0,
        };
        revocations.publish(vec![of(1, 2), of(2, 5)], now);
        revocations.publish(vec![of(1, 2), of(2, 6), of(1, 1)], now);
        revocations.publish(vec![of(2, 6)], now);
        assert_eq!(*follower.try_recv().unwrap(), [of(1, 2), of(2, 5)]);
        assert_eq!(*follower.try_recv().unwrap(), [of(2, 6)]);
        assert!(follower.try_recv().is_err());
        for second in 1..20 {
            revocations.publish(vec![of(2, 6)], now + Duration::from_secs(second));
        }
        assert!(follower.try_recv().is_err(), "every poll finds it, and it is published once");
        revocations.publish(vec![of(1, 2)], now + Duration::from_secs(60));
        assert_eq!(revocations.recent.lock().below.len(), 1, "old revocations are forgotten");
    }
}
