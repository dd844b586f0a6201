//! The connections at the world list, by account. Each is told when its generation has passed, and ends.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use shardkeep_store::accounts::revocations::Revocation;
use shardkeep_types::{AccountId, Generation};
use tokio::sync::watch;

/// The lowest valid generation of each watched account. Bound: one entry per connection.
#[derive(Default)]
pub(crate) struct GenerationWatchers(Mutex<HashMap<AccountId, watch::Sender<Generation>>>);

impl GenerationWatchers {
    /// Sees every revocation from now on. Call it before the connection's own generation is raised.
    pub(crate) fn watch(self: &Arc<Self>, account: AccountId) -> GenerationWatcher {
        let mut watched = self.0.lock();
        let sender = watched.entry(account).or_insert_with(|| watch::Sender::new(Generation(0)));
        GenerationWatcher { generation_watchers: self.clone(), account, floor: sender.subscribe() }
    }

    pub(crate) fn raise(&self, revoked: &[Revocation]) {
        let watched = self.0.lock();
        for Revocation { account, below, .. } in revoked {
            let Some(floor) = watched.get(account) else { continue };
            floor.send_if_modified(|floor| {
                let higher = *floor < *below;
                *floor = (*floor).max(*below);
                higher
            });
        }
    }
}

/// Watches one account for one connection.
pub(crate) struct GenerationWatcher {
    generation_watchers: Arc<GenerationWatchers>,
    account: AccountId,
    floor: watch::Receiver<Generation>,
}

impl GenerationWatcher {
    /// Waits until a higher generation than this one is known.
    pub(crate) async fn wait_above(&mut self, generation: Generation) {
        // The map keeps the sender while a watcher exists.
        let _ = self.floor.wait_for(|floor| *floor > generation).await;
    }
}

impl Drop for GenerationWatcher {
    fn drop(&mut self) {
        let mut watched = self.generation_watchers.0.lock();
        // The count includes this watcher.
        if watched.get(&self.account).is_some_and(|sender| sender.receiver_count() <= 1) {
            watched.remove(&self.account);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use shardkeep_store::accounts::RevocationCause;

    use super::*;

    fn revoked(account: u64, below: u64) -> Revocation {
        let cause = RevocationCause { code: 9, detail: String::new() };
        Revocation { account: AccountId(account), below: Generation(below), cause, at_ms: 0 }
    }

    #[test]
    fn raised_generation_wakes_watchers_and_frees_entries() {
        let generation_watchers = Arc::new(GenerationWatchers::default());
        let (mut before, mut after) =
            (generation_watchers.watch(AccountId(1)), generation_watchers.watch(AccountId(1)));
        let mut other = generation_watchers.watch(AccountId(2));
        generation_watchers.raise(&[revoked(1, 5), revoked(3, 9)]);
        generation_watchers.raise(&[revoked(1, 4)]);
        assert!(before.wait_above(Generation(4)).now_or_never().is_some());
        assert!(after.wait_above(Generation(5)).now_or_never().is_none(), "under the new one it goes on");
        assert!(other.wait_above(Generation(1)).now_or_never().is_none());
        drop(before);
        generation_watchers.raise(&[revoked(1, 6)]);
        assert!(after.wait_above(Generation(5)).now_or_never().is_some());
        drop((after, other));
        assert!(generation_watchers.0.lock().is_empty());
    }
}
