//! Lists the prepaid accounts in the order in which they became prepaid.

use shardkeep_types::AccountId;

use super::Billing;
use crate::{Error, sql};

/// How far a follower goes back at the end of the list. The time of a row is that of its statement, which is older than its
/// commit.
const OVERLAP_MS: u64 = 5_000;

/// A place in the list.
#[derive(Debug, Clone, Copy, Default)]
pub struct PrepaidCursor {
    since_ms: u64,
    account: u64,
}

impl Billing {
    /// The next accounts after the cursor, at most `limit`, and the cursor behind them. A page that is not full is the end of
    /// the list. The next page repeats the last accounts before the end.
    pub async fn prepaid_after(
        &self,
        cursor: PrepaidCursor,
        limit: u32,
    ) -> Result<(Vec<AccountId>, PrepaidCursor), Error> {
        let query = sql("SELECT account, since_ms FROM plans
             WHERE since_ms > $1 OR (since_ms = $1 AND account > $2) ORDER BY since_ms, account LIMIT $3");
        let query = query.bind(cursor.since_ms).bind(cursor.account).bind(limit);
        let (mut accounts, mut next) = (Vec::new(), cursor);
        for mut row in self.database.fetch_all(query).await? {
            let (account, since_ms) = (row.take()?, row.take()?);
            accounts.push(AccountId(account));
            next = PrepaidCursor { since_ms, account };
        }
        if accounts.len() < limit as usize {
            next = PrepaidCursor { since_ms: next.since_ms.saturating_sub(OVERLAP_MS), account: 0 };
        }
        Ok((accounts, next))
    }
}
