//! Stand-ins for accounts that do not exist: a salt and a verifier made from a keyed hash of the name. Their groups are
//! distributed like those of the real accounts, so that a group tells nothing. When accounts move to a longer group, so
//! do some stand-ins, with a new salt, as after a change of password.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use shardkeep_auth::{
    AccountName, Key,
    srp::{Group, Verifier},
};
use shardkeep_store::{
    Database,
    accounts::{self, Proof},
};
use tokio_util::sync::CancellationToken;

use crate::{central::accounts::CentralAccounts, error::LoginError, random};

/// How often the accounts of each group are counted.
const COUNT_INTERVAL: Duration = Duration::from_secs(600);
/// When to count again after a failure.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

pub(crate) struct Decoys {
    seed: Key,
    /// In a region of a centre: the seeds while the centre does not answer.
    outage: Option<OutageSeeds>,
    /// Of 256 stand-ins, how many have a group of at least 3072 bits (high half) and of 4096 bits (low half).
    shares: AtomicU32,
}

/// While the centre does not answer, an account that only the centre knows gets a stand-in, and so another salt than
/// before. Half of the names without an account change their salt at the same time. Neither a salt that changes nor one
/// that stays then tells whether the account exists.
struct OutageSeeds {
    decoy: Key,
    /// Selects the names that change.
    choice: Key,
}

impl OutageSeeds {
    fn apply_to(&self, name: &AccountName) -> bool {
        Verifier::decoy_bucket(name, &self.choice) & 1 == 1
    }
}

impl Decoys {
    /// The seeds are in the account store, so that all replicas have the same.
    pub(crate) async fn load(database: &Database, in_region: bool) -> Result<Self, LoginError> {
        let seed = accounts::shared_secret(database, "decoy seed", &random::key()?).await?;
        let outage = OutageSeeds {
            decoy: accounts::shared_secret(database, "silent decoy seed", &random::key()?).await?,
            choice: accounts::shared_secret(database, "silent choice seed", &random::key()?).await?,
        };
        Ok(Self { seed, outage: in_region.then_some(outage), shares: AtomicU32::default() })
    }

    /// The account's verifier, or a stand-in without a `proof`. The stand-in is always made, so that the time tells
    /// nothing.
    pub(crate) fn verifier(
        &self,
        name: &AccountName,
        proof: Option<&Proof>,
        centre_silent: bool,
    ) -> Result<Verifier, LoginError> {
        let outage = self.outage.as_ref().filter(|seeds| seeds.apply_to(name) && centre_silent);
        let decoy = self.decoy(name.clone(), outage.map_or(&self.seed, |seeds| &seeds.decoy));
        let Some(proof) = proof else { return Ok(decoy) };
        Verifier::stored(name.clone(), proof.group, proof.salt.clone(), proof.verifier.clone())
            .map_err(|_| LoginError::Internal("a stored verifier is damaged"))
    }

    fn decoy(&self, account: AccountName, seed: &Key) -> Verifier {
        let shares = self.shares.load(Ordering::Relaxed);
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

    fn set_counts(&self, counts: &[(u32, u64)]) {
        let total = counts.iter().map(|(_, count)| count).sum::<u64>().max(1);
        let share = |least: u32| {
            let count =
                counts.iter().filter(|(group, _)| *group >= least).map(|(_, count)| count).sum::<u64>();
            u32::try_from(u128::from(count) * 256 / u128::from(total)).unwrap_or(256)
        };
        self.shares.store(share(3072) << 16 | share(4096), Ordering::Relaxed);
    }
}

/// Counts the accounts of each group again and again, until `stop`: those of the centre, where there is one.
pub(crate) async fn follow_groups(
    decoys: Arc<Decoys>,
    database: Database,
    central: Option<Arc<CentralAccounts>>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    loop {
        let counts = match &central {
            Some(central) => central.groups().await.map_err(LoginError::from),
            None => accounts::groups(&database).await.map_err(LoginError::from),
        };
        let pause = match counts {
            Ok(counts) => {
                decoys.set_counts(&counts);
                COUNT_INTERVAL
            }
            Err(error) => {
                tracing::warn!(%error, "the accounts of each SRP group cannot be counted; login tries again");
                RETRY_INTERVAL
            }
        };
        if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use shardkeep_types::Secret;

    use super::*;

    fn decoys(outage: bool) -> Decoys {
        let outage =
            outage.then(|| OutageSeeds { decoy: Secret::new([2; 32]), choice: Secret::new([3; 32]) });
        Decoys { seed: Secret::new([5; 32]), outage, shares: AtomicU32::default() }
    }

    fn name(number: u32) -> AccountName {
        AccountName::normalise(&format!("nobody{number}")).unwrap()
    }

    #[test]
    fn decoy_groups_follow_distribution_of_accounts() {
        let decoys = decoys(false);
        let sample = |counts: &[(u32, u64)]| {
            decoys.set_counts(counts);
            (0..600).map(|number| decoys.verifier(&name(number), None, false).unwrap()).collect::<Vec<_>>()
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

    #[test]
    fn silent_centre_changes_salts_of_half_the_decoys() {
        let changed = |decoys: &Decoys| {
            let salt = |number, silent| decoys.verifier(&name(number), None, silent).unwrap().salt().to_vec();
            (0..600).filter(|number| salt(*number, false) != salt(*number, true)).count()
        };
        assert!((240..360).contains(&changed(&decoys(true))));
        assert_eq!(changed(&decoys(false)), 0, "there is no centre");
    }
}
