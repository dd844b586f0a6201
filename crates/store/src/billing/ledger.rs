//! Prepaid hours: credits, time left, and accounts that run out of time.

use std::collections::HashMap;

use shardkeep_types::AccountId;

use super::Billing;
use crate::{Error, Rows, Tx, sql, transact};

const HOUR_MS: u64 = 3_600_000;
/// More than a century at once is a typing error.
const MAX_HOURS: u64 = 1_000_000;
const MAX_KEY: usize = 128;
const MAX_REASON: usize = 256;

/// Plan and play time of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanStatus {
    /// `None`: the free plan, which only meters.
    pub left_ms: Option<u64>,
    /// Sum over all sessions.
    pub played_ms: u64,
}

/// A prepaid account that is playing and has little time left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LowBalance {
    pub account: AccountId,
    /// Time left now, if its sessions have continued since their last reports.
    pub left_ms: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum BillingError {
    #[error("{0}")]
    Invalid(&'static str),
    /// The key was used for another credit.
    #[error("the key was used for another credit")]
    KeyConflict,
    #[error(transparent)]
    Store(#[from] Error),
}

impl BillingError {
    pub fn label(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "invalid",
            Self::KeyConflict => "key_conflict",
            Self::Store(error) => error.label(),
        }
    }

    pub fn store(&self) -> Option<&Error> {
        match self {
            Self::Store(error) => Some(error),
            _ => None,
        }
    }
}

impl Billing {
    pub async fn show(&self, account: AccountId) -> Result<PlanStatus, Error> {
        let mut tx = self.database.snapshot().await?;
        let plan =
            tx.fetch_optional(sql("SELECT left_ms FROM plans WHERE account = $1").bind(account.0)).await?;
        let played = sql("SELECT CAST(COALESCE(SUM(played_ms), 0) AS BIGINT) FROM clocks WHERE account = $1");
        let played = tx.fetch_optional(played.bind(account.0)).await?;
        tx.commit().await?;
        Ok(PlanStatus {
            left_ms: plan.map(|mut row| row.take()).transpose()?,
            played_ms: played.map(|mut row| row.take()).transpose()?.unwrap_or(0),
        })
    }

    /// Time left of those of the accounts that are prepaid.
    pub async fn time_left(&self, accounts: &[AccountId]) -> Result<HashMap<AccountId, u64>, Error> {
        let query =
            sql("SELECT plans.account, plans.left_ms FROM {rows} JOIN plans ON plans.account = r.account");
        let rows = Rows::new().ints("account", accounts.iter().map(|account| account.0));
        let rows = self.database.fetch_all(query.rows(rows)).await?;
        rows.into_iter().map(|mut row| Ok((AccountId(row.take()?), row.take()?))).collect()
    }

    /// Credits hours to an account and puts it on the prepaid plan. A repeat with the same key returns the first
    /// result. Returns the time left.
    pub async fn credit(
        &self,
        account: AccountId,
        hours: u64,
        key: &str,
        reason: &str,
    ) -> Result<u64, BillingError> {
        if hours == 0 || hours > MAX_HOURS {
            return Err(BillingError::Invalid("hours: must be 1 to 1,000,000"));
        }
        if key.is_empty() || key.len() > MAX_KEY {
            return Err(BillingError::Invalid("key: must be 1 to 128 bytes"));
        }
        if reason.len() > MAX_REASON {
            return Err(BillingError::Invalid("reason: must be at most 256 bytes"));
        }
        let credit =
            Credit { account: account.0, amount_ms: hours * HOUR_MS, key: format!("credit:{key}"), reason };
        transact!(self.database, |tx| credit_in(&mut tx, &credit))
    }

    /// The accounts that are playing and have less than `below_ms` left. A session without a report for
    /// `report_timeout_ms` does not count as playing.
    pub async fn low_balances(
        &self,
        below_ms: u64,
        report_timeout_ms: u64,
    ) -> Result<Vec<LowBalance>, Error> {
        let query = sql("SELECT plans.account,
                 plans.left_ms - CAST(SUM({now_ms} - clocks.seen_ms) AS BIGINT) AS left_now
             FROM plans JOIN clocks ON clocks.account = plans.account AND clocks.ended = 0
             WHERE plans.left_ms < $1 AND clocks.seen_ms > {now_ms} - $2
             GROUP BY plans.account, plans.left_ms");
        // Reports arrive at least every `report_timeout_ms`, so an estimate differs from the stored time by at most
        // that.
        let rows = self
            .database
            .fetch_all(query.bind(below_ms.saturating_add(report_timeout_ms)).bind(report_timeout_ms))
            .await?;
        let mut due = Vec::new();
        for mut row in rows {
            let (account, time_left) = (AccountId(row.take()?), row.take::<i64>()?);
            let left_ms = u64::try_from(time_left).unwrap_or(0);
            if left_ms < below_ms {
                due.push(LowBalance { account, left_ms });
            }
        }
        Ok(due)
    }

    /// Claims the right to give this warning. `true` for one caller, once since the last credit.
    pub async fn claim_warning(&self, account: AccountId, below_ms: u64) -> Result<bool, Error> {
        let query = sql(
            "UPDATE plans SET warned_ms = $2 WHERE account = $1 AND (warned_ms IS NULL OR warned_ms > $2)",
        );
        Ok(self.database.execute(query.bind(account.0).bind(below_ms)).await? == 1)
    }

    /// Gives a claim of [`claim_warning`](Self::claim_warning) back, because the warning reached no session. A more
    /// urgent warning, or a credit since then, stays.
    pub async fn release_warning(&self, account: AccountId, below_ms: u64) -> Result<(), Error> {
        let query = sql("UPDATE plans SET warned_ms = NULL WHERE account = $1 AND warned_ms = $2");
        self.database.execute(query.bind(account.0).bind(below_ms)).await?;
        Ok(())
    }

    /// Differences between ledger and plans. Empty when each credited hour is either played or left.
    pub async fn check_conservation(&self) -> Result<Vec<String>, Error> {
        let query = sql("SELECT total.holder, total.amount FROM (
                 SELECT holder, CAST(SUM(amount) AS BIGINT) AS amount FROM (
                     SELECT target AS holder, amount_ms AS amount FROM time_ledger
                     UNION ALL SELECT source, -amount_ms FROM time_ledger
                     UNION ALL SELECT 'a:' || CAST(account AS TEXT), -left_ms FROM plans
                     UNION ALL SELECT 'played:' || CAST(account AS TEXT), -charged_ms FROM clocks) entries
                 WHERE holder <> 'sold' GROUP BY holder) total
             WHERE total.amount <> 0");
        let mut faults = Vec::new();
        for mut row in self.database.fetch_all(query).await? {
            let (holder, amount): (String, i64) = (row.take()?, row.take()?);
            faults.push(format!("{holder} differs from its ledger by {amount} ms"));
        }
        Ok(faults)
    }
}

struct Credit<'a> {
    account: u64,
    amount_ms: u64,
    key: String,
    reason: &'a str,
}

async fn credit_in(tx: &mut Tx, credit: &Credit<'_>) -> Result<u64, BillingError> {
    let target = format!("a:{}", credit.account);
    let entry = sql("INSERT INTO time_ledger (key, at_ms, reason, source, target, amount_ms)
         VALUES ($1, {now_ms}, $2, 'sold', $3, $4) ON CONFLICT (key) DO NOTHING");
    let entry = entry.bind(&credit.key).bind(credit.reason).bind(&target).bind(credit.amount_ms);
    if tx.execute(entry).await? == 0 {
        let entry = sql("SELECT target, amount_ms FROM time_ledger WHERE key = $1").bind(&credit.key);
        let mut row = tx.fetch_optional(entry).await?.ok_or(BillingError::KeyConflict)?;
        let (there, amount): (String, u64) = (row.take()?, row.take()?);
        if there != target || amount != credit.amount_ms {
            return Err(BillingError::KeyConflict);
        }
    } else {
        let plan = sql("INSERT INTO plans (account, left_ms, warned_ms, since_ms) VALUES ($1, $2, NULL, {now_ms})
             ON CONFLICT (account) DO UPDATE SET left_ms = plans.left_ms + excluded.left_ms, warned_ms = NULL");
        tx.execute(plan.bind(credit.account).bind(credit.amount_ms)).await?;
    }
    let time_left = sql("SELECT left_ms FROM plans WHERE account = $1").bind(credit.account);
    let mut row = tx.fetch_optional(time_left).await?.ok_or(BillingError::KeyConflict)?;
    Ok(row.take()?)
}
