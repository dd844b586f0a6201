//! Player accounts: their credentials, generations and bans. Owned by `login`. No column holds a password; verifiers,
//! which allow a dictionary attack, are [`Secret`]s.

pub mod closed_worlds;
pub mod invitations;
pub mod leases;
pub mod logins;
pub mod regional;
pub mod revocations;
pub mod second_factor;
#[cfg(test)]
mod tests;

use shardkeep_types::{AccountId, Generation, Secret};

use crate::{
    Database, Error, Row, Rows, Tx, account_ids::advanced_counter, retry::execute_with_retry, sql, transact,
};

/// `banned_until_ms` of a permanent ban.
pub const FOREVER: u64 = u64::MAX;

/// An account as commands of operators show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    pub id: AccountId,
    pub name: String,
    pub generation: Generation,
    pub created_ms: u64,
    /// 0: the account has never logged in.
    pub last_login_ms: u64,
    /// The ban of this region.
    pub ban: Ban,
    /// The ban of the centre.
    pub ban_everywhere: Ban,
    /// Version of the centre's account of which this is a copy; 0: no centre has the account.
    pub central_version: u64,
    /// Whether the account may enter worlds that are closed to players.
    pub staff: bool,
    /// Whether a second factor is in force.
    pub second_factor: bool,
}

impl Account {
    /// The longer of the two bans.
    pub fn effective_ban(&self) -> Ban {
        self.ban.clone().longer_of(self.ban_everywhere.clone())
    }
}

/// The end of a ban and its reason.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ban {
    /// Milliseconds since the Unix epoch; 0 means no ban, and [`FOREVER`] a permanent one.
    pub until_ms: u64,
    pub reason: String,
}

impl Ban {
    /// The ban that ends later.
    #[must_use]
    fn longer_of(self, other: Self) -> Self {
        if other.until_ms > self.until_ms { other } else { self }
    }
}

/// The SRP data that verifies a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Proof {
    /// Bits of the group's modulus.
    pub group: u32,
    pub salt: Vec<u8>,
    pub verifier: Secret<Vec<u8>>,
}

/// The data that login needs to check a player.
pub struct Credentials {
    pub id: AccountId,
    pub generation: Generation,
    /// The ban of this region or of the centre, whichever lasts longer.
    pub ban: Ban,
    pub staff: bool,
    /// The secret of the confirmed second factor, as login stored it. It also identifies this factor among later
    /// ones.
    pub second_factor: Option<Secret<Vec<u8>>>,
    pub proof: Proof,
}

/// The message to sessions that a new generation ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevocationCause {
    /// An error code of the client protocol.
    pub code: u32,
    pub detail: String,
}

/// An account after a command, with its new generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccountGeneration {
    pub id: AccountId,
    pub generation: Generation,
}

/// A statement that raises generations and records the cause in the same row. `$set` adds columns; its arguments
/// begin with `$3`. A macro, because statements are literals.
macro_rules! raise_generation_sql {
    ($set:literal, $where:literal, $cause:expr) => {
        sql(concat!(
            "UPDATE accounts SET generation = generation + 1, revoked_code = $1, revoked_detail = $2, \
             revoked_ms = {now_ms}, revoked_by = 0",
            $set,
            " WHERE ",
            $where,
            " RETURNING id, generation"
        ))
        .bind($cause.code)
        .bind(&$cause.detail)
    };
}

/// Creates an account; `None` when the name is taken.
pub async fn create(database: &Database, name: &str, proof: &Proof) -> Result<Option<AccountId>, Error> {
    let created: Result<AccountId, Error> = transact!(database, |tx| insert(&mut tx, name, proof));
    match created {
        Ok(id) => Ok(Some(id)),
        Err(error) if error.is_duplicate() => Ok(None),
        Err(error) => Err(error),
    }
}

async fn insert(tx: &mut Tx, name: &str, proof: &Proof) -> Result<AccountId, Error> {
    let next = sql(concat!(
        "UPDATE account_numbers SET next = ",
        advanced_counter!("next"),
        " WHERE one = 1 RETURNING next - 1"
    ));
    let mut row =
        tx.fetch_optional(next).await?.ok_or_else(|| Error::Corrupt("no account number".to_owned()))?;
    let id: u64 = row.take()?;
    let insert = sql(
        "INSERT INTO accounts (id, name, srp_group, salt, verifier, generation, created_ms, last_login_ms, \
         banned_until_ms, ban_reason) VALUES ($1, $2, $3, $4, $5, 1, {now_ms}, 0, 0, '')",
    );
    tx.execute(bind_verifier(insert.bind(id).bind(name), proof)).await?;
    Ok(AccountId(id))
}

/// Replaces the password. The generation rises, so sessions of the old password end.
pub async fn set_proof(
    database: &Database,
    name: &str,
    proof: &Proof,
    cause: &RevocationCause,
) -> Result<Option<AccountGeneration>, Error> {
    let update = raise_generation_sql!(", srp_group = $4, salt = $5, verifier = $6", "name = $3", cause);
    execute_raise(database, bind_verifier(update.bind(name), proof)).await
}

