//! An open database, its statements and its transactions.

use std::{fmt, sync::Arc};

use super::{health::Health, migrate::Schema, postgres::PostgresStore, sqlite::SqliteStore};
use crate::{
    Error, Query, Row,
    row::{from_postgres, from_sqlite},
    sql::{self, render},
};

/// An open database with its schema in place. Clones share its connections.
#[derive(Clone)]
pub struct Database {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Engine,
    schema: Schema,
    health: Arc<Health>,
}

#[allow(clippy::large_enum_variant, reason = "one value per database, behind an `Arc`")]
enum Engine {
    Sqlite(SqliteStore),
    Postgres(PostgresStore),
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Database").field(&self.engine_name()).finish()
    }
}

impl Database {
    /// Opens `sqlite:<path>`, which this process then owns alone, or `postgres://…`, and migrates the schema. Replicas
    /// that start together wait for each other.
    ///
    /// # Errors
    /// When the URL has no known scheme, another process owns the file, the database is unavailable, read-only or not
    /// UTF-8, or a migration fails.
    pub async fn open(url: &str, schema: Schema) -> Result<Self, Error> {
        let engine = if let Some(path) = url.strip_prefix("sqlite:") {
            Engine::Sqlite(SqliteStore::open(path.strip_prefix("//").unwrap_or(path), schema).await?)
        } else if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            Engine::Postgres(PostgresStore::open(url, schema).await?)
        } else {
            return Err(Error::Url {
                url: shardkeep_types::mask_url(url),
                reason: "expected sqlite:<path> or postgres://…".to_owned(),
            });
        };
        Ok(Self { inner: Arc::new(Inner { engine, schema, health: Arc::default() }) })
    }

    /// `sqlite` or `postgres`.
    pub fn engine_name(&self) -> &'static str {
        match &self.inner.engine {
            Engine::Sqlite(_) => "sqlite",
            Engine::Postgres(_) => "postgres",
        }
    }

    pub(super) fn schema(&self) -> Schema {
        self.inner.schema
    }

    pub(super) fn health(&self) -> &Health {
        &self.inner.health
    }

    /// Begins a transaction that writes. Dropping it rolls it back. SQLite runs one at a time. PostgreSQL runs it as
    /// READ COMMITTED: lock the rows that a decision depends on with `{for_update}`, in key order.
    pub async fn begin(&self) -> Result<Tx, Error> {
        let begun = match &self.inner.engine {
            Engine::Sqlite(store) => {
                let begun = store.writer.begin_with("BEGIN IMMEDIATE").await;
                begun.map(EngineTransaction::Sqlite).map_err(Error::from)
            }
            Engine::Postgres(store) => store.begin("BEGIN").await.map(EngineTransaction::Postgres),
        };
        self.transaction(begun)
    }

    /// Begins a transaction that reads one state of the whole database.
    pub async fn snapshot(&self) -> Result<Tx, Error> {
        let begun = match &self.inner.engine {
            Engine::Sqlite(store) => {
                store.readers.begin().await.map(EngineTransaction::Sqlite).map_err(Error::from)
            }
            Engine::Postgres(store) => {
                let begun = store.begin("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await;
                begun.map(EngineTransaction::Postgres)
            }
        };
        self.transaction(begun)
    }

    fn transaction(&self, begun: Result<EngineTransaction, Error>) -> Result<Tx, Error> {
        let engine = self.record(Health::record_read, begun)?;
        Ok(Tx { engine, database: self.clone(), failed: false })
    }

    /// Runs one statement that reads.
    pub async fn fetch_all(&self, query: Query) -> Result<Vec<Row>, Error> {
        let rows = match &self.inner.engine {
            Engine::Sqlite(store) => sqlite_all(&store.readers, query).await,
            Engine::Postgres(store) => fetch_postgres(store, query).await,
        };
        self.record(Health::record_read, rows)
    }

    /// Runs one statement that reads at most one row.
    pub async fn fetch_optional(&self, query: Query) -> Result<Option<Row>, Error> {
        Ok(self.fetch_all(query).await?.into_iter().next())
    }

    /// Runs one statement that writes, in a transaction by itself. Returns how many rows it changed.
    pub async fn execute(&self, query: Query) -> Result<u64, Error> {
        let changed = match &self.inner.engine {
            Engine::Sqlite(store) => sqlite_execute(&store.writer, query).await,
            Engine::Postgres(store) => execute_postgres(store, query).await,
        };
        self.record(Health::record_write, changed)
    }

    /// Runs one statement with RETURNING, in a transaction by itself.
    pub async fn execute_returning(&self, query: Query) -> Result<Vec<Row>, Error> {
        let rows = match &self.inner.engine {
            Engine::Sqlite(store) => sqlite_all(&store.writer, query).await,
            Engine::Postgres(store) => fetch_postgres(store, query).await,
        };
        self.record(Health::record_write, rows)
    }

    /// Records an outcome, and stops the use of connections to a server that has become read-only.
    fn record<T>(
        &self,
        record: fn(&Health, Result<T, Error>) -> Result<T, Error>,
        outcome: Result<T, Error>,
    ) -> Result<T, Error> {
        if let (Engine::Postgres(store), Err(Error::ReadOnly)) = (&self.inner.engine, &outcome) {
            store.evict_connections();
        }
        record(&self.inner.health, outcome)
    }

    /// Closes the connections and releases the file. Clones get errors from then on.
    pub async fn close(self) {
        match &self.inner.engine {
            Engine::Sqlite(store) => store.close().await,
            Engine::Postgres(store) => store.close().await,
        }
    }
}

