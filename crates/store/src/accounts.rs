//! Accounts: who may log in, under which generation, and who may not. Owned by `login`; nothing here is a password,
//! and what could be tried against one is kept in [`Secret`]s.

use shardkeep_types::{AccountId, Generation, Secret};

use crate::{Database, Error, Row, Tx, sql, transact};

/// `banned_until_ms` of a ban without an end.
pub const FOR_EVER: u64 = u64::MAX;

/// An account as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    pub id: AccountId,
    pub name: String,
    pub generation: Generation,
    pub created_ms: u64,
    /// 0: never.
    pub last_login_ms: u64,
    pub ban: Ban,
}

/// Until when an account may not log in, and why.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ban {
    /// Milliseconds since the Unix epoch; 0: not banned; [`FOR_EVER`].
    pub until_ms: u64,
    pub reason: String,
}

/// What proves a password, in numbers of SRP.
#[derive(Clone, PartialEq, Eq)]
pub struct Proof {
    /// Bits of the group's modulus.
    pub group: u32,
    pub salt: Vec<u8>,
    pub verifier: Secret<Vec<u8>>,
}

/// What a login needs.
pub struct Credentials {
    pub id: AccountId,
    pub generation: Generation,
    pub ban: Ban,
    pub proof: Proof,
}

/// An account that a command was applied to, with its new generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Raised {
    pub id: AccountId,
    pub generation: Generation,
}

/// Makes an account; `None` when the name is taken.
pub async fn create(database: &Database, name: &str, proof: &Proof) -> Result<Option<AccountId>, Error> {
    let made: Result<AccountId, Error> = transact!(database, |tx| insert(&mut tx, name, proof));
    match made {
        Ok(id) => Ok(Some(id)),
        Err(error) if error.is_duplicate() => Ok(None),
        Err(error) => Err(error),
    }
}

async fn insert(tx: &mut Tx, name: &str, proof: &Proof) -> Result<AccountId, Error> {
    let next = sql("UPDATE account_numbers SET next = next + 1 WHERE one = 1 RETURNING next - 1");
    let mut row =
        tx.fetch_optional(next).await?.ok_or_else(|| Error::Corrupt("no account number".to_owned()))?;
    let id: u64 = row.take()?;
    let insert = sql(
        "INSERT INTO accounts (id, name, srp_group, salt, verifier, generation, created_ms, last_login_ms, \
         banned_until_ms, ban_reason) VALUES ($1, $2, $3, $4, $5, 1, {now_ms}, 0, 0, '')",
    );
    tx.execute(bind_proof(insert.bind(id).bind(name), proof)).await?;
    Ok(AccountId(id))
}

/// Replaces the password. The generation rises: sessions of the old password end.
pub async fn set_proof(database: &Database, name: &str, proof: &Proof) -> Result<Option<Raised>, Error> {
    let update =
        sql("UPDATE accounts SET srp_group = $2, salt = $3, verifier = $4, generation = generation + 1 \
         WHERE name = $1 RETURNING id, generation");
    raised(database.execute_returning(bind_proof(update.bind(name), proof)).await?)
}

fn bind_proof(query: crate::Query, proof: &Proof) -> crate::Query {
    query.bind(proof.group).bind(proof.salt.clone()).bind(proof.verifier.expose().clone())
}

/// Bans until then; the generation rises.
pub async fn ban(database: &Database, name: &str, ban: &Ban) -> Result<Option<Raised>, Error> {
    let update =
        sql("UPDATE accounts SET banned_until_ms = $2, ban_reason = $3, generation = generation + 1 \
         WHERE name = $1 RETURNING id, generation");
    let until = i64::try_from(ban.until_ms).unwrap_or(i64::MAX);
    raised(database.execute_returning(update.bind(name).bind(until).bind(&ban.reason)).await?)
}

/// Whether there is such an account.
pub async fn unban(database: &Database, name: &str) -> Result<bool, Error> {
    let update = sql("UPDATE accounts SET banned_until_ms = 0, ban_reason = '' WHERE name = $1");
    Ok(database.execute(update.bind(name)).await? > 0)
}

