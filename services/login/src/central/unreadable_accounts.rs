//! Accounts that changed at the centre and that nobody could read at the moment: a second factor without its key, a group
//! that only newer servers know. They are asked for again, and meanwhile keep no other account waiting.

use std::{collections::BTreeSet, time::Duration};

use shardkeep_types::AccountId;
use tokio::time::Instant;
use tracing::{debug, info};

use super::{CentralAccounts, CentralError, follow};
use crate::{LoginError, context::LoginContext, metrics};

/// How often they are asked for.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// Overflow: further ones are counted, and asked for when a replica starts.
const MAX_TRACKED: usize = 256;

#[derive(Default)]
pub(super) struct UnreadableAccounts {
    accounts: BTreeSet<AccountId>,
    overflowed: bool,
    /// Everything else has been seen up to this version.
    seen: u64,
    due: Option<Instant>,
}

impl UnreadableAccounts {
    /// Whether nothing is.
    pub(super) fn is_empty(&self) -> bool {
        self.accounts.is_empty() && !self.overflowed
    }

    /// 0: up to where the store is.
    pub(super) fn seen(&self) -> u64 {
        if self.is_empty() { 0 } else { self.seen }
    }

    /// With these everything has been seen up to this version.
    pub(super) fn add(&mut self, unreadable: Vec<AccountId>, seen: u64) {
        self.seen = seen;
        for account in unreadable {
            metrics::central_applied("unreadable");
            if self.accounts.len() < MAX_TRACKED || self.accounts.contains(&account) {
                self.accounts.insert(account);
                // Another server may well be able to.
                self.due = None;
            } else {
                self.overflowed = true;
            }
        }
    }

    /// Asks for them, if it is time, and writes those that can be read.
    pub(super) async fn retry_due(
        &mut self,
        context: &LoginContext,
        central: &CentralAccounts,
    ) -> Result<(), LoginError> {
        if self.accounts.is_empty() || self.due.is_some_and(|due| Instant::now() < due) {
            return Ok(());
        }
        self.due = Some(Instant::now() + RETRY_INTERVAL);
        for id in self.accounts.clone() {
            match central.activate(id).await {
                Ok(account) => {
                    follow::write_account(context, &account).await?;
                    self.accounts.remove(&id);
                    info!(account = %id, "an account that could not be read is as the centre has it again");
                }
                // No server that could read it is here: that keeps the others' changes waiting once, not for each.
                Err(error @ CentralError::Unavailable(_)) => {
                    debug!(account = %id, %error, "still left out");
                    break;
                }
                Err(error) => debug!(account = %id, %error, "still left out"),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unreadable_accounts_are_bounded_and_hold_back_version() {
        let mut unreadable_accounts = UnreadableAccounts::default();
        unreadable_accounts.add(Vec::new(), 7);
        assert!(unreadable_accounts.is_empty() && unreadable_accounts.seen() == 0, "the store knows better");
        unreadable_accounts.add(vec![AccountId(1)], 9);
        assert!(!unreadable_accounts.is_empty() && unreadable_accounts.seen() == 9);
        unreadable_accounts.accounts.clear();
        assert!(unreadable_accounts.is_empty());
        unreadable_accounts.add((0..=MAX_TRACKED as u64).map(AccountId).collect(), 10);
        assert_eq!(unreadable_accounts.accounts.len(), MAX_TRACKED);
        unreadable_accounts.accounts.clear();
        assert!(!unreadable_accounts.is_empty(), "one was never asked for");
    }
}
