//! What logins ask of the account store. In a storm many ask the same at the same time: their questions go together, in
//! one statement, and their answers come back one by one.

use std::{sync::Arc, time::Duration};

use shardkeep_cluster::{BatchCallError, BatchPolicy, RequestBatcher};
use shardkeep_store::{
    self as store, Database,
    accounts::{
        self, AccountGeneration, Credentials,
        logins::{self, LoginRules},
    },
};

use crate::{LoginError, revocations::Revocations};

/// Every question is of a connection, and so many there are at most: nothing is refused here.
fn reads(connections: usize) -> BatchPolicy {
    BatchPolicy {
        max_requests: 256,
        interval: Duration::from_millis(5),
        waiting: connections,
        deadline: Duration::from_secs(10),
    }
}

/// A commit waits for the disk, and what else a welcome says is asked for meanwhile: more go together.
fn logins(connections: usize) -> BatchPolicy {
    BatchPolicy { max_requests: logins::MAX_BATCH, interval: Duration::from_millis(10), ..reads(connections) }
}

/// The database's error, which is everybody's whose question went with it.
#[derive(Debug, Clone)]
pub(crate) struct BatchError(Arc<store::Error>);

pub(crate) struct AccountBatcher {
    credentials: RequestBatcher<(), String, Option<Credentials>, BatchError>,
    logins: RequestBatcher<(), AccountGeneration, bool, BatchError>,
}

impl AccountBatcher {
    /// Followers are told of those whom a login displaces, whether or not anybody waits for its outcome.
    pub(crate) fn new(
        database: &Database,
        rules: LoginRules,
        revocations: Arc<Revocations>,
        connections: usize,
    ) -> Self {
        let (of_names, of_logins) = (database.clone(), database.clone());
        Self {
            credentials: RequestBatcher::new(
                "credentials",
                reads(connections),
                move |(), names: Vec<String>| {
                    let database = of_names.clone();
                    Box::pin(async move { Ok(accounts::credentials_of(&database, &names).await?) })
                },
            ),
            logins: RequestBatcher::new(
                "logins",
                logins(connections),
                move |(), from: Vec<AccountGeneration>| {
                    let (database, rules, revocations) =
                        (of_logins.clone(), rules.clone(), revocations.clone());
                    Box::pin(async move {
                        let login_guard = revocations.login_guard();
                        let admitted = logins::log_in(&database, &from, &rules).await?;
                        let entered = from.iter().zip(&admitted).filter(|(_, admitted)| **admitted);
                        revocations.notify_followers(
                            entered.map(|(from, _)| with_next_generation(*from)),
                            &rules.cause,
                        );
                        login_guard.resolved();
                        Ok(admitted)
                    })
                },
            ),
        }
    }

    pub(crate) async fn credentials(&self, name: &str) -> Result<Option<Credentials>, LoginError> {
        Ok(self.credentials.submit(&(), name.to_owned()).await?)
    }

    /// Raises the account's generation from here; `None`: it is another one by now, or somebody is in the way.
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
