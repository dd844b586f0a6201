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
