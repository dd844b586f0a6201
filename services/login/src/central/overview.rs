//! An account of the centre as operators see it.

use shardkeep_store::{accounts::Ban, central::Activation};
use shardkeep_types::AccountId;

pub(crate) struct AccountOverview {
    pub(crate) id: AccountId,
    pub(crate) name: String,
    pub(crate) created_ms: u64,
    pub(crate) ban: Ban,
    pub(crate) second_factor: bool,
    pub(crate) active_in: Vec<Activation>,
}

/// How an operator names an account.
#[derive(Debug, Clone)]
pub(crate) enum Selector {
    Name(String),
    Id(AccountId),
}