/// The same at the player's request. `None`: the player's session is outdated.
pub async fn change_proof(
    database: &Database,
    id: AccountId,
    from: Generation,
    proof: &Proof,
    cause: &RevocationCause,
) -> Result<Option<AccountGeneration>, Error> {
    let update = raise_generation_sql!(
        ", srp_group = $5, salt = $6, verifier = $7",
        "id = $3 AND generation = $4",
        cause
    );
    execute_raise(database, bind_verifier(update.bind(id.0).bind(from.0), proof)).await
}

pub(crate) fn bind_verifier(query: crate::Query, proof: &Proof) -> crate::Query {
    query.bind(proof.group).bind(proof.salt.clone()).bind(proof.verifier.expose().clone())
}

/// Bans the account. The generation rises.
pub async fn ban(
    database: &Database,
    name: &str,
    ban: &Ban,
    cause: &RevocationCause,
) -> Result<Option<AccountGeneration>, Error> {
    let update = raise_generation_sql!(", banned_until_ms = $4, ban_reason = $5", "name = $3", cause);
    execute_raise(database, update.bind(name).bind(ban_until(ban)).bind(&ban.reason)).await
}

/// The end of a ban as a column stores it.
pub(crate) fn ban_until(ban: &Ban) -> i64 {
    i64::try_from(ban.until_ms).unwrap_or(i64::MAX)
}

/// `false`: there is no such account.
pub async fn unban(database: &Database, name: &str) -> Result<bool, Error> {
    let update = sql("UPDATE accounts SET banned_until_ms = 0, ban_reason = '' WHERE name = $1");
    Ok(database.execute(update.bind(name)).await? > 0)
}

/// `false`: there is no such account.
pub async fn set_staff(database: &Database, name: &str, staff: bool) -> Result<bool, Error> {
    let update = sql("UPDATE accounts SET staff = $2 WHERE name = $1");
    Ok(database.execute(update.bind(name).bind(staff)).await? > 0)
}

/// Raises the generation ("log out everywhere").
pub async fn raise_generation(
    database: &Database,
    name: &str,
    cause: &RevocationCause,
) -> Result<Option<AccountGeneration>, Error> {
    execute_raise(database, raise_generation_sql!("", "name = $3", cause).bind(name)).await
}

/// The same at the player's request. `None`: the player's session is outdated.
pub async fn raise_generation_if_current(
    database: &Database,
    id: AccountId,
    from: Generation,
    cause: &RevocationCause,
) -> Result<Option<AccountGeneration>, Error> {
    execute_raise(
        database,
        raise_generation_sql!("", "id = $3 AND generation = $4", cause).bind(id.0).bind(from.0),
    )
    .await
}

/// Raises the generation inside a transaction that also changes something else. `None`: there is no such account.
async fn raise_generation_in(
    tx: &mut Tx,
    id: AccountId,
    cause: &RevocationCause,
) -> Result<Option<AccountGeneration>, Error> {
    raised(tx.fetch_optional(raise_generation_sql!("", "id = $3", cause).bind(id.0)).await?)
}

/// Whether the player's session has the account's current generation. The row stays locked until the transaction
/// ends.
async fn is_current_session(tx: &mut Tx, of: AccountGeneration) -> Result<bool, Error> {
    let select = sql("SELECT id FROM accounts WHERE id = $1 AND generation = $2 {for_update}");
    Ok(tx.fetch_optional(select.bind(of.id.0).bind(of.generation.0)).await?.is_some())
}

/// Runs a statement of [`raise_generation_sql`], and retries it after a conflict.
async fn execute_raise(
    database: &Database,
    update: crate::Query,
) -> Result<Option<AccountGeneration>, Error> {
    raised(execute_with_retry(database, &update).await?.into_iter().next())
}

pub async fn credentials(database: &Database, name: &str) -> Result<Option<Credentials>, Error> {
    Ok(credentials_of(database, &[name]).await?.pop().flatten())
}

/// The credentials of several names, in their order.
pub async fn credentials_of(
    database: &Database,
    names: &[impl AsRef<str>],
) -> Result<Vec<Option<Credentials>>, Error> {
    let select = sql("SELECT r.place, id, generation, banned_until_ms, ban_reason, everywhere_until_ms, \
         everywhere_reason, staff, \
         (SELECT secret FROM second_factors WHERE account = accounts.id AND confirmed = 1), \
         srp_group, salt, verifier FROM {rows} JOIN accounts ON accounts.name = r.name");
    let rows =
        Rows::new().ints("place", 0..names.len() as u64).texts("name", names.iter().map(AsRef::as_ref));
    let mut found: Vec<_> = names.iter().map(|_| None).collect();
    for mut row in database.fetch_all(select.rows(rows)).await? {
        let credentials = row_slot(&mut found, &mut row)?;
        *credentials = Some(Credentials {
            id: AccountId(row.take()?),
            generation: Generation(row.take()?),
            ban: take_ban(&mut row)?.longer_of(take_ban(&mut row)?),
            staff: row.take()?,
            second_factor: row.take::<Option<Vec<u8>>>()?.map(Secret::new),
            proof: Proof { group: row.take()?, salt: row.take()?, verifier: Secret::new(row.take()?) },
        });
    }
    Ok(found)
}

