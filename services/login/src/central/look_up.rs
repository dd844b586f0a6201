//! Whose name a `Hello` bears, in a region with a centre: an account that is active here, one that only the centre
//! knows, or nobody's. Whichever it is, and however long the centre takes, the login goes on at the same time after the
//! `Hello` came, and no call goes beyond it; so a stranger learns from no answer which it was.

use std::time::Duration;

use shardkeep_auth::{AccountName, srp::Verifier};
use shardkeep_store::{accounts::Credentials, central::Account};
use tokio::time::{Instant, sleep_until};

use super::{CentralAnswer, FallbackSeeds};
use crate::{LoginError, context::LoginContext, metrics};

/// What timers round to.
const TIMER_RESOLUTION: Duration = Duration::from_millis(2);

pub(crate) enum AccountLookup {
    Local(Box<Credentials>),
    /// Not active here.
    Central(Box<Account>),
    Unknown,
    /// Not active here, and the centre did not say who it is: treated like nobody.
    Unavailable,
}

pub(crate) async fn look_up(context: &LoginContext, name: &AccountName) -> Result<AccountLookup, LoginError> {
    let Some(central) = &context.central else {
        let found = context.account_batcher.credentials(name.as_str()).await?;
        return Ok(found.map_or(AccountLookup::Unknown, |found| AccountLookup::Local(Box::new(found))));
    };
    let until = Instant::now() + central.wait;
    let found = async {
        if let Some(found) = context.account_batcher.credentials(name.as_str()).await? {
            return Ok(AccountLookup::Local(Box::new(found)));
        }
        Ok(match central.find(name.as_str(), until).await {
            CentralAnswer::Found(account) => AccountLookup::Central(account),
            CentralAnswer::Unknown => AccountLookup::Unknown,
            CentralAnswer::Unavailable => AccountLookup::Unavailable,
        })
    };
    complete_at(until, found).await
}

/// Gives the result at that moment, or later if it is not there yet: which is counted, because it shows.
async fn complete_at<T>(deadline: Instant, result: impl Future<Output = T>) -> T {
    let result = result.await;
    metrics::central_hello(Instant::now() <= deadline + TIMER_RESOLUTION);
    sleep_until(deadline).await;
    result
}

impl LoginContext {
    /// The account's verifier or its stand-in. Both are always made, so that their cost tells nothing.
    ///
    /// While the centre is silent an account that only it knows shows a stand-in too, and so has another salt than
    /// before. Half of the names that nobody bears do the same then, so that neither a salt that changes nor one that
    /// stays tells whose name it is.
    pub(crate) fn verifier(
        &self,
        name: &AccountName,
        lookup: &AccountLookup,
    ) -> Result<Verifier, LoginError> {
        let unavailable = matches!(lookup, AccountLookup::Unavailable);
        let fallback = self.central.is_some() && self.fallback.applies_to(name) && unavailable;
        let seed = if fallback { &self.fallback.decoy } else { &self.decoy_seed };
        let decoy = self.groups.decoy(name.clone(), seed);
        let proof = match lookup {
            AccountLookup::Local(credentials) => &credentials.proof,
            AccountLookup::Central(account) => &account.proof,
            AccountLookup::Unknown | AccountLookup::Unavailable => return Ok(decoy),
        };
        Verifier::stored(name.clone(), proof.group, proof.salt.clone(), proof.verifier.clone())
            .map_err(|_| LoginError::Internal("a stored verifier is damaged"))
    }
}

impl FallbackSeeds {
    /// Whether the name, if nobody bears it, shows another stand-in while the centre is silent.
    fn applies_to(&self, name: &AccountName) -> bool {
        Verifier::decoy_bucket(name, &self.choice) & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use shardkeep_types::Secret;

    use super::*;

    #[test]
    fn fallback_seeds_apply_to_half_of_the_names() {
        let seeds = FallbackSeeds { decoy: Secret::new([1; 32]), choice: Secret::new([2; 32]) };
        let names = (0..400).map(|number| AccountName::normalise(&format!("nobody{number}")).unwrap());
        let chosen = names.filter(|name| seeds.applies_to(name)).count();
        assert!((150..250).contains(&chosen), "{chosen}");
        let other = FallbackSeeds { decoy: Secret::new([1; 32]), choice: Secret::new([3; 32]) };
        let mut names = (0..40).map(|number| AccountName::normalise(&format!("nobody{number}")).unwrap());
        assert!(
            names.any(|name| seeds.applies_to(&name) != other.applies_to(&name)),
            "only who knows the seed can tell"
        );
    }

    #[tokio::test]
    async fn lookup_result_is_held_until_deadline() {
        let deadline = Instant::now() + Duration::from_millis(30);
        assert_eq!(complete_at(deadline, async { 7 }).await, 7);
        assert!(Instant::now() >= deadline);
        // Only a store of our own that is late can make it later.
        assert_eq!(complete_at(deadline, async { 8 }).await, 8);
    }
}
