//! Whose name a `Hello` bears, in a region with a centre: an account that is active here, one that only the centre
//! knows, or nobody's. Whichever it is, and however long the centre takes, the login goes on at the same time after the
//! `Hello` came, and no call goes beyond it; so a stranger learns from no answer which it was.

use std::time::Duration;

use shardkeep_auth::{AccountName, srp::Verifier};
use shardkeep_store::{accounts::Credentials, central::Account};
use tokio::time::{Instant, sleep_until};

use super::{Answer, SilentSeeds};
use crate::{LoginError, door::Door, metrics};

/// What timers round to.
const TICK: Duration = Duration::from_millis(2);

pub(crate) enum Bearer {
    Here(Box<Credentials>),
    /// Not active here.
    Centre(Box<Account>),
    Nobody,
    /// Not active here, and the centre did not say who it is: treated like nobody.
    Unsaid,
}

pub(crate) async fn look_up(door: &Door, name: &AccountName) -> Result<Bearer, LoginError> {
    let Some(centre) = &door.centre else {
        let found = door.gathered.credentials(name.as_str()).await?;
        return Ok(found.map_or(Bearer::Nobody, |found| Bearer::Here(Box::new(found))));
    };
    let until = Instant::now() + centre.wait;
    let found = async {
        if let Some(found) = door.gathered.credentials(name.as_str()).await? {
            return Ok(Bearer::Here(Box::new(found)));
        }
        Ok(match centre.find(name.as_str(), until).await {
            Answer::Known(account) => Bearer::Centre(account),
            Answer::Nobody => Bearer::Nobody,
            Answer::Silent => Bearer::Unsaid,
        })
    };
    at(until, found).await
}

/// Gives the result at that moment, or later if it is not there yet: which is counted, because it shows.
async fn at<T>(moment: Instant, result: impl Future<Output = T>) -> T {
    let result = result.await;
    metrics::central_hello(Instant::now() <= moment + TICK);
    sleep_until(moment).await;
    result
}

impl Door {
    /// The account's verifier or its stand-in. Both are always made, so that their cost tells nothing.
    ///
    /// While the centre is silent an account that only it knows shows a stand-in too, and so has another salt than
    /// before. Half of the names that nobody bears do the same then, so that neither a salt that changes nor one that
    /// stays tells whose name it is.
    pub(crate) fn verifier(&self, name: &AccountName, bearer: &Bearer) -> Result<Verifier, LoginError> {
        let unsaid = matches!(bearer, Bearer::Unsaid);
        let silent = self.centre.is_some() && self.silent.chooses(name) && unsaid;
        let seed = if silent { &self.silent.decoy } else { &self.decoy_seed };
        let decoy = self.groups.decoy(name.clone(), seed);
        let proof = match bearer {
            Bearer::Here(credentials) => &credentials.proof,
            Bearer::Centre(account) => &account.proof,
            Bearer::Nobody | Bearer::Unsaid => return Ok(decoy),
        };
        Verifier::stored(name.clone(), proof.group, proof.salt.clone(), proof.verifier.clone())
            .map_err(|_| LoginError::Internal("a stored verifier is damaged"))
    }
}

impl SilentSeeds {
    /// Whether the name, if nobody bears it, shows another stand-in while the centre is silent.
    fn chooses(&self, name: &AccountName) -> bool {
        Verifier::decoy_place(name, &self.choice) & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use shardkeep_types::Secret;

    use super::*;

    #[test]
    fn half_of_the_names_show_another_face_in_silence() {
        let seeds = SilentSeeds { decoy: Secret::new([1; 32]), choice: Secret::new([2; 32]) };
        let names = (0..400).map(|number| AccountName::normalise(&format!("nobody{number}")).unwrap());
        let chosen = names.filter(|name| seeds.chooses(name)).count();
        assert!((150..250).contains(&chosen), "{chosen}");
        let other = SilentSeeds { decoy: Secret::new([1; 32]), choice: Secret::new([3; 32]) };
        let mut names = (0..40).map(|number| AccountName::normalise(&format!("nobody{number}")).unwrap());
        assert!(
            names.any(|name| seeds.chooses(&name) != other.chooses(&name)),
            "only who knows the seed can tell"
        );
    }

    #[tokio::test]
    async fn what_is_known_at_once_is_kept_until_the_moment() {
        let moment = Instant::now() + Duration::from_millis(30);
        assert_eq!(at(moment, async { 7 }).await, 7);
        assert!(Instant::now() >= moment);
        // Only a store of our own that is late can make it later.
        assert_eq!(at(moment, async { 8 }).await, 8);
    }
}
