//! Sessions that came since login was last asked whether they have been revoked.

use parking_lot::Mutex;
use shardkeep_types::{AccountId, Generation};

/// Most sessions that wait to be asked about. Overflow: all sessions are asked about again.
const MAX_UNCHECKED: usize = 20_000;

#[derive(Default)]
pub(crate) struct UncheckedSessions(Mutex<Unchecked>);

#[derive(Default)]
struct Unchecked {
    sessions: Vec<(AccountId, Generation)>,
    overflowed: bool,
}

impl UncheckedSessions {
    /// A session began here, or came from another gateway.
    pub(crate) fn add(&self, account: AccountId, generation: Generation) {
        let mut waiting = self.0.lock();
        if waiting.sessions.len() < MAX_UNCHECKED {
            waiting.sessions.push((account, generation));
        } else {
            waiting.overflowed = true;
        }
    }

    /// The sessions that came since the last call; `None`: there were too many to keep.
    pub(crate) fn take(&self) -> Option<Vec<(AccountId, Generation)>> {
        let Unchecked { sessions, overflowed } = std::mem::take(&mut *self.0.lock());
        (!overflowed).then_some(sessions)
    }
}
