//! What the store keeps of a new password.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use shardkeep_auth::{
    AccountName,
    srp::{SrpError, Verifier},
};
use shardkeep_daemon::Prefix;
use shardkeep_store::accounts::Proof;
use shardkeep_types::Secret;

use crate::{
    LoginError,
    pool::{Job, Pool},
    queue::Ask,
};

/// Longest wait for a turn in the pool.
const WITHIN: Duration = Duration::from_secs(10);

/// A verifier as its owner has made it.
pub(crate) struct Made {
    pub(crate) name: AccountName,
    pub(crate) group: u32,
    pub(crate) salt: Vec<u8>,
    pub(crate) verifier: Vec<u8>,
}

/// Who wants it kept, and so whose turn it is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Asks {
    /// Somebody who has proven nothing.
    Anybody(IpAddr),
    /// The account's player, logged in.
    Owner(IpAddr),
    Operator,
}

/// The verifier with the powers of it that make logins cheap. They cost a fifth of a login, once, in their turn.
///
/// # Errors
/// When nobody could ever log in with it, or the pool is crowded.
pub(crate) async fn keep(pool: &Pool, asks: Asks, made: Made) -> Result<Proof, LoginError> {
    let Made { name, group, salt, verifier } = made;
    let account = name.clone();
    let verifier = Verifier::made(name, group, salt, Secret::new(verifier))?;
    let (address, trusted) = match asks {
        Asks::Anybody(address) => (address, false),
        Asks::Owner(address) => (address, true),
        // A line of their own: no player comes from there.
        Asks::Operator => (IpAddr::V4(Ipv4Addr::UNSPECIFIED), true),
    };
    let ask = Ask {
        prefix: Prefix::of(address),
        account,
        trusted,
        cost: Job::Keep.cost(verifier.group()),
        until: Instant::now() + WITHIN,
    };
    let kept = move || Ok::<_, SrpError>((verifier.kept()?, verifier.salt().to_vec()));
    let (verifier, salt) = pool.run(ask, move |_| kept()).await??;
    Ok(Proof { group, salt, verifier })
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use shardkeep_auth::srp::Group;

    use super::*;
    use crate::Config;

    #[tokio::test]
    async fn an_owner_brings_a_verifier_and_nothing_beside_it() {
        let pool = Pool::new(&Config { crypto_threads: 1, ..Config::default() });
        let alice = || AccountName::normalise("alice").unwrap();
        let made = Verifier::create(Group::Bits2048, &alice(), "secret", [7; 16]).unwrap();
        let (salt, v) = (made.salt().to_vec(), made.verifier().expose().clone());
        let brought = |verifier| Made { name: alice(), group: 2048, salt: salt.clone(), verifier };
        let proof = keep(&pool, Asks::Operator, brought(v)).await.unwrap();
        assert_eq!(proof.verifier.expose().len(), 4 * 256);
        let kept = proof.verifier.expose().clone();
        let stored = Verifier::stored(alice(), proof.group, proof.salt, proof.verifier).unwrap();
        assert_eq!(stored.verifier(), made.verifier());
        let again = keep(&pool, Asks::Operator, brought(kept)).await;
        assert!(matches!(again, Err(LoginError::Malformed("public number"))));
    }

    #[tokio::test]
    async fn its_powers_wait_for_their_turn() {
        let patient = Config { crypto_patience: WITHIN, ..Config::default() };
        let pool = Pool::new(&Config { crypto_threads: 1, crypto_queue: 1, ..patient });
        let busy = Ask {
            prefix: Prefix::of([10, 0, 0, 1].into()),
            account: AccountName::normalise("bob").unwrap(),
            trusted: false,
            cost: 1,
            until: Instant::now() + WITHIN,
        };
        let (release, released) = std::sync::mpsc::channel::<()>();
        let mut running = Box::pin(pool.run(busy, move |_| released.recv().is_ok()));
        assert!(running.as_mut().now_or_never().is_none());
        let alice = AccountName::normalise("alice").unwrap();
        let made = Verifier::create(Group::Bits2048, &alice, "secret", [7; 16]).unwrap();
        let (salt, verifier) = (made.salt().to_vec(), made.verifier().expose().clone());
        let made = Made { name: alice, group: 2048, salt, verifier };
        let mut keeping = Box::pin(keep(&pool, Asks::Anybody([10, 0, 0, 2].into()), made));
        assert!(keeping.as_mut().now_or_never().is_none());
        assert_eq!(pool.waiting(), 1);
        release.send(()).unwrap();
        assert!(running.await.unwrap());
        assert_eq!(keeping.await.unwrap().verifier.expose().len(), 4 * 256);
    }
}
