//! Logins. Each raises the generation of its account by compare-and-set, so that only one of two concurrent logins
//! succeeds, on whichever replica. Many logins are one statement and one commit.

use std::{collections::HashMap, time::Duration};

use shardkeep_types::AccountId;

use super::{AccountGeneration, RevocationCause, leases};
use crate::{Database, Error, Query, Row, Rows, retry::execute_with_retry, sql, transact};

/// The most logins in one statement.
pub const MAX_BATCH: usize = 256;

/// Identifies the process of a login. A process tells its followers of its logins itself, so it skips them when it
/// reads revocations. Never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process(pub(super) i64);

impl Process {
    /// A value that no login has.
    pub const NONE: Self = Self(-1);

    /// An identifier from random bytes.
    pub fn new(random: [u8; 8]) -> Self {
        Self((i64::from_le_bytes(random) & i64::MAX).max(1))
    }
}

/// Rules that all logins of a batch share.
#[derive(Debug, Clone)]
pub struct LoginRules {
    /// With a value, a login fails while another connection holds a lease (see [`leases`](super::leases)), and a
    /// successful one gets a lease of this duration.
    pub lease: Option<Duration>,
    /// The message to sessions that a login displaces.
    pub cause: RevocationCause,
    pub login_process: Process,
}

/// Raises the generation of each account that still has the given one, and returns for each whether its login
/// succeeded. A login fails when another login, a ban or a new password came first, or when the generation is leased;
/// the caller reads the account again. At most one of several logins of one account succeeds. `from` has at most
/// [`MAX_BATCH`] entries.
///
/// # Errors
/// After an error for which [`Error::is_unavailable`] holds, the outcome is unknown. After any other error, no login
/// has succeeded.
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

/// The statement locks rows in the order of their ids, so that replicas that log in the same accounts do not
/// deadlock.
fn update(first: &HashMap<AccountId, usize>, from: &[AccountGeneration], rules: &LoginRules) -> Query {
    let update = sql("UPDATE accounts SET generation = generation + 1, last_login_ms = {now_ms}, \
         revoked_code = $1, revoked_detail = $2, revoked_ms = {now_ms}, revoked_by = $3 FROM \
         (SELECT accounts.id AS entering FROM accounts JOIN {rows} \
         ON accounts.id = r.account AND accounts.generation = r.generation \
         WHERE $4 = 0 OR NOT EXISTS (SELECT 1 FROM login_leases WHERE login_leases.account = r.account \
         AND login_leases.generation = r.generation AND login_leases.until_ms > {now_ms} \
         AND login_leases.until_ms <= {now_ms} + login_leases.ttl_ms + 1000) \
         ORDER BY accounts.id {for_update}) AS free WHERE accounts.id = free.entering RETURNING id");
    let logins = || first.values().map(|index| &from[*index]);
    let rows = Rows::new()
        .ints("account", logins().map(|login| login.id.0))
        .ints("generation", logins().map(|login| login.generation.0));
    let LoginRules { lease, cause, login_process } = rules;
    update.bind(cause.code).bind(&cause.detail).bind(login_process.0).bind(lease.is_some()).rows(rows)
}
