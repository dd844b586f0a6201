//! Accounts that changed at the centre and that nobody could read at the moment: a second factor without its key, a group
//! that only newer servers know. They are asked for again, and meanwhile keep no other account waiting.

use std::{collections::BTreeSet, time::Duration};

use shardkeep_types::AccountId;
use tokio::time::Instant;
use tracing::{debug, info};

use super::{CentralError, Centre, follow};
use crate::{LoginError, door::Door, metrics};

/// How often they are asked for.
const AGAIN: Duration = Duration::from_secs(5);
/// Overflow: further ones are counted, and asked for when a replica starts.
const MOST: usize = 256;

#[derive(Default)]
pub(super) struct LeftOut {
    accounts: BTreeSet<AccountId>,
    overflowed: bool,
    /// Everything else has been seen up to this version.
    seen: u64,
    due: Option<Instant>,
}

impl LeftOut {
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
            metrics::central_applied("left_out");
            if self.accounts.len() < MOST || self.accounts.contains(&account) {
                self.accounts.insert(account);
                // Another server may well be able to.
                self.due = None;
            } else {
                self.overflowed = true;
            }
        }
    }

    /// Asks for them, if it is time, and writes those that can be read.
    pub(super) async fn ask_again(&mut self, door: &Door, centre: &Centre) -> Result<(), LoginError> {
        if self.accounts.is_empty() || self.due.is_some_and(|due| Instant::now() < due) {
            return Ok(());
        }
        self.due = Some(Instant::now() + AGAIN);
        for id in self.accounts.clone() {
            match centre.activate(id).await {
                Ok(account) => {
                    follow::take(door, &account).await?;
                    self.accounts.remove(&id);
                    info!(account = %id, "an account that could not be read is as the centre has it again");
                }
                // No server that could read it is here: that keeps the others' changes waiting once, not for each.
                Err(error @ CentralError::Away(_)) => {
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
    fn what_is_left_out_is_bounded_and_holds_the_store_back() {
        let mut left_out = LeftOut::default();
        left_out.add(Vec::new(), 7);
        assert!(left_out.is_empty() && left_out.seen() == 0, "the store knows better");
        left_out.add(vec![AccountId(1)], 9);
        assert!(!left_out.is_empty() && left_out.seen() == 9);
        left_out.accounts.clear();
        assert!(left_out.is_empty());
        left_out.add((0..=MOST as u64).map(AccountId).collect(), 10);
        assert_eq!(left_out.accounts.len(), MOST);
        left_out.accounts.clear();
        assert!(!left_out.is_empty(), "one was never asked for");
    }
}