/// The current generations of several accounts, in their order.
pub async fn generations(database: &Database, ids: &[AccountId]) -> Result<Vec<Option<Generation>>, Error> {
    let select = sql("SELECT r.place, generation FROM {rows} JOIN accounts ON accounts.id = r.id");
    let rows = Rows::new().ints("place", 0..ids.len() as u64).ints("id", ids.iter().map(|id| id.0));
    let mut found = vec![None; ids.len()];
    for mut row in database.fetch_all(select.rows(rows)).await? {
        let generation = row_slot(&mut found, &mut row)?;
        *generation = Some(Generation(row.take()?));
    }
    Ok(found)
}

/// The element of `found` that a row belongs to; the row begins with its index.
fn row_slot<'a, T>(found: &'a mut [T], row: &mut Row) -> Result<&'a mut T, Error> {
    let row_slot: u32 = row.take()?;
    found.get_mut(row_slot as usize).ok_or_else(|| Error::Corrupt("a row that nobody asked for".to_owned()))
}

/// The columns that [`account`] reads, in its order. A macro, because statements are literals.
macro_rules! account_columns {
    () => {
        "id, name, generation, created_ms, last_login_ms, banned_until_ms, ban_reason, \
         everywhere_until_ms, everywhere_reason, central_version, staff, \
         (SELECT COUNT(*) FROM second_factors WHERE account = accounts.id AND confirmed = 1)"
    };
}

pub async fn by_name(database: &Database, name: &str) -> Result<Option<Account>, Error> {
    let select = sql(concat!("SELECT ", account_columns!(), " FROM accounts WHERE name = $1"));
    database.fetch_optional(select.bind(name)).await?.map(account).transpose()
}

pub async fn by_id(database: &Database, id: AccountId) -> Result<Option<Account>, Error> {
    let select = sql(concat!("SELECT ", account_columns!(), " FROM accounts WHERE id = $1"));
    database.fetch_optional(select.bind(id.0)).await?.map(account).transpose()
}

/// Accounts whose names start with `prefix` and follow `after`, sorted by name.
pub async fn list(database: &Database, prefix: &str, after: &str, limit: u32) -> Result<Vec<Account>, Error> {
    let select = sql(concat!(
        "SELECT ",
        account_columns!(),
        " FROM accounts WHERE substr(name, 1, length($1)) = $1 AND name > $2 ORDER BY name LIMIT $3"
    ));
    let rows = database.fetch_all(select.bind(prefix).bind(after).bind(limit)).await?;
    rows.into_iter().map(account).collect()
}

/// The number of accounts per SRP group, by bits of its modulus.
pub async fn groups(database: &Database) -> Result<Vec<(u32, u64)>, Error> {
    let select = sql("SELECT srp_group, COUNT(*) FROM accounts GROUP BY srp_group");
    let rows = database.fetch_all(select).await?;
    rows.into_iter().map(|mut row| Ok((row.take()?, row.take()?))).collect()
}

/// A secret that all replicas share: the stored one, or `fresh` if none is stored.
pub async fn shared_secret(
    database: &Database,
    name: &str,
    fresh: &Secret<[u8; 32]>,
) -> Result<Secret<[u8; 32]>, Error> {
    let insert =
        sql("INSERT INTO account_secrets (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING");
    database.execute(insert.bind(name).bind(*fresh.expose())).await?;
    let select = sql("SELECT value FROM account_secrets WHERE name = $1");
    let row = database.fetch_optional(select.bind(name)).await?;
    let value: Vec<u8> = row.ok_or_else(|| Error::Corrupt(format!("the secret {name} vanished")))?.take()?;
    let value = value.try_into().map_err(|_| Error::Corrupt(format!("the secret {name} is not 32 bytes")))?;
    Ok(Secret::new(value))
}

fn account(mut row: Row) -> Result<Account, Error> {
    Ok(Account {
        id: AccountId(row.take()?),
        name: row.take()?,
        generation: Generation(row.take()?),
        created_ms: row.take()?,
        last_login_ms: row.take()?,
        ban: take_ban(&mut row)?,
        ban_everywhere: take_ban(&mut row)?,
        central_version: row.take()?,
        staff: row.take()?,
        second_factor: row.take()?,
    })
}

pub(crate) fn take_ban(row: &mut Row) -> Result<Ban, Error> {
    let until: i64 = row.take()?;
    let until_ms = if until == i64::MAX { FOREVER } else { u64::try_from(until).unwrap_or(0) };
    Ok(Ban { until_ms, reason: row.take()? })
}

fn raised(row: Option<Row>) -> Result<Option<AccountGeneration>, Error> {
    row.map(|mut row| {
        Ok(AccountGeneration { id: AccountId(row.take()?), generation: Generation(row.take()?) })
    })
    .transpose()
}
