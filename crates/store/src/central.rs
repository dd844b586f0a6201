//! The centre: accounts of several regions, and in which of them each is active. Owned by the `login` daemons of the
//! home region. Every change takes the next version of one rising sequence, so that a region follows by one number,
//! and repeating a change that has happened changes nothing.

use shardkeep_types::{AccountId, Secret};

use crate::{
    Database, Error, Row, Tx,
    account_ids::advanced_counter,
    accounts::{Ban, Proof, bind_verifier, take_ban},
    sql, transact,
};

/// An account as the centre has it: what proves it, and what shuts it out everywhere. The same on its way to a region.
#[derive(Clone, PartialEq, Eq)]
pub struct Account {
    pub id: AccountId,
    pub name: String,
    pub proof: Proof,
    /// Enciphered by login's key in a store, readable on the way between two.
    pub factor: Option<Secret<Vec<u8>>>,
    /// With which version the second factor changed; 0: never.
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

/// What a region has not seen yet, oldest first.
pub struct Changes {
    pub accounts: Vec<Account>,
    /// Whoever knows these accounts has seen everything up to this version.
    pub through: u64,
}

/// The columns of [`account`], in its order. A macro, because statements are literals.
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

/// Makes an account that is active in the region. `None`: the name is taken. The same name with the same proof is the
/// same account: whoever asks again got no answer the first time.
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

/// From now on the region is told of the account's changes. Says how the account is at this moment: what changes later
/// comes by [`changes`]. Once or often, it is one activation. `None`: there is no such account.
pub async fn activate(database: &Database, id: AccountId, region: &str) -> Result<Option<Account>, Error> {
    transact!(database, |tx| async {
        // A change of the account is either seen here, or sees the activation.
        let Some(found) = lock(&mut tx, id).await? else { return Ok(None) };
        let insert = sql("INSERT INTO central_activations (account, region, since_ms) \
             VALUES ($1, $2, {now_ms}) ON CONFLICT (account, region) DO NOTHING");
        tx.execute(insert.bind(id.0).bind(region)).await?;
        Ok::<_, Error>(Some(found))
    })
}

/// Where the account is active, by the name of the region.
pub async fn activations(database: &Database, id: AccountId) -> Result<Vec<Activation>, Error> {
    let select = sql("SELECT region, since_ms FROM central_activations WHERE account = $1 ORDER BY region");
    let rows = database.fetch_all(select.bind(id.0)).await?;
    rows.into_iter().map(|mut row| Ok(Activation { region: row.take()?, since_ms: row.take()? })).collect()
}

/// How much is looked at in one statement, so that none takes long.
#[derive(Debug, Clone, Copy)]
pub struct Page {
    pub accounts: u32,
    /// Versions, of which most may be of accounts that are not active in the region.
    pub versions: u64,
}

/// The next accounts active in the region that changed after this version.
pub async fn changes(database: &Database, region: &str, after: u64, page: Page) -> Result<Changes, Error> {
    // One state of the database: no version up to its highest is still on its way.
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

/// The version of the last change.
pub async fn version(database: &Database) -> Result<u64, Error> {
    version_in(database.fetch_optional(sql(VERSION)).await?)
}

fn version_in(row: Option<Row>) -> Result<u64, Error> {
    row.ok_or_else(|| Error::Corrupt("the centre has no numbers".to_owned()))?.take()
}

/// How many accounts have which group (bits of its modulus).
pub async fn groups(database: &Database) -> Result<Vec<(u32, u64)>, Error> {
    let rows = database
        .fetch_all(sql("SELECT srp_group, COUNT(*) FROM central_accounts GROUP BY srp_group"))
        .await?;
    rows.into_iter().map(|mut row| Ok((row.take()?, row.take()?))).collect()
}

/// Reads the account and keeps others from changing it until the transaction ends.
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
