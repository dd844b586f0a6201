//! Which account a `Hello` names. In a region of a centre this is an account that is active here, one that only the centre
//! knows, or none. The login continues at the same time after the `Hello` in each case, however long the centre takes, so
//! that the time tells a stranger nothing.

use std::{sync::Arc, time::Duration};

use shardkeep_auth::AccountName;
use shardkeep_store::{
    accounts::{Credentials, Proof},
    central::Account,
};
use tokio::time::{Instant, sleep_until};

use crate::{
    accounts::queries::AccountQueries,
    central::accounts::{CentralAccounts, CentralAnswer},
    error::LoginError,
    metrics,
};

/// Resolution of the runtime's timers.
const TIMER_RESOLUTION: Duration = Duration::from_millis(2);

pub(crate) enum AccountLookup {
    Local(Box<Credentials>),
    /// Only the centre knows it: it is not active in this region.
    Central(Box<Account>),
    Unknown,
    /// It is not active here, and the centre did not answer in time. The client is treated as for an unknown account.
    Unavailable,
}

impl AccountLookup {
    pub(crate) fn proof(&self) -> Option<&Proof> {
        match self {
            Self::Local(credentials) => Some(&credentials.proof),
            Self::Central(account) => Some(&account.proof),
            Self::Unknown | Self::Unavailable => None,
        }
    }

    pub(crate) fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable)
    }
}

pub(crate) struct AccountDirectory {
    queries: Arc<AccountQueries>,
    central: Option<Arc<CentralAccounts>>,
}

impl AccountDirectory {
    pub(crate) fn new(queries: Arc<AccountQueries>, central: Option<Arc<CentralAccounts>>) -> Self {
        Self { queries, central }
    }

    pub(crate) async fn look_up(&self, name: &AccountName) -> Result<AccountLookup, LoginError> {
        let Some(central) = &self.central else {
            let found = self.queries.credentials(name.as_str()).await?;
            return Ok(found.map_or(AccountLookup::Unknown, |found| AccountLookup::Local(Box::new(found))));
        };
        let until = Instant::now() + central.hello_delay();
        let found = async {
            if let Some(found) = self.queries.credentials(name.as_str()).await? {
                return Ok(AccountLookup::Local(Box::new(found)));
            }
            Ok(match central.find(name.as_str(), until).await {
                CentralAnswer::Found(account) => AccountLookup::Central(account),
                CentralAnswer::Unknown => AccountLookup::Unknown,
                CentralAnswer::Unavailable => AccountLookup::Unavailable,
            })
        };
        complete_at(until, found).await
    }
}

/// Returns the result at the deadline, or later if it comes later. Late results are counted, because a client can see
/// them.
async fn complete_at<T>(deadline: Instant, result: impl Future<Output = T>) -> T {
    let result = result.await;
    metrics::central_hello(Instant::now() <= deadline + TIMER_RESOLUTION);
    sleep_until(deadline).await;
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lookup_result_is_held_until_deadline() {
        let deadline = Instant::now() + Duration::from_millis(30);
        assert_eq!(complete_at(deadline, async { 7 }).await, 7);
        assert!(Instant::now() >= deadline);
        // The deadline is over: a late result is returned at once.
        assert_eq!(complete_at(deadline, async { 8 }).await, 8);
    }
}
