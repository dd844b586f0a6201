//! The groups of accounts that do not exist: spread like those of the accounts that do, so that a group tells nothing.
//! As the accounts move to a longer group, so do some of these; each gets a new salt with it, as if its password had
//! been changed.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use shardkeep_auth::{
    AccountName, Key,
    srp::{Group, Verifier},
};
use shardkeep_store::accounts;
use tokio_util::sync::CancellationToken;

use crate::{LoginError, context::LoginContext};

/// How often the accounts are counted.
const COUNT_INTERVAL: Duration = Duration::from_secs(600);
/// The same after it failed.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// Of 256 accounts, so many have a group of at least 3072 bits (high half) and of 4096 (low half).
#[derive(Default)]
pub(crate) struct Groups(AtomicU32);

impl Groups {
    /// Stands in for an account that does not exist.
    pub(crate) fn decoy(&self, account: AccountName, seed: &Key) -> Verifier {
        let shares = self.0.load(Ordering::Relaxed);
        let (longer, longest) = (shares >> 16, shares & 0xffff);
        let place = u32::from(Verifier::decoy_bucket(&account, seed));
        let group = if place < longest {
            Group::Bits4096
        } else if place < longer {
            Group::Bits3072
        } else {
            Group::Bits2048
        };
        Verifier::decoy(group, account, seed)
    }

    pub(crate) fn set_counts(&self, counts: &[(u32, u64)]) {
        let total = counts.iter().map(|(_, count)| count).sum::<u64>().max(1);
        let share = |least: u32| {
            let count =
                counts.iter().filter(|(group, _)| *group >= least).map(|(_, count)| count).sum::<u64>();
            u32::try_from(u128::from(count) * 256 / u128::from(total)).unwrap_or(256)
        };
        self.0.store(share(3072) << 16 | share(4096), Ordering::Relaxed);
    }

    /// Counts the accounts from time to time, until told to stop.
    pub(crate) async fn follow(&self, context: &LoginContext, stop: CancellationToken) -> anyhow::Result<()> {
        loop {
            let pause = match count(context).await {
                Ok(counts) => {
                    self.set_counts(&counts);
                    COUNT_INTERVAL
                }
                Err(error) => {
                    tracing::warn!(%error, "the groups of the accounts are not counted");
                    RETRY_INTERVAL
                }
            };
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return Ok(());
            }
        }
    }
}

/// Of all accounts that a name here may be of.
async fn count(context: &LoginContext) -> Result<Vec<(u32, u64)>, LoginError> {
    match &context.central {
        Some(central) => Ok(central.groups().await?),
        None => Ok(accounts::groups(&context.database).await?),
    }
}

#[cfg(test)]
mod tests {
    use shardkeep_types::Secret;

    use super::*;

    #[test]
    fn decoy_groups_follow_distribution_of_accounts() {
        let (groups, seed) = (Groups::default(), Secret::new([5; 32]));
        let sample = |counts: &[(u32, u64)]| {
            groups.set_counts(counts);
            let names = (0..600).map(|number| AccountName::normalise(&format!("nobody{number}")).unwrap());
            names.map(|name| groups.decoy(name, &seed)).collect::<Vec<_>>()
        };
        let share = |decoys: &[Verifier], group| {
            decoys.iter().filter(|it| it.group() == group).count() as f64 / decoys.len() as f64
        };
        let none = sample(&[]);
        assert_eq!(share(&none, Group::Bits2048), 1.0);
        let some = sample(&[(2048, 3_000), (3072, 1_000)]);
        assert!((0.2..0.3).contains(&share(&some, Group::Bits3072)), "{}", share(&some, Group::Bits3072));
        let more = sample(&[(2048, 1_000), (3072, 2_000), (4096, 1_000)]);
        assert!((0.2..0.3).contains(&share(&more, Group::Bits4096)));
        assert!((0.2..0.3).contains(&share(&more, Group::Bits2048)));
        for (before, after) in some.iter().zip(&more) {
            assert!(after.group().bits() >= before.group().bits());
            assert_eq!(after.salt() == before.salt(), after.group() == before.group());
        }
        assert_eq!(share(&sample(&[(4096, 7)]), Group::Bits4096), 1.0);
    }
}
