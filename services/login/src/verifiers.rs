//! What the store keeps of a new password.

use shardkeep_auth::{
    AccountName,
    srp::{SrpError, Verifier},
};
use shardkeep_store::accounts::Proof;
use shardkeep_types::Secret;

/// A verifier as its owner has made it, with the powers of it that make logins cheap. They cost a fifth of a login,
/// once.
///
/// # Errors
/// When nobody could ever log in with it.
pub(crate) fn keep(
    name: AccountName,
    group: u32,
    salt: Vec<u8>,
    verifier: Vec<u8>,
) -> Result<Proof, SrpError> {
    let verifier = Verifier::made(name, group, salt, Secret::new(verifier))?;
    Ok(Proof { group, salt: verifier.salt().to_vec(), verifier: verifier.kept()? })
}

#[cfg(test)]
mod tests {
    use shardkeep_auth::srp::Group;

    use super::*;

    #[test]
    fn an_owner_brings_a_verifier_and_nothing_beside_it() {
        let alice = || AccountName::normalise("alice").unwrap();
        let made = Verifier::create(Group::Bits2048, &alice(), "secret", [7; 16]).unwrap();
        let (salt, v) = (made.salt().to_vec(), made.verifier().expose().clone());
        let proof = keep(alice(), 2048, salt.clone(), v).unwrap();
        assert_eq!(proof.verifier.expose().len(), 4 * 256);
        let stored = Verifier::stored(alice(), proof.group, proof.salt, proof.verifier.clone()).unwrap();
        assert_eq!(stored.verifier(), made.verifier());
        let again = keep(alice(), 2048, salt, proof.verifier.expose().clone());
        assert!(again.is_err_and(|error| error == SrpError::Malformed("public number")));
    }
}
