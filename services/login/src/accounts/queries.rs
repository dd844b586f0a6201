//! The questions that logins ask the account store. In a storm many logins ask at the same time: their questions go into
//! one statement.

use std::{sync::Arc, time::Duration};

use shardkeep_cluster::{BatchCallError, BatchFuture, BatchPolicy, RequestBatcher};
use shardkeep_store::{
    self as store, Database,
    accounts::{
        self, AccountGeneration, Credentials,
        logins::{self, LoginRules},
    },
};

use crate::{accounts::revocations::hub::Revocations, error::LoginError};

/// Each connection asks one question at a time, so the bound of connections is never exceeded.
fn reads(connections: usize) -> BatchPolicy {
    BatchPolicy {
        max_requests: 256,
        interval: Duration::from_millis(5),
        waiting: connections,
        deadline: Duration::from_secs(10),
    }
}

/// A commit waits for the disk, and the login collects other data meanwhile, so a longer interval costs nothing.
fn logins(connections: usize) -> BatchPolicy {
    BatchPolicy { max_requests: logins::MAX_BATCH, interval: Duration::from_millis(10), ..reads(connections) }
}

/// The database's error for a whole batch.
#[derive(Debug, Clone)]
pub(crate) struct BatchError(Arc<store::Error>);

pub(crate) struct AccountQueries {
    credentials: RequestBatcher<(), String, Option<Credentials>, BatchError>,
    logins: RequestBatcher<(), AccountGeneration, bool, BatchError>,
}

impl AccountQueries {
    /// A login that displaces another one is told to the followers of `revocations`, even if its caller stops waiting.
    pub(crate) fn new(
        database: &Database,
        rules: LoginRules,
        revocations: Arc<Revocations>,
        connections: usize,
    ) -> Self {
        let (credentials_database, logins_database) = (database.clone(), database.clone());
        let credentials = move |(), names: Vec<String>| -> BatchFuture<Option<Credentials>, BatchError> {
            let database = credentials_database.clone();
            Box::pin(async move { Ok(accounts::credentials_of(&database, &names).await?) })
        };
        let logins_call = move |(), from: Vec<AccountGeneration>| -> BatchFuture<bool, BatchError> {
            let (database, rules, revocations) =
                (logins_database.clone(), rules.clone(), revocations.clone());
            Box::pin(async move {
                let login_guard = revocations.login_guard();
                let admitted = logins::log_in(&database, &from, &rules).await?;
                let entered = from.iter().zip(&admitted).filter(|(_, admitted)| **admitted);
                revocations
                    .notify_followers(entered.map(|(from, _)| with_next_generation(*from)), &rules.cause);
                login_guard.resolved();
                Ok(admitted)
            })
        };
        Self {
            credentials: RequestBatcher::new("credentials", reads(connections), credentials),
            logins: RequestBatcher::new("logins", logins(connections), logins_call),
        }
    }

    pub(crate) async fn credentials(&self, name: &str) -> Result<Option<Credentials>, LoginError> {
        Ok(self.credentials.submit(&(), name.to_owned()).await?)
    }

    /// Raises the account's generation by one. `None`: `from` is no longer the account's generation, or another login
    /// is active.
    pub(crate) async fn log_in(
        &self,
        from: AccountGeneration,
    ) -> Result<Option<AccountGeneration>, LoginError> {
        Ok(self.logins.submit(&(), from).await?.then(|| with_next_generation(from)))
    }
}

fn with_next_generation(from: AccountGeneration) -> AccountGeneration {
    AccountGeneration { generation: from.generation.next(), ..from }
}

impl From<store::Error> for BatchError {
    fn from(error: store::Error) -> Self {
        Self(Arc::new(error))
    }
}

impl From<BatchCallError> for BatchError {
    fn from(reason: BatchCallError) -> Self {
        match reason {
            BatchCallError::TimedOut | BatchCallError::CallAborted => store::Error::timed_out(),
            BatchCallError::QueueFull => store::Error::Busy,
            BatchCallError::MissingReply => store::Error::Corrupt(reason.to_string()),
        }
        .into()
    }
}

impl From<BatchError> for LoginError {
    fn from(BatchError(error): BatchError) -> Self {
        Self::Store(error)
    }
}