/// A transaction. It takes effect only if [`Tx::commit`] returns `Ok`; after an error for which
/// [`Error::is_unavailable`] holds, its outcome is unknown.
pub struct Tx {
    engine: EngineTransaction,
    database: Database,
    /// The database was unavailable to a statement. SQLite may have rolled back, and would run the next statement by
    /// itself.
    failed: bool,
}

enum EngineTransaction {
    Sqlite(sqlx::Transaction<'static, sqlx::Sqlite>),
    Postgres(sqlx::Transaction<'static, sqlx::Postgres>),
}

impl Tx {
    pub async fn fetch_all(&mut self, query: Query) -> Result<Vec<Row>, Error> {
        self.refuse_after_failure()?;
        let pooled = self.database.is_pooled();
        let rows = match &mut self.engine {
            EngineTransaction::Sqlite(tx) => sqlite_all(&mut **tx, query).await,
            EngineTransaction::Postgres(tx) => postgres_all(&mut **tx, query, pooled).await,
        };
        self.record_statement(rows)
    }

    pub async fn fetch_optional(&mut self, query: Query) -> Result<Option<Row>, Error> {
        Ok(self.fetch_all(query).await?.into_iter().next())
    }

    /// Returns how many rows the statement changed.
    pub async fn execute(&mut self, query: Query) -> Result<u64, Error> {
        self.refuse_after_failure()?;
        let pooled = self.database.is_pooled();
        let changed = match &mut self.engine {
            EngineTransaction::Sqlite(tx) => sqlite_execute(&mut **tx, query).await,
            EngineTransaction::Postgres(tx) => postgres_execute(&mut **tx, query, pooled).await,
        };
        self.record_statement(changed)
    }

    pub async fn commit(self) -> Result<(), Error> {
        self.refuse_after_failure()?;
        let committed = match self.engine {
            EngineTransaction::Sqlite(tx) => tx.commit().await,
            EngineTransaction::Postgres(tx) => tx.commit().await,
        };
        self.database.record(Health::record_write, committed.map_err(Error::from))
    }

    fn refuse_after_failure(&self) -> Result<(), Error> {
        if self.failed { Err(Error::Unavailable(Box::new(sqlx::Error::BeginFailed))) } else { Ok(()) }
    }

    fn record_statement<T>(&mut self, outcome: Result<T, Error>) -> Result<T, Error> {
        self.failed |= matches!(&outcome, Err(error) if error.is_unavailable());
        self.database.record(Health::record_read, outcome)
    }
}

impl Database {
    fn is_pooled(&self) -> bool {
        matches!(&self.inner.engine, Engine::Postgres(store) if store.is_pooled())
    }
}

pub(super) async fn sqlite_all(on: impl sqlx::SqliteExecutor<'_>, query: Query) -> Result<Vec<Row>, Error> {
    let (text, args) = render::<sql::Sqlite>(query)?;
    on.fetch_all(sqlx::query_with(text, args)).await?.iter().map(from_sqlite).collect()
}

async fn sqlite_execute(on: impl sqlx::SqliteExecutor<'_>, query: Query) -> Result<u64, Error> {
    let (text, args) = render::<sql::Sqlite>(query)?;
    Ok(on.execute(sqlx::query_with(text, args)).await?.rows_affected())
}

async fn fetch_postgres(store: &PostgresStore, query: Query) -> Result<Vec<Row>, Error> {
    if store.is_pooled() {
        let mut tx = store.begin("BEGIN").await?;
        let rows = postgres_all(&mut *tx, query, true).await?;
        tx.commit().await?;
        return Ok(rows);
    }
    postgres_all(&mut *store.acquire().await?, query, false).await
}

async fn execute_postgres(store: &PostgresStore, query: Query) -> Result<u64, Error> {
    if store.is_pooled() {
        let mut tx = store.begin("BEGIN").await?;
        let changed = postgres_execute(&mut *tx, query, true).await?;
        tx.commit().await?;
        return Ok(changed);
    }
    postgres_execute(&mut *store.acquire().await?, query, false).await
}

/// A pooler in transaction mode loses prepared statements, so with one (`pooled`) the statement stays unnamed.
pub(super) async fn postgres_all(
    on: impl sqlx::PgExecutor<'_>,
    query: Query,
    pooled: bool,
) -> Result<Vec<Row>, Error> {
    let (text, args) = render::<sql::Postgres>(query)?;
    let query = sqlx::query_with(text, args).persistent(!pooled);
    on.fetch_all(query).await?.iter().map(from_postgres).collect()
}

async fn postgres_execute(on: impl sqlx::PgExecutor<'_>, query: Query, pooled: bool) -> Result<u64, Error> {
    let (text, args) = render::<sql::Postgres>(query)?;
    Ok(on.execute(sqlx::query_with(text, args).persistent(!pooled)).await?.rows_affected())
}

#[cfg(test)]
mod tests {
    use shardkeep_testkit::Postgres;

    use super::*;
    use crate::{Rows, sql};

    async fn round_trip(database: &Database) {
        let rows = Rows::new()
            .ints("id", [7u64, 8])
            .texts("reason", ["it's \"odd\" \\ ünï", ""])
            .blobs("digest", [Some(vec![0u8, 255]), None]);
        let query = sql("SELECT r.id, r.reason, r.digest, $1 FROM {rows} ORDER BY r.id").bind("x").rows(rows);
        let mut found = database.fetch_all(query).await.unwrap();
        let mut first = found.remove(0);
        assert_eq!(first.take::<u64>().unwrap(), 7);
        assert_eq!(first.take::<String>().unwrap(), "it's \"odd\" \\ ünï");
        assert_eq!(first.take::<Vec<u8>>().unwrap(), [0, 255]);
        assert_eq!(first.take::<String>().unwrap(), "x");
        let mut second = found.remove(0);
        assert_eq!((second.take::<u64>().unwrap(), second.take::<String>().unwrap()), (8, String::new()));
        assert_eq!(second.take::<Option<Vec<u8>>>().unwrap(), None);

        let clock =
            database.fetch_optional(sql("SELECT {now_ms}")).await.unwrap().unwrap().take::<u64>().unwrap();
        assert!(clock > 1_700_000_000_000, "{clock} is in milliseconds");
    }

    async fn uncommitted_transaction_is_rolled_back(database: &Database) {
        let insert = || sql("INSERT INTO sequences (name, next) VALUES ($1, 1)").bind("x");
        let mut tx = database.begin().await.unwrap();
        tx.execute(insert()).await.unwrap();
        drop(tx);
        let mut tx = database.begin().await.unwrap();
        assert_eq!(tx.execute(insert()).await.unwrap(), 1);
        tx.commit().await.unwrap();
        assert!(database.execute(insert()).await.unwrap_err().is_duplicate());
        let mut snapshot = database.snapshot().await.unwrap();
        assert_eq!(snapshot.fetch_all(sql("SELECT next FROM sequences")).await.unwrap().len(), 1);
    }

    /// A replica of this version restarts in the middle of an upgrade.
    async fn insert_future_migration(database: &Database) {
        let insert = sql(
            "INSERT INTO migrations_game (version, description, success, checksum, execution_time) \
             SELECT 9999, description, success, checksum, execution_time FROM migrations_game WHERE version = 1",
        );
        assert_eq!(database.execute(insert).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn sqlite_file_has_one_owner_and_keeps_commits() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("new/game.db").display());
        let database = Database::open(&url, Schema::Game).await.unwrap();
        round_trip(&database).await;
        uncommitted_transaction_is_rolled_back(&database).await;
        let refused = Database::open(&url, Schema::Game).await.unwrap_err();
        assert_eq!(refused.label(), "owned");
        assert!(refused.to_string().contains("postgres://"), "{refused}");
        insert_future_migration(&database).await;
        database.close().await;
        let again = Database::open(&url, Schema::Game).await.unwrap();
        assert!(again.fetch_optional(sql("SELECT next FROM sequences")).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn sqlite_new_file_is_private_to_owner() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("new/login.db");
        let url = format!("sqlite:{}", file.display());
        let database = Database::open(&url, Schema::Accounts).await.unwrap();
        database.identity().await.unwrap();
        let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&file), 0o600);
        assert_eq!(mode(&file.with_extension("db-wal")), 0o600);
        assert_eq!(mode(file.parent().unwrap()), 0o700);
    }

    #[tokio::test]
    async fn postgres_holds_all_schemas_in_one_database() {
        let server = Postgres::start().await;
        let url = server.url();
        let open = |schema| Database::open(&url, schema);
        let (game, accounts, central, billing, gm) = tokio::join!(
            open(Schema::Game),
            open(Schema::Accounts),
            open(Schema::Central),
            open(Schema::Billing),
            open(Schema::Gm)
        );
        for other in [accounts, central, billing, gm] {
            other.unwrap();
        }
        let database = game.unwrap();
        round_trip(&database).await;
        uncommitted_transaction_is_rolled_back(&database).await;
        insert_future_migration(&database).await;
        Database::open(&url, Schema::Game).await.unwrap();
    }

    fn cause(error: &Error) -> String {
        std::error::Error::source(error).unwrap().to_string()
    }

    #[tokio::test]
    async fn open_unreachable_database_names_address_and_cause() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let url = format!("postgres://me:secret@{free}/db");
        let error = Database::open(&url, Schema::Game).await.unwrap_err();
        assert!(error.is_unavailable());
        assert_eq!(error.to_string(), format!("the database at {free} does not answer"));
        assert!(cause(&error).contains("refused"), "{}", cause(&error));
    }

    #[tokio::test]
    async fn open_rejected_by_database_names_cause() {
        let server = Postgres::start().await;
        let (before, _) = server.url().rsplit_once('/').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        let error = Database::open(&format!("{before}/nothing"), Schema::Game).await.unwrap_err();
        assert!(!error.is_unavailable(), "waiting mends nothing");
        assert!(error.to_string().ends_with("refuses the connection"), "{error}");
        assert!(cause(&error).contains("nothing"), "{}", cause(&error));
    }

    #[tokio::test]
    async fn open_unknown_url_says_what_is_expected() {
        let error = Database::open("mysql://x", Schema::Game).await.unwrap_err();
        assert!(error.to_string().contains("sqlite:<path> or postgres://"), "{error}");
    }
}
