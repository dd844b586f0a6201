//! A batch of changes for a follower of the centre. An account that the sender or the receiver cannot read is only named,
//! so that it does not delay the others.

use shardkeep_rpc::central as wire;
use shardkeep_store::central::Account;
use shardkeep_types::AccountId;

use crate::central::{convert, error::CentralError};

/// With this batch, a follower has seen everything up to `through_version`.
pub(crate) struct ChangeBatch {
    pub(super) accounts: Vec<Account>,
    /// Changed accounts that could not be read.
    pub(super) unreadable: Vec<AccountId>,
    pub(super) through_version: u64,
}

impl ChangeBatch {
    /// Reads each changed account by `read`.
    pub(super) fn read<T>(
        changed: Vec<T>,
        through_version: u64,
        id: impl Fn(&T) -> AccountId,
        read: impl Fn(T) -> Result<Account, CentralError>,
    ) -> Self {
        let mut batch =
            Self { accounts: Vec::with_capacity(changed.len()), unreadable: Vec::new(), through_version };
        for changed in changed {
            let account = id(&changed);
            match read(changed) {
                Ok(account) => batch.accounts.push(account),
                Err(error) => {
                    tracing::error!(%account, %error, "cannot read an account that changed at the centre; it is tried again");
                    batch.unreadable.push(account);
                }
            }
        }
        batch
    }

    pub(super) fn is_empty(&self) -> bool {
        self.accounts.is_empty() && self.unreadable.is_empty()
    }

    pub(super) fn to_wire(&self) -> wire::Changes {
        wire::Changes {
            accounts: self.accounts.iter().map(convert::to_wire).collect(),
            through_version: self.through_version,
            unreadable: self.unreadable.iter().map(|account| account.0).collect(),
        }
    }

    pub(super) fn from_wire(changes: wire::Changes) -> Self {
        let wire::Changes { accounts, through_version, unreadable } = changes;
        let id = |account: &wire::Account| AccountId(account.id);
        let mut batch = Self::read(accounts, through_version, id, convert::from_wire);
        batch.unreadable.extend(unreadable.into_iter().map(AccountId));
        batch
    }
}

#[cfg(test)]
mod tests {
    use shardkeep_auth::{
        AccountName,
        srp::{Group, Verifier},
    };

    use super::*;

    fn account(id: u64, name: &str) -> wire::Account {
        let normal = AccountName::normalise(name).unwrap();
        let verifier = Verifier::create(Group::Bits2048, &normal, "right", [9; 16]).unwrap();
        wire::Account {
            id,
            name: name.to_owned(),
            group: 2048,
            salt: verifier.salt().to_vec(),
            verifier: verifier.verifier().expose().clone(),
            version: id,
            ..wire::Account::default()
        }
    }

    #[test]
    fn change_batch_skips_unreadable_account() {
        // A newer server may know this group.
        let newer = wire::Account { group: 16_384, ..account(2, "bob") };
        let accounts = vec![account(1, "alice"), newer, account(3, "carol")];
        let changes = wire::Changes { accounts, through_version: 9, unreadable: vec![4] };
        let batch = ChangeBatch::from_wire(changes);
        let read: Vec<u64> = batch.accounts.iter().map(|account| account.id.0).collect();
        assert_eq!((read, batch.through_version), (vec![1, 3], 9));
        let encoded = batch.to_wire();
        assert_eq!((encoded.accounts.len(), encoded.unreadable, encoded.through_version), (2, vec![2, 4], 9));
    }
}
