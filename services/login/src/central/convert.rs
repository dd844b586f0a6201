//! Conversions between accounts and their protobuf messages. Second factors are readable in the messages, inside mutual
//! TLS, because each store encrypts them with another key.

use shardkeep_auth::{
    AccountName,
    srp::{SrpError, Verifier},
};
use shardkeep_rpc::central as wire;
use shardkeep_store::{
    accounts::{Ban, Proof},
    central::{Account, Activation},
};
use shardkeep_types::{AccountId, Secret};

use crate::central::{error::CentralError, overview::AccountOverview};

/// `factor` is readable.
pub(super) fn to_wire(account: &Account) -> wire::Account {
    wire::Account {
        id: account.id.0,
        name: account.name.clone(),
        group: account.proof.group,
        salt: account.proof.salt.clone(),
        verifier: account.proof.verifier.expose().clone(),
        second_factor: account.factor.as_ref().map(|secret| secret.expose().clone()).unwrap_or_default(),
        second_factor_version: account.factor_version,
        banned_until_ms: account.ban.until_ms,
        ban_reason: account.ban.reason.clone(),
        created_ms: account.created_ms,
        version: account.version,
    }
}

/// Refuses an invalid account.
pub(super) fn from_wire(account: wire::Account) -> Result<Account, CentralError> {
    let wire::Account { id, name, group, salt, verifier, second_factor, second_factor_version, .. } = account;
    let proof = proof(&name, group, salt, verifier)?;
    Ok(Account {
        id: AccountId(id),
        name,
        proof,
        factor: Some(second_factor).filter(|secret| !secret.is_empty()).map(Secret::new),
        factor_version: second_factor_version,
        ban: Ban { until_ms: account.banned_until_ms, reason: account.ban_reason },
        created_ms: account.created_ms,
        version: account.version,
    })
}

/// Checks a verifier for a name in its normal form.
pub(super) fn proof(name: &str, group: u32, salt: Vec<u8>, verifier: Vec<u8>) -> Result<Proof, CentralError> {
    let malformed = |reason: String| CentralError::Refused(format!("the account is invalid: {reason}"));
    let normal = AccountName::normalise(name).map_err(|error| malformed(error.to_string()))?;
    if normal.as_str() != name {
        return Err(malformed("its name is not in normal form".to_owned()));
    }
    let verifier = Secret::new(verifier);
    Verifier::stored(normal, group, salt.clone(), verifier.clone())
        .map_err(|error: SrpError| malformed(error.to_string()))?;
    Ok(Proof { group, salt, verifier })
}

pub(super) fn overview_to_wire(overview: AccountOverview) -> wire::ShowReply {
    let encode = |it: Activation| wire::Activation { region: it.region, since_ms: it.since_ms };
    wire::ShowReply {
        id: overview.id.0,
        name: overview.name,
        created_ms: overview.created_ms,
        banned_until_ms: overview.ban.until_ms,
        ban_reason: overview.ban.reason,
        second_factor: overview.second_factor,
        activations: overview.active_in.into_iter().map(encode).collect(),
    }
}

pub(super) fn overview_from_wire(reply: wire::ShowReply) -> AccountOverview {
    let read = |it: wire::Activation| Activation { region: it.region, since_ms: it.since_ms };
    AccountOverview {
        id: AccountId(reply.id),
        name: reply.name,
        created_ms: reply.created_ms,
        ban: Ban { until_ms: reply.banned_until_ms, reason: reply.ban_reason },
        second_factor: reply.second_factor,
        active_in: reply.activations.into_iter().map(read).collect(),
    }
}
