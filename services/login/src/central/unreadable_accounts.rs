//! Accounts that changed at the centre and could not be read: a second factor without its key, or a group that only newer
//! servers know. They are requested again, and do not delay other accounts.

use std::{collections::BTreeSet, time::Duration};

use shardkeep_types::AccountId;
use tokio::time::Instant;

use crate::metrics;

const RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// Overflow: further accounts are counted, and requested when a replica starts.
const MAX_TRACKED: usize = 256;

#[derive(Default)]
pub(super) struct UnreadableAccounts {
    accounts: BTreeSet<AccountId>,
    overflowed: bool,
    /// Everything else was seen up to this version.
    seen: u64,
    due: Option<Instant>,
}

impl UnreadableAccounts {
    pub(super) fn is_empty(&self) -> bool {
        self.accounts.is_empty() && !self.overflowed
    }

    /// 0: up to the version in the store.
    pub(super) fn seen(&self) -> u64 {
        if self.is_empty() { 0 } else { self.seen }
    }

    /// Adds accounts. Everything else was seen up to this version.
    pub(super) fn add(&mut self, unreadable: Vec<AccountId>, seen: u64) {
        self.seen = seen;
        for account in unreadable {
            metrics::central_applied("unreadable");
            if self.accounts.len() < MAX_TRACKED || self.accounts.contains(&account) {
                self.accounts.insert(account);
                // Another server may be able to read it, so it is requested at once.
                self.due = None;
            } else {
                self.overflowed = true;
            }
        }
    }

    /// The accounts to request now. They are due again after a pause.
    pub(super) fn due(&mut self, now: Instant) -> Vec<AccountId> {
        if self.accounts.is_empty() || self.due.is_some_and(|due| now < due) {
            return Vec::new();
        }
        self.due = Some(now + RETRY_INTERVAL);
        self.accounts.iter().copied().collect()
    }

    pub(super) fn recovered(&mut self, account: AccountId) {
        self.accounts.remove(&account);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unreadable_accounts_are_bounded_and_hold_back_version() {
        let mut unreadable = UnreadableAccounts::default();
        unreadable.add(Vec::new(), 7);
        assert!(unreadable.is_empty() && unreadable.seen() == 0, "the store has the version");
        unreadable.add(vec![AccountId(1)], 9);
        assert!(!unreadable.is_empty() && unreadable.seen() == 9);
        unreadable.recovered(AccountId(1));
        assert!(unreadable.is_empty());
        unreadable.add((0..=MAX_TRACKED as u64).map(AccountId).collect(), 10);
        let due = unreadable.due(Instant::now());
        assert_eq!(due.len(), MAX_TRACKED);
        due.into_iter().for_each(|account| unreadable.recovered(account));
        assert!(!unreadable.is_empty(), "one account was not requested");
    }

    #[test]
    fn unreadable_account_is_due_again_after_a_pause() {
        let (mut unreadable, now) = (UnreadableAccounts::default(), Instant::now());
        unreadable.add(vec![AccountId(1)], 9);
        assert_eq!(unreadable.due(now), [AccountId(1)]);
        assert!(unreadable.due(now).is_empty());
        assert_eq!(unreadable.due(now + RETRY_INTERVAL), [AccountId(1)]);
    }
}
