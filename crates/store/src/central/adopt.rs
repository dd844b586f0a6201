//! Turns a game of one region into the home region of several: the centre takes over the accounts of its store, with
//! their ids. A repeat, also after an interruption, does only what is missing.

use shardkeep_types::{AccountId, Secret};

use super::{Account, version_in};
use crate::{
    Database, Error, Row, Rows, Tx,
    accounts::{Ban, Proof},
    sql, transact,
};

/// Accounts in one transaction.
const PAGE: u32 = 500;

/// Copies all accounts of the region's store to the centre, and returns how many the centre did not have. Both stores
/// encrypt second factors with the same key.
///
/// # Errors
/// Also when the centre has another account with the same name or id. Then no account of that batch is copied.
pub async fn adopt(centre: &Database, store: &Database, region: &str) -> Result<u64, Error> {
    reserve_ids(centre, store).await?;
    let (mut adopted, mut after) = (0, 0);
    loop {
        let page = accounts_without_centre(store, after).await?;
        let Some(last) = page.last() else { return Ok(adopted) };
        after = last.id.0;
        adopted += page.len() as u64;
        let taken: Result<Vec<Account>, Error> = transact!(centre, |tx| take(&mut tx, &page, region));
        let taken = taken.map_err(|error| if error.is_duplicate() { id_conflict_error() } else { error })?;
        let is_adopted = |ours: &Account| {
            taken.iter().any(|it| it.id == ours.id && it.name == ours.name && it.proof == ours.proof)
        };
        if !page.iter().all(is_adopted) {
            return Err(id_conflict_error());
        }
        mark_as_copies(store, &taken).await?;
    }
}

fn id_conflict_error() -> Error {
    Error::Corrupt("the centre has other accounts under names or ids that the region's store uses".to_owned())
}

/// Keeps new accounts from getting ids that are about to be copied.
async fn reserve_ids(centre: &Database, store: &Database) -> Result<(), Error> {
    let highest = store.fetch_optional(sql("SELECT COALESCE(MAX(id), 0) FROM accounts")).await?;
    let mut highest = highest.ok_or_else(|| Error::Corrupt("a maximum without a row".to_owned()))?;
    let update = sql("UPDATE central_numbers SET next_account = $1 + 1 WHERE next_account <= $1");
    centre.execute(update.bind(highest.take::<u64>()?)).await.map(drop)
}

/// Accounts that no centre knows, by id.
async fn accounts_without_centre(store: &Database, after: u64) -> Result<Vec<Account>, Error> {
    let select =
        sql("SELECT accounts.id, name, srp_group, salt, verifier, created_ms, second_factors.secret \
         FROM accounts LEFT JOIN second_factors ON second_factors.account = accounts.id \
         AND second_factors.confirmed = 1 \
         WHERE accounts.central_version = 0 AND accounts.id > $1 ORDER BY accounts.id LIMIT $2");
    let rows = store.fetch_all(select.bind(after).bind(PAGE)).await?;
    let account = |mut row: Row| {
        Ok(Account {
            id: AccountId(row.take()?),
            name: row.take()?,
            proof: Proof { group: row.take()?, salt: row.take()?, verifier: Secret::new(row.take()?) },
            created_ms: row.take()?,
            factor: row.take::<Option<Vec<u8>>>()?.map(Secret::new),
            factor_version: 0,
            ban: Ban::default(),
            version: 0,
        })
    };
    rows.into_iter().map(account).collect()
}

/// Copies the accounts as active in the region, and returns them as the centre has them.
async fn take(tx: &mut Tx, page: &[Account], region: &str) -> Result<Vec<Account>, Error> {
    let before = version_in(
        tx.fetch_optional(sql("SELECT version FROM central_numbers WHERE one = 1 {for_update}")).await?,
    )?;
    let ids = || Rows::new().ints("id", page.iter().map(|it| it.id.0));
    let rows = ids()
        .texts("name", page.iter().map(|it| it.name.clone()))
        .ints("srp_group", page.iter().map(|it| it.proof.group))
        .blobs("salt", page.iter().map(|it| it.proof.salt.clone()))
        .blobs("verifier", page.iter().map(|it| it.proof.verifier.expose().clone()))
        .blobs(
            "factor",
            page.iter().map(|it| it.factor.as_ref().map_or_else(Vec::new, |it| it.expose().clone())),
        )
        .ints("created_ms", page.iter().map(|it| it.created_ms))
        .ints("version", (before + 1..).take(page.len()));
    // Without `WHERE`, SQLite parses ON CONFLICT as a join.
    let insert = sql("INSERT INTO central_accounts (id, name, srp_group, salt, verifier, second_factor, \
         factor_version, banned_until_ms, ban_reason, created_ms, version) \
         SELECT r.id, r.name, r.srp_group, r.salt, r.verifier, r.factor, r.version, 0, '', r.created_ms, r.version \
         FROM {rows} WHERE 1 = 1 ON CONFLICT (id) DO NOTHING");
    tx.execute(insert.rows(rows)).await?;
    let count = sql("UPDATE central_numbers SET version = version + $1 WHERE one = 1");
    tx.execute(count.bind(page.len() as u64)).await?;
    let activate = sql("INSERT INTO central_activations (account, region, since_ms) \
         SELECT r.id, $1, {now_ms} FROM {rows} WHERE 1 = 1 ON CONFLICT (account, region) DO NOTHING");
    tx.execute(activate.bind(region).rows(ids())).await?;
    let select = sql(concat!(
        "SELECT ",
        account_columns!(),
        " FROM central_accounts WHERE id IN (SELECT r.id FROM {rows})"
    ));
    tx.fetch_all(select.rows(ids())).await?.into_iter().map(super::account).collect()
}

/// Marks the region's accounts as copies of the centre's.
async fn mark_as_copies(store: &Database, taken: &[Account]) -> Result<(), Error> {
    let rows = || {
        Rows::new()
            .ints("id", taken.iter().map(|it| it.id.0))
            .ints("version", taken.iter().map(|it| it.version))
            .ints("factor_version", taken.iter().map(|it| it.factor_version))
    };
    transact!(store, |tx| async {
        let factors = sql("UPDATE second_factors SET central_version = r.factor_version FROM {rows} \
             WHERE second_factors.account = r.id AND second_factors.confirmed = 1");
        tx.execute(factors.rows(rows())).await?;
        let accounts =
            sql("UPDATE accounts SET central_version = r.version FROM {rows} WHERE accounts.id = r.id");
        tx.execute(accounts.rows(rows())).await.map(drop)
    })
}
