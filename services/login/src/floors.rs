//! The connections that go on after the welcome, by account: each hears when its generation has passed, and ends. Gateways
//! follow the same news for their sessions.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use shardkeep_store::accounts::revocations::Revocation;
use shardkeep_types::{AccountId, Generation};
use tokio::sync::watch;

/// Lowest generations that are still good, of the accounts that somebody watches. Bound: connections.
#[derive(Default)]
pub(crate) struct Floors(Mutex<HashMap<AccountId, watch::Sender<Generation>>>);

impl Floors {
    /// From now on nothing is missed. Ask for it before the generation is raised under which the connection goes on.
    pub(crate) fn watch(self: &Arc<Self>, account: AccountId) -> Floor {
        let mut watched = self.0.lock();
        let sender = watched.entry(account).or_insert_with(|| watch::Sender::new(Generation(0)));
        Floor { floors: self.clone(), account, floor: sender.subscribe() }
    }

    pub(crate) fn raise(&self, news: &[Revocation]) {
        let watched = self.0.lock();
        for Revocation { account, below, .. } in news {
            let Some(floor) = watched.get(account) else { continue };
            floor.send_if_modified(|floor| {
                let higher = *floor < *below;
                *floor = (*floor).max(*below);
                higher
            });
        }
    }
}

/// What one connection watches.
pub(crate) struct Floor {
    floors: Arc<Floors>,
    account: AccountId,
    floor: watch::Receiver<Generation>,
}

impl Floor {
    /// Waits until a higher generation than this one is known.
    pub(crate) async fn passes(&mut self, generation: Generation) {
        // There is a sender while anybody watches.
        let _ = self.floor.wait_for(|floor| *floor > generation).await;
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        let mut watched = self.floors.0.lock();
        // This one still counts.
        if watched.get(&self.account).is_some_and(|sender| sender.receiver_count() <= 1) {
            watched.remove(&self.account);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use shardkeep_store::accounts::Cause;

    use super::*;

    fn news(account: u64, below: u64) -> Revocation {
        let cause = Cause { code: 9, detail: String::new() };
        Revocation { account: AccountId(account), below: Generation(below), cause, at_ms: 0 }
    }

    #[test]
    fn who_is_below_hears_of_it_and_nobody_is_remembered() {
        let floors = Arc::new(Floors::default());
        let (mut before, mut after) = (floors.watch(AccountId(1)), floors.watch(AccountId(1)));
        let mut other = floors.watch(AccountId(2));
        floors.raise(&[news(1, 5), news(3, 9)]);
        floors.raise(&[news(1, 4)]);
        assert!(before.passes(Generation(4)).now_or_never().is_some());
        assert!(after.passes(Generation(5)).now_or_never().is_none(), "under the new one it goes on");
        assert!(other.passes(Generation(1)).now_or_never().is_none());
        drop(before);
        floors.raise(&[news(1, 6)]);
        assert!(after.passes(Generation(5)).now_or_never().is_some());
        drop((after, other));
        assert!(floors.0.lock().is_empty());
    }
}
