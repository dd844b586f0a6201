//! The part of a region's store that belongs to a centre: copies of the centre's accounts that are active in the
//! region, and the version up to which the region has followed. A copy may be written repeatedly; only a newer
//! version changes it.

use shardkeep_types::{AccountId, Generation};

use super::{AccountGeneration, RevocationCause, ban_until, bind_verifier, revocations};
use crate::{Database, Error, Tx, central::Account, sql, transact};

/// Messages to sessions that a change at the centre ends.
pub struct RevocationCauses {
    pub password: RevocationCause,
    pub factor: RevocationCause,
    pub ban: RevocationCause,
}

/// The outcome of writing a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopyOutcome {
    /// The account is now active in this region.
    Inserted,
    /// The copy was newer.
    Updated { ended: Option<(AccountGeneration, RevocationCause)> },
    /// The stored account is as new or newer.
    Unchanged,
}

/// Writes a copy of a centre's account; `account` holds the second factor as it is to be stored. A new password,
/// second factor or ban raises the generation, so running sessions end.
pub async fn apply(
    database: &Database,
    account: &Account,
    causes: &RevocationCauses,
) -> Result<CopyOutcome, Error> {
    transact!(database, |tx| write(&mut tx, account, causes))
}

async fn write(tx: &mut Tx, account: &Account, causes: &RevocationCauses) -> Result<CopyOutcome, Error> {
    let mut local = LocalAccount::lock(tx, account.id).await?;
    if local.is_none() {
        if insert(tx, account).await? {
            write_factor(tx, account).await?;
            return Ok(CopyOutcome::Inserted);
        }
        local = LocalAccount::lock(tx, account.id).await?;
    }
    // Another account has the name.
    let Some(local) = local else { return Err(foreign_account_error(account)) };
    if local.version >= account.version {
        return Ok(CopyOutcome::Unchanged);
    }
    if local.name != account.name {
        return Err(foreign_account_error(account));
    }
    let banned = account.ban.until_ms > local.now_ms && local.ban_until != ban_until(&account.ban);
    let proven = !local.proof_differs(account);
    let ended = banned || !proven || local.needs_factor_of(account);
    let update = sql("UPDATE accounts SET central_version = $2, everywhere_until_ms = $3, \
         everywhere_reason = $4, generation = generation + $5, srp_group = $6, salt = $7, verifier = $8 \
         WHERE id = $1 RETURNING generation");
    let update = update.bind(account.id.0).bind(account.version);
    let update = update.bind(ban_until(&account.ban)).bind(&account.ban.reason).bind(ended);
    let row = tx.fetch_optional(bind_verifier(update, &account.proof)).await?;
    let mut row = row.ok_or_else(|| Error::Corrupt(format!("account {} vanished", account.id)))?;
    let raised = AccountGeneration { id: account.id, generation: Generation(row.take()?) };
    write_factor(tx, account).await?;
    if !ended {
        return Ok(CopyOutcome::Updated { ended: None });
    }
    let cause = match (banned, proven) {
        (true, _) => &causes.ban,
        (false, false) => &causes.password,
        (false, true) => &causes.factor,
    };
    revocations::record_cause(tx, raised, cause).await?;
    Ok(CopyOutcome::Updated { ended: Some((raised, cause.clone())) })
}

/// The columns that are compared with a copy.
struct LocalAccount {
    name: String,
    version: u64,
    group: u32,
    salt: Vec<u8>,
    verifier: Vec<u8>,
    ban_until: i64,
    /// Version of the confirmed second factor; `None`: there is none.
    factor_version: Option<u64>,
    now_ms: u64,
}

impl LocalAccount {
    async fn lock(tx: &mut Tx, id: AccountId) -> Result<Option<Self>, Error> {
        let select = sql("SELECT name, central_version, srp_group, salt, verifier, everywhere_until_ms, \
             (SELECT central_version FROM second_factors WHERE account = accounts.id AND confirmed = 1), \
             {now_ms} FROM accounts WHERE id = $1 {for_update}");
        let Some(mut row) = tx.fetch_optional(select.bind(id.0)).await? else { return Ok(None) };
        Ok(Some(Self {
            name: row.take()?,
            version: row.take()?,
            group: row.take()?,
            salt: row.take()?,
            verifier: row.take()?,
            ban_until: row.take()?,
            factor_version: row.take()?,
            now_ms: row.take()?,
        }))
    }

    fn proof_differs(&self, account: &Account) -> bool {
        let proof = &account.proof;
        self.group != proof.group || self.salt != proof.salt || self.verifier != *proof.verifier.expose()
    }