/// Raises the generation whatever it is: "log out everywhere".
pub async fn raise(database: &Database, name: &str) -> Result<Option<Raised>, Error> {
    let update =
        sql("UPDATE accounts SET generation = generation + 1 WHERE name = $1 RETURNING id, generation");
    raised(database.execute_returning(update.bind(name)).await?)
}

/// A login: raises the generation if it is still this one. `false`: another login, a ban or a new password came
/// between; look again.
pub async fn log_in(database: &Database, id: AccountId, from: Generation) -> Result<bool, Error> {
    let update = sql(
        "UPDATE accounts SET generation = $2 + 1, last_login_ms = {now_ms} WHERE id = $1 AND generation = $2",
    );
    Ok(database.execute(update.bind(id.0).bind(from.0)).await? > 0)
}

pub async fn credentials(database: &Database, name: &str) -> Result<Option<Credentials>, Error> {
    let select =
        sql("SELECT id, generation, banned_until_ms, ban_reason, srp_group, salt, verifier FROM accounts \
         WHERE name = $1");
    let Some(mut row) = database.fetch_optional(select.bind(name)).await? else { return Ok(None) };
    Ok(Some(Credentials {
        id: AccountId(row.take()?),
        generation: Generation(row.take()?),
        ban: take_ban(&mut row)?,
        proof: Proof { group: row.take()?, salt: row.take()?, verifier: Secret::new(row.take()?) },
    }))
}

pub async fn by_name(database: &Database, name: &str) -> Result<Option<Account>, Error> {
    let select = sql(
        "SELECT id, name, generation, created_ms, last_login_ms, banned_until_ms, ban_reason FROM accounts \
         WHERE name = $1",
    );
    database.fetch_optional(select.bind(name)).await?.map(account).transpose()
}

pub async fn by_id(database: &Database, id: AccountId) -> Result<Option<Account>, Error> {
    let select = sql(
        "SELECT id, name, generation, created_ms, last_login_ms, banned_until_ms, ban_reason FROM accounts \
         WHERE id = $1",
    );
    database.fetch_optional(select.bind(id.0)).await?.map(account).transpose()
}

/// Accounts whose names start with `prefix`, after `after`, in the order of their names.
pub async fn list(database: &Database, prefix: &str, after: &str, limit: u32) -> Result<Vec<Account>, Error> {
    let select = sql(
        "SELECT id, name, generation, created_ms, last_login_ms, banned_until_ms, ban_reason FROM accounts \
         WHERE substr(name, 1, length($1)) = $1 AND name > $2 ORDER BY name LIMIT $3",
    );
    let rows = database.fetch_all(select.bind(prefix).bind(after).bind(limit)).await?;
    rows.into_iter().map(account).collect()
}

/// How many accounts have which group (bits of its modulus).
pub async fn groups(database: &Database) -> Result<Vec<(u32, u64)>, Error> {
    let select = sql("SELECT srp_group, COUNT(*) FROM accounts GROUP BY srp_group");
    let rows = database.fetch_all(select).await?;
    rows.into_iter().map(|mut row| Ok((row.take()?, row.take()?))).collect()
}

/// A secret that all replicas share: what is stored, or `fresh` if nothing was.
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
    })
}

fn take_ban(row: &mut Row) -> Result<Ban, Error> {
    let until: i64 = row.take()?;
    let until_ms = if until == i64::MAX { FOR_EVER } else { u64::try_from(until).unwrap_or(0) };
    Ok(Ban { until_ms, reason: row.take()? })
}

fn raised(rows: Vec<Row>) -> Result<Option<Raised>, Error> {
    let row = rows.into_iter().next();
    row.map(|mut row| Ok(Raised { id: AccountId(row.take()?), generation: Generation(row.take()?) }))
        .transpose()
}

#[cfg(test)]
mod tests {
    use shardkeep_testkit::Postgres;

    use super::*;
    use crate::Schema;

    fn proof(byte: u8) -> Proof {
        Proof { group: 2048, salt: vec![byte; 16], verifier: Secret::new(vec![byte; 256]) }
    }

