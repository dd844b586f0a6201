//! Ends an account's sessions everywhere.

use std::sync::Arc;

use shardkeep_store::accounts::{AccountGeneration, RevocationCause};

use crate::{accounts::revocations::hub::Revocations, worlds::gateways::Gateways};

#[derive(Clone)]
pub(crate) struct SessionEnder {
    revocations: Arc<Revocations>,
    gateways: Arc<Gateways>,
}

impl SessionEnder {
    pub(crate) fn new(revocations: Arc<Revocations>, gateways: Arc<Gateways>) -> Self {
        Self { revocations, gateways }
    }

    /// Ends the account's sessions below this generation, and returns how many ended.
    pub(crate) async fn end_sessions(&self, account: AccountGeneration, cause: &RevocationCause) -> u32 {
        self.revocations.notify_followers([account], cause);
        self.gateways.revoke_account(account, cause).await
    }
}