    /// Whether the copy brings a second factor into force.
    fn needs_factor_of(&self, account: &Account) -> bool {
        account.factor.is_some() && self.factor_version.is_none_or(|local| local < account.factor_version)
    }
}

/// `false`: another replica was first, or the name is taken. ON CONFLICT names no column: when two replicas insert
/// the same account at once, PostgreSQL may detect the second one's name before its id.
async fn insert(tx: &mut Tx, account: &Account) -> Result<bool, Error> {
    let insert = sql("INSERT INTO accounts (id, name, created_ms, central_version, everywhere_until_ms, \
         everywhere_reason, srp_group, salt, verifier, generation, last_login_ms, banned_until_ms, ban_reason) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 1, 0, 0, '') ON CONFLICT DO NOTHING");
    let insert = insert.bind(account.id.0).bind(&account.name).bind(account.created_ms);
    let insert = insert.bind(account.version).bind(ban_until(&account.ban)).bind(&account.ban.reason);
    Ok(tx.execute(bind_verifier(insert, &account.proof)).await? > 0)
}

/// Used codes stay used unless the secret changes. If a factor was begun in this region, it is the one that its
/// player has confirmed.
async fn write_factor(tx: &mut Tx, account: &Account) -> Result<(), Error> {
    let write = match &account.factor {
        Some(secret) => {
            sql("INSERT INTO second_factors (account, secret, confirmed, last_step, full_at_ms, \
             central_version) VALUES ($1, $2, 1, 0, 0, $3) ON CONFLICT (account) DO UPDATE SET \
             secret = excluded.secret, confirmed = 1, full_at_ms = 0, \
             last_step = CASE WHEN second_factors.confirmed = 0 THEN second_factors.last_step ELSE 0 END, \
             central_version = excluded.central_version \
             WHERE second_factors.central_version < excluded.central_version")
            .bind(account.id.0)
            .bind(secret.expose().clone())
            .bind(account.factor_version)
        }
        // The centre does not know of a factor that was begun here, so it stays.
        None => sql("DELETE FROM second_factors WHERE account = $1 AND confirmed = 1").bind(account.id.0),
    };
    tx.execute(write).await.map(drop)
}

fn foreign_account_error(account: &Account) -> Error {
    Error::Corrupt(format!(
        "this store holds an account with the name or the id of the centre's account {} ({}): is it of another centre?",
        account.name, account.id
    ))
}

/// The store's relation to a centre, when a daemon starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegionMembership {
    /// The store belongs to this region.
    Member(String),
    /// The store belongs to no region, and holds this many accounts that no centre knows.
    Standalone { accounts: u64 },
}

/// The region that the store belongs to.
pub async fn region(database: &Database) -> Result<Option<String>, Error> {
    let row = database.fetch_optional(sql("SELECT region FROM central_region")).await?;
    row.map(|mut row| row.take()).transpose()
}

/// Assigns the store to a region if it has none and holds no accounts. Returns the resulting relation.
pub async fn join(database: &Database, name: &str) -> Result<RegionMembership, Error> {
    // Checked before the accounts are counted, which happens only once.
    if let Some(existing) = region(database).await? {
        return Ok(RegionMembership::Member(existing));
    }
    let insert = sql("INSERT INTO central_region (one, region, version) SELECT 1, $1, 0 \
         WHERE NOT EXISTS (SELECT 1 FROM accounts WHERE central_version = 0) ON CONFLICT (one) DO NOTHING");
    database.execute(insert.bind(name)).await?;
    if let Some(now) = region(database).await? {
        return Ok(RegionMembership::Member(now));
    }
    let count =
        database.fetch_optional(sql("SELECT COUNT(*) FROM accounts WHERE central_version = 0")).await?;
    let mut count = count.ok_or_else(|| Error::Corrupt("a count without a row".to_owned()))?;
    Ok(RegionMembership::Standalone { accounts: count.take()? })
}

/// The version up to which this store has the centre's changes.
pub async fn followed(database: &Database) -> Result<u64, Error> {
    let row = database.fetch_optional(sql("SELECT version FROM central_region")).await?;
    row.ok_or_else(|| Error::Corrupt("the store belongs to no region".to_owned()))?.take()
}

/// Records that this store has the centre's changes up to this version.
pub async fn follow(database: &Database, through: u64) -> Result<(), Error> {
    let update = sql("UPDATE central_region SET version = $1 WHERE version < $1");
    database.execute(update.bind(through)).await.map(drop)
}
