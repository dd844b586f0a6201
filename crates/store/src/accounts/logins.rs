//! Logins: each raises its account's generation by compare-and-set, so that of two that began from the same one only
//! one is let in, whichever replica they came to. Many of them are one statement, and so one commit.

use std::{collections::HashMap, time::Duration};

use shardkeep_types::AccountId;

use super::{AccountGeneration, RevocationCause, leases};
use crate::{Database, Error, Query, Row, Rows, retry::execute_with_retry, sql, transact};

/// Logins in one statement, at most.
pub const MAX_BATCH: usize = 256;

/// A process that tells its followers of its own logins, so that its looks at the store need not find them. Never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process(pub(super) i64);

impl Process {
    /// No login is by this one.
    pub const NONE: Self = Self(-1);

    /// By a random number.
    pub fn new(random: [u8; 8]) -> Self {
        Self((i64::from_le_bytes(random) & i64::MAX).max(1))
    }
}

/// How logins go, the same for all.
#[derive(Debug, Clone)]
pub struct LoginRules {
    /// Nobody may be in the way (see [`leases`](super::leases)), and the new generation is leased for so long.
    pub lease: Option<Duration>,
    /// What is told to those whom a login displaces.
    pub cause: RevocationCause,
    pub login_process: Process,
}

/// Raises the generation of each account that still has this one. Says in their order who is let in. Who is not: another
/// login, a ban or a new password came between, or the present generation is leased; look again. Of several logins of
/// one account in `from` at most one is let in. At most [`MAX_BATCH`].
///
/// # Errors
/// Then nobody knows who was let in, if the database went away in the middle; otherwise nobody was.
pub async fn log_in(
    database: &Database,
    from: &[AccountGeneration],
    rules: &LoginRules,
) -> Result<Vec<bool>, Error> {
    debug_assert!(from.len() <= MAX_BATCH);
    let mut first = HashMap::with_capacity(from.len());
    for (index, login) in from.iter().enumerate() {
        first.entry(login.id).or_insert(index);
    }
    let update = update(&first, from, rules);
    let admitted = match rules.lease {
        None => ids(execute_with_retry(database, &update).await?)?,
        Some(lease) => transact!(database, |tx| async {
            let admitted = ids(tx.fetch_all(update.clone()).await?)?;
            let entered = admitted.iter().filter_map(|id| Some((*id, from[*first.get(id)?].generation)));
            let entered = entered.map(|(id, from)| AccountGeneration { id, generation: from.next() });
            leases::take(&mut tx, &entered.collect::<Vec<_>>(), lease).await?;
            Ok::<_, Error>(admitted)
        })?,
    };
    let mut outcome = vec![false; from.len()];
    for id in admitted {
        if let Some(index) = first.get(&id) {
            outcome[*index] = true;
        }
    }
    Ok(outcome)
}

fn ids(rows: Vec<Row>) -> Result<Vec<AccountId>, Error> {
    rows.into_iter().map(|mut row| Ok(AccountId(row.take()?))).collect()
}

/// Locks the rows in the order of their ids: replicas that let in the same accounts wait for each other, and never in a
/// circle.
fn update(first: &HashMap<AccountId, usize>, from: &[AccountGeneration], rules: &LoginRules) -> Query {
    let update = sql("UPDATE accounts SET generation = generation + 1, last_login_ms = {now_ms}, \
         revoked_code = $1, revoked_detail = $2, revoked_ms = {now_ms}, revoked_by = $3 FROM \
         (SELECT accounts.id AS entering FROM accounts JOIN {rows} \
         ON accounts.id = r.account AND accounts.generation = r.generation \
         WHERE $4 = 0 OR NOT EXISTS (SELECT 1 FROM login_leases WHERE login_leases.account = r.account \
         AND login_leases.generation = r.generation AND login_leases.until_ms > {now_ms}) \
         ORDER BY accounts.id {for_update}) AS free WHERE accounts.id = free.entering RETURNING id");
    let logins = || first.values().map(|index| &from[*index]);
    let rows = Rows::new()
        .ints("account", logins().map(|login| login.id.0))
        .ints("generation", logins().map(|login| login.generation.0));
    let LoginRules { lease, cause, login_process } = rules;
    update.bind(cause.code).bind(&cause.detail).bind(login_process.0).bind(lease.is_some()).rows(rows)
}
