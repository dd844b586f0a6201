//! The centre: accounts of several regions, and the regions where each is active. Owned by the `login` daemons of the
//! home region. Each change takes the next number of one sequence, so that a region follows by one number. A repeated
//! change has no effect.

use shardkeep_types::{AccountId, Secret};

use crate::{
    Database, Error, Row, Tx,
    account_ids::advanced_counter,
    accounts::{Ban, Proof, bind_verifier, take_ban},
    sql, transact,
};

/// An account at the centre: its credentials and its ban in all regions. Regions receive it in the same form.
#[derive(Clone, PartialEq, Eq)]
pub struct Account {
    pub id: AccountId,
    pub name: String,
    pub proof: Proof,
    /// Encrypted by login's key in a store; plain between two logins.
    pub factor: Option<Secret<Vec<u8>>>,
    /// Version at which the second factor last changed; 0: never.
    pub factor_version: u64,
    pub ban: Ban,
    pub created_ms: u64,
    pub version: u64,
}

/// A region in which an account is active.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activation {
    pub region: String,
    pub since_ms: u64,
}

/// Changes that a region has not seen yet, oldest first.
pub struct Changes {
    pub accounts: Vec<Account>,
    /// A region that has these accounts has all changes up to this version.
    pub through: u64,
}

/// The columns that [`account`] reads, in its order. A macro, because statements are literals.
macro_rules! account_columns {
    () => {
        "id, name, srp_group, salt, verifier, second_factor, factor_version, banned_until_ms, ban_reason, \
         created_ms, version"
    };
}

pub mod adopt;
pub mod change;
#[cfg(test)]
mod tests;

pub async fn by_name(database: &Database, name: &str) -> Result<Option<Account>, Error> {
    let select = sql(concat!("SELECT ", account_columns!(), " FROM central_accounts WHERE name = $1"));
    database.fetch_optional(select.bind(name)).await?.map(account).transpose()
}

pub async fn by_id(database: &Database, id: AccountId) -> Result<Option<Account>, Error> {
    let select = sql(concat!("SELECT ", account_columns!(), " FROM central_accounts WHERE id = $1"));
    database.fetch_optional(select.bind(id.0)).await?.map(account).transpose()
}

/// Creates an account that is active in the region. `None`: the name is taken. A repeat with the same name and
/// credentials returns the account of the first attempt, whose answer was lost.
pub async fn create(
    database: &Database,
    name: &str,
    proof: &Proof,
    region: &str,
) -> Result<Option<Account>, Error> {
    let created: Result<AccountId, Error> = transact!(database, |tx| insert(&mut tx, name, proof));
    let id = match created {
        Ok(id) => id,
        Err(error) if error.is_duplicate() => match by_name(database, name).await? {
            Some(existing) if existing.proof == *proof => existing.id,
            _ => return Ok(None),
        },
        Err(error) => return Err(error),
    };
    activate(database, id, region).await
}

async fn insert(tx: &mut Tx, name: &str, proof: &Proof) -> Result<AccountId, Error> {
    let next = sql(concat!(
        "UPDATE central_numbers SET next_account = ",
        advanced_counter!("next_account"),
        ", version = version + 1 WHERE one = 1 RETURNING next_account - 1, version"
    ));
    let mut row = tx
        .fetch_optional(next)
        .await?
        .ok_or_else(|| Error::Corrupt("the centre has no numbers".to_owned()))?;
    let (id, version): (u64, u64) = (row.take()?, row.take()?);
    let insert = sql("INSERT INTO central_accounts (id, name, srp_group, salt, verifier, second_factor, \
         factor_version, banned_until_ms, ban_reason, created_ms, version) \
         VALUES ($1, $2, $4, $5, $6, $7, 0, 0, '', {now_ms}, $3)");
    let insert = bind_verifier(insert.bind(id).bind(name).bind(version), proof).bind(Vec::<u8>::new());
    tx.execute(insert).await?;
    Ok(AccountId(id))
}