    async fn accounts_live(database: &Database) {
        let alice = create(database, "alice", &proof(1)).await.unwrap().unwrap();
        assert_eq!(create(database, "alice", &proof(2)).await.unwrap(), None);
        let bob = create(database, "bob", &proof(3)).await.unwrap().unwrap();
        assert_ne!(alice, bob);

        let found = credentials(database, "alice").await.unwrap().unwrap();
        assert!(found.id == alice && found.proof == proof(1) && found.ban == Ban::default());
        assert!(credentials(database, "carol").await.unwrap().is_none());

        // Two logins from the same generation: one wins.
        assert!(log_in(database, alice, found.generation).await.unwrap());
        assert!(!log_in(database, alice, found.generation).await.unwrap());
        let seen = by_id(database, alice).await.unwrap().unwrap();
        assert_eq!(seen.generation, found.generation.next());
        assert!(seen.last_login_ms >= seen.created_ms && seen.created_ms > 0);
        assert_eq!(by_name(database, "alice").await.unwrap(), Some(seen));
    }

    async fn commands_raise_the_generation(database: &Database) {
        create(database, "dora", &proof(1)).await.unwrap().unwrap();
        let for_ever = Ban { until_ms: FOR_EVER, reason: "cheats".to_owned() };
        let banned = ban(database, "dora", &for_ever).await.unwrap().unwrap();
        assert_eq!(banned.generation, Generation(2));
        assert_eq!(credentials(database, "dora").await.unwrap().unwrap().ban, for_ever);
        assert!(unban(database, "dora").await.unwrap());
        assert_eq!(by_name(database, "dora").await.unwrap().unwrap().ban, Ban::default());
        assert_eq!(raise(database, "dora").await.unwrap().unwrap().generation, Generation(3));
        assert_eq!(set_proof(database, "dora", &proof(9)).await.unwrap().unwrap().generation, Generation(4));
        assert!(credentials(database, "dora").await.unwrap().unwrap().proof == proof(9));

        assert_eq!(raise(database, "nobody").await.unwrap(), None);
        assert_eq!(ban(database, "nobody", &for_ever).await.unwrap(), None);
        assert!(!unban(database, "nobody").await.unwrap());
    }

    async fn lists_go_page_by_page(database: &Database) {
        for name in ["x_a", "xba", "x_b", "x_c"] {
            create(database, name, &proof(1)).await.unwrap().unwrap();
        }
        let names =
            |accounts: Vec<Account>| accounts.into_iter().map(|account| account.name).collect::<Vec<_>>();
        let first = names(list(database, "x_", "", 2).await.unwrap());
        assert_eq!(first, ["x_a", "x_b"]);
        assert_eq!(names(list(database, "x_", &first[1], 2).await.unwrap()), ["x_c"]);
    }

    async fn groups_are_counted(database: &Database) {
        let before = groups(database).await.unwrap();
        let [(2048, usual)] = before[..] else { panic!("{before:?}") };
        create(database, "long", &Proof { group: 4096, ..proof(1) }).await.unwrap().unwrap();
        let mut after = groups(database).await.unwrap();
        after.sort_unstable();
        assert_eq!(after, [(2048, usual), (4096, 1)]);
    }

    async fn secrets_are_made_once(database: &Database) {
        let first = shared_secret(database, "decoy", &Secret::new([1; 32])).await.unwrap();
        assert_eq!(shared_secret(database, "decoy", &Secret::new([2; 32])).await.unwrap(), first);
    }

    async fn all(database: &Database) {
        accounts_live(database).await;
        commands_raise_the_generation(database).await;
        lists_go_page_by_page(database).await;
        secrets_are_made_once(database).await;
        groups_are_counted(database).await;
    }

    #[tokio::test]
    async fn on_sqlite() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("login.db").display());
        all(&Database::open(&url, Schema::Accounts).await.unwrap()).await;
    }

    #[tokio::test]
    async fn on_postgres() {
        let server = Postgres::start().await;
        all(&Database::open(&server.url(), Schema::Accounts).await.unwrap()).await;
    }
}
