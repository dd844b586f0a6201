//! New passwords: the verifier that a client made, checked and completed for the store.

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
    door::queue::JobRequest,
    error::LoginError,
    logon::pool::{Job, Pool},
};

/// Longest wait for a turn in the pool.
const POOL_TIMEOUT: Duration = Duration::from_secs(10);

/// A verifier as a client made it.
pub(crate) struct NewVerifier {
    pub(crate) name: AccountName,
    pub(crate) group: u32,
    pub(crate) salt: Vec<u8>,
    pub(crate) verifier: Vec<u8>,
}

/// The origin of a new verifier, which decides its place in the queue.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Requester {
    /// A client that has not logged in.
    Anonymous(IpAddr),
    /// The logged-in owner of the account.
    Owner(IpAddr),
    Operator,
}

/// Adds the powers of the verifier that make logins cheap. This costs a fifth of a login, once.
///
/// # Errors
/// No client could log in with this verifier, or the pool is busy.
pub(crate) async fn prepare_proof(
    pool: &Pool,
    requester: Requester,
    provided: NewVerifier,
) -> Result<Proof, LoginError> {
    let NewVerifier { name, group, salt, verifier } = provided;
    let account = name.clone();
    let verifier = Verifier::provided(name, group, salt, Secret::new(verifier))?;
    let (address, trusted) = match requester {
        Requester::Anonymous(address) => (address, false),
        Requester::Owner(address) => (address, true),
        // No player has this address, so operators have their own turns.
        Requester::Operator => (IpAddr::V4(Ipv4Addr::UNSPECIFIED), true),
    };
    let job_request = JobRequest {
        prefix: Prefix::of(address),
        account,
        trusted,
        cost: Job::PrepareVerifier.cost(verifier.group()),
        until: Instant::now() + POOL_TIMEOUT,
    };
    let stored_form = move || Ok::<_, SrpError>((verifier.stored_form()?, verifier.salt().to_vec()));
    let (verifier, salt) = pool.run(job_request, move |_| stored_form()).await??;
    Ok(Proof { group, salt, verifier })
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use shardkeep_auth::srp::Group;

    use super::*;
    use crate::config::Config;

    #[tokio::test]
    async fn verifier_with_precomputed_powers_is_refused() {
        let pool = Pool::new(&Config { crypto_threads: 1, ..Config::default() });
        let alice = || AccountName::normalise("alice").unwrap();
        let provided = Verifier::create(Group::Bits2048, &alice(), "secret", [7; 16]).unwrap();
        let (salt, v) = (provided.salt().to_vec(), provided.verifier().expose().clone());
        let brought = |verifier| NewVerifier { name: alice(), group: 2048, salt: salt.clone(), verifier };
        let proof = prepare_proof(&pool, Requester::Operator, brought(v)).await.unwrap();
        assert_eq!(proof.verifier.expose().len(), 4 * 256);
        let stored_form = proof.verifier.expose().clone();
        let stored = Verifier::stored(alice(), proof.group, proof.salt, proof.verifier).unwrap();
        assert_eq!(stored.verifier(), provided.verifier());
        let again = prepare_proof(&pool, Requester::Operator, brought(stored_form)).await;
        assert!(matches!(again, Err(LoginError::Malformed("public number"))));
    }

    #[tokio::test]
    async fn verifier_precomputation_waits_for_pool_turn() {
        let patient = Config { crypto_max_wait: POOL_TIMEOUT, ..Config::default() };
        let pool = Pool::new(&Config { crypto_threads: 1, crypto_queue: 1, ..patient });
        let busy = JobRequest {
            prefix: Prefix::of([10, 0, 0, 1].into()),
            account: AccountName::normalise("bob").unwrap(),
            trusted: false,
            cost: 1,
            until: Instant::now() + POOL_TIMEOUT,
        };
        let (release, released) = std::sync::mpsc::channel::<()>();
        let mut running = Box::pin(pool.run(busy, move |_| released.recv().is_ok()));
        assert!(running.as_mut().now_or_never().is_none());
        let alice = AccountName::normalise("alice").unwrap();
        let provided = Verifier::create(Group::Bits2048, &alice, "secret", [7; 16]).unwrap();
        let (salt, verifier) = (provided.salt().to_vec(), provided.verifier().expose().clone());
        let provided = NewVerifier { name: alice, group: 2048, salt, verifier };
        let mut keeping =
            Box::pin(prepare_proof(&pool, Requester::Anonymous([10, 0, 0, 2].into()), provided));
        assert!(keeping.as_mut().now_or_never().is_none());
        assert_eq!(pool.waiting(), 1);
        release.send(()).unwrap();
        assert!(running.await.unwrap());
        assert_eq!(keeping.await.unwrap().verifier.expose().len(), 4 * 256);
    }
}