/// Makes the account active in the region, which then receives its changes by [`changes`]. Returns the account as it
/// is now. Repeats have no effect. `None`: there is no such account.
pub async fn activate(database: &Database, id: AccountId, region: &str) -> Result<Option<Account>, Error> {
    transact!(database, |tx| async {
        // The lock orders this against a change of the account: either this reads the change, or the change finds the
        // activation.
        let Some(found) = lock(&mut tx, id).await? else { return Ok(None) };
        let insert = sql("INSERT INTO central_activations (account, region, since_ms) \
             VALUES ($1, $2, {now_ms}) ON CONFLICT (account, region) DO NOTHING");
        tx.execute(insert.bind(id.0).bind(region)).await?;
        Ok::<_, Error>(Some(found))
    })
}

/// The regions in which the account is active, by name.
pub async fn activations(database: &Database, id: AccountId) -> Result<Vec<Activation>, Error> {
    let select = sql("SELECT region, since_ms FROM central_activations WHERE account = $1 ORDER BY region");
    let rows = database.fetch_all(select.bind(id.0)).await?;
    rows.into_iter().map(|mut row| Ok(Activation { region: row.take()?, since_ms: row.take()? })).collect()
}

/// Bounds of one read, so that no statement takes long.
#[derive(Debug, Clone, Copy)]
pub struct Page {
    pub accounts: u32,
    /// Versions to look at. Most may belong to accounts that are not active in the region.
    pub versions: u64,
}

/// The next accounts active in the region that changed after this version.
pub async fn changes(database: &Database, region: &str, after: u64, page: Page) -> Result<Changes, Error> {
    // A snapshot: all versions up to its highest one are committed.
    let mut snapshot_tx = database.snapshot().await?;
    let newest = version_in(snapshot_tx.fetch_optional(sql(VERSION)).await?)?;
    let through = newest.min(after.saturating_add(page.versions));
    let select = sql(concat!(
        "SELECT ",
        account_columns!(),
        " FROM central_accounts WHERE version > $1 AND version <= $2 AND EXISTS (SELECT 1 FROM \
         central_activations WHERE central_activations.account = central_accounts.id \
         AND central_activations.region = $3) ORDER BY version LIMIT $4"
    ));
    let select = select.bind(after).bind(through).bind(region).bind(page.accounts);
    let rows = snapshot_tx.fetch_all(select).await?;
    let accounts = rows.into_iter().map(account).collect::<Result<Vec<_>, _>>()?;
    let full = accounts.len() >= page.accounts as usize;
    let last = accounts.last().map(|last| last.version).filter(|_| full);
    Ok(Changes { accounts, through: last.unwrap_or(through) })
}

const VERSION: &str = "SELECT version FROM central_numbers WHERE one = 1";

/// Version of the latest change.
pub async fn version(database: &Database) -> Result<u64, Error> {
    version_in(database.fetch_optional(sql(VERSION)).await?)
}

fn version_in(row: Option<Row>) -> Result<u64, Error> {
    row.ok_or_else(|| Error::Corrupt("the centre has no numbers".to_owned()))?.take()
}

/// The number of accounts per SRP group, by bits of its modulus.
pub async fn groups(database: &Database) -> Result<Vec<(u32, u64)>, Error> {
    let rows = database
        .fetch_all(sql("SELECT srp_group, COUNT(*) FROM central_accounts GROUP BY srp_group"))
        .await?;
    rows.into_iter().map(|mut row| Ok((row.take()?, row.take()?))).collect()
}

/// Reads the account and locks its row until the transaction ends.
async fn lock(tx: &mut Tx, id: AccountId) -> Result<Option<Account>, Error> {
    let select =
        sql(concat!("SELECT ", account_columns!(), " FROM central_accounts WHERE id = $1 {for_update}"));
    tx.fetch_optional(select.bind(id.0)).await?.map(account).transpose()
}

fn account(mut row: Row) -> Result<Account, Error> {
    Ok(Account {
        id: AccountId(row.take()?),
        name: row.take()?,
        proof: Proof { group: row.take()?, salt: row.take()?, verifier: Secret::new(row.take()?) },
        factor: Some(row.take::<Vec<u8>>()?).filter(|secret| !secret.is_empty()).map(Secret::new),
        factor_version: row.take()?,
        ban: take_ban(&mut row)?,
        created_ms: row.take()?,
        version: row.take()?,
    })
}
