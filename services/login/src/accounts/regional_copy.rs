//! This region's copies of the centre's accounts.

use std::sync::Arc;

use shardkeep_store::{
    Database,
    accounts::regional::{self, CopyOutcome, RevocationCauses},
    central::Account,
};

use crate::{
    accounts::{causes, secret_cipher::SecretCipher},
    error::LoginError,
};

#[derive(Clone)]
pub(crate) struct RegionalCopy {
    database: Database,
    cipher: Arc<SecretCipher>,
}

impl RegionalCopy {
    pub(crate) fn new(database: Database, cipher: Arc<SecretCipher>) -> Self {
        Self { database, cipher }
    }

    /// Updates the copy to this state of the account, and encrypts the second factor with this region's key. An older
    /// state changes nothing.
    pub(crate) async fn apply(&self, account: &Account) -> Result<CopyOutcome, LoginError> {
        let sealed = match &account.factor {
            Some(secret) => Some(self.cipher.seal(account.id, secret.expose())?.into()),
            None => None,
        };
        let copy = Account { factor: sealed, ..account.clone() };
        let causes = RevocationCauses {
            password: causes::password_changed(),
            factor: causes::factor_added(),
            ban: causes::banned(&account.ban),
        };
        Ok(Box::pin(regional::apply(&self.database, &copy, &causes)).await?)
    }
}
