//! A database of one of the two engines: how it is opened, and how statements and transactions run on it.

mod identity;
mod migrate;
mod open_with_retry;
mod postgres;
mod sqlite;

use std::{fmt, sync::Arc, time::Duration};

pub use migrate::Schema;
use shardkeep_types::FileLock;
use sqlx::{PgPool, SqlitePool};

use crate::{
    Error, Query, Row,
    row::{from_postgres, from_sqlite},
    sql::{self, render},
};

/// How long a call waits for a connection before it reports the database as away.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);

/// An open database with its schema in place. Clones share its connections.
#[derive(Clone)]
pub struct Database {
    engine: Engine,
    schema: Schema,
}

#[derive(Clone)]
enum Engine {
    /// One connection writes, several read: SQLite has one writer at a time, and waiting for it in our own fair
    /// queue is cheaper than being told "busy".
    Sqlite {
        writer: SqlitePool,
        readers: SqlitePool,
        _owner: Arc<FileLock>,
    },
    Postgres(PgPool),
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Database").field(&self.engine_name()).finish()
    }
}

impl Database {
    /// Opens `sqlite:<path>` (owned by this process alone until it is closed) or `postgres://…`, and brings the
    /// schema up to date. Migrations are locked: replicas that start together wait for each other.
    ///
    /// # Errors
    /// When the URL is of no known kind, another process owns the file, the database is away, or a migration fails.
    pub async fn open(url: &str, schema: Schema) -> Result<Self, Error> {
        let engine = if let Some(path) = url.strip_prefix("sqlite:") {
            sqlite::open(path.strip_prefix("//").unwrap_or(path), schema).await?
        } else if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            Engine::Postgres(postgres::open(url, schema).await?)
        } else {
            return Err(Error::Url {
                url: url.to_owned(),
                reason: "expected sqlite:<path> or postgres://…".to_owned(),
            });
        };
        Ok(Self { engine, schema })
    }

    /// `sqlite` or `postgres`.
    pub fn engine_name(&self) -> &'static str {
        match &self.engine {
            Engine::Sqlite { .. } => "sqlite",
            Engine::Postgres(_) => "postgres",
        }
    }

    /// Begins a transaction that writes. Dropping it undoes it. On SQLite it is the only one; on PostgreSQL it is
    /// READ COMMITTED: lock the rows that a decision rests on with `{for_update}`, in key order.
    pub async fn begin(&self) -> Result<Tx, Error> {
        Ok(Tx(match &self.engine {
            Engine::Sqlite { writer, .. } => {
                EngineTransaction::Sqlite(writer.begin_with("BEGIN IMMEDIATE").await?)
            }
            Engine::Postgres(pool) => EngineTransaction::Postgres(pool.begin().await?),
        }))
    }

    /// Begins a transaction that reads one state of the whole database.
    pub async fn snapshot(&self) -> Result<Tx, Error> {
        Ok(Tx(match &self.engine {
            Engine::Sqlite { readers, .. } => EngineTransaction::Sqlite(readers.begin().await?),
            Engine::Postgres(pool) => EngineTransaction::Postgres(
                pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?,
            ),
        }))
    }

    /// Runs one reading statement.
    pub async fn fetch_all(&self, query: Query) -> Result<Vec<Row>, Error> {
        match &self.engine {
            Engine::Sqlite { readers, .. } => sqlite_all(readers, query).await,
            Engine::Postgres(pool) => postgres_all(pool, query).await,
        }
    }

    /// Runs one reading statement that yields at most one row.
    pub async fn fetch_optional(&self, query: Query) -> Result<Option<Row>, Error> {
        Ok(self.fetch_all(query).await?.into_iter().next())
    }

    /// Runs one writing statement as a transaction of its own; says how many rows it changed.
    pub async fn execute(&self, query: Query) -> Result<u64, Error> {
        match &self.engine {
            Engine::Sqlite { writer, .. } => sqlite_execute(writer, query).await,
            Engine::Postgres(pool) => postgres_execute(pool, query).await,
        }
    }

    /// Runs one writing statement with RETURNING as a transaction of its own.
    pub async fn execute_returning(&self, query: Query) -> Result<Vec<Row>, Error> {
        match &self.engine {
            Engine::Sqlite { writer, .. } => sqlite_all(writer, query).await,
            Engine::Postgres(pool) => postgres_all(pool, query).await,
        }
    }

    /// Closes the connections and gives up the file.
    pub async fn close(self) {
        match self.engine {
            Engine::Sqlite { writer, readers, .. } => {
                readers.close().await;
                writer.close().await;
            }
            Engine::Postgres(pool) => pool.close().await,
        }
    }
}

/// A transaction. What it did is undone unless [`Tx::commit`] returns `Ok`; after an `Unavailable` from there
/// nobody knows.
pub struct Tx(EngineTransaction);

enum EngineTransaction {
    Sqlite(sqlx::Transaction<'static, sqlx::Sqlite>),
    Postgres(sqlx::Transaction<'static, sqlx::Postgres>),
}

impl Tx {
    pub async fn fetch_all(&mut self, query: Query) -> Result<Vec<Row>, Error> {
        match &mut self.0 {
            EngineTransaction::Sqlite(tx) => sqlite_all(&mut **tx, query).await,
            EngineTransaction::Postgres(tx) => postgres_all(&mut **tx, query).await,
        }
    }

    pub async fn fetch_optional(&mut self, query: Query) -> Result<Option<Row>, Error> {
        Ok(self.fetch_all(query).await?.into_iter().next())
    }

    /// Says how many rows the statement changed.
    pub async fn execute(&mut self, query: Query) -> Result<u64, Error> {
        match &mut self.0 {
            EngineTransaction::Sqlite(tx) => sqlite_execute(&mut **tx, query).await,
            EngineTransaction::Postgres(tx) => postgres_execute(&mut **tx, query).await,
        }
    }

    pub async fn commit(self) -> Result<(), Error> {
        match self.0 {
            EngineTransaction::Sqlite(tx) => tx.commit().await?,
            EngineTransaction::Postgres(tx) => tx.commit().await?,
        }
        Ok(())
    }
}

async fn sqlite_all(on: impl sqlx::SqliteExecutor<'_>, query: Query) -> Result<Vec<Row>, Error> {
    let (text, args) = render::<sql::Sqlite>(query)?;
    on.fetch_all(sqlx::query_with(text, args)).await?.iter().map(from_sqlite).collect()
}

async fn sqlite_execute(on: impl sqlx::SqliteExecutor<'_>, query: Query) -> Result<u64, Error> {
    let (text, args) = render::<sql::Sqlite>(query)?;
    Ok(on.execute(sqlx::query_with(text, args)).await?.rows_affected())
}

async fn postgres_all(on: impl sqlx::PgExecutor<'_>, query: Query) -> Result<Vec<Row>, Error> {
    let (text, args) = render::<sql::Postgres>(query)?;
    on.fetch_all(sqlx::query_with(text, args)).await?.iter().map(from_postgres).collect()
}

async fn postgres_execute(on: impl sqlx::PgExecutor<'_>, query: Query) -> Result<u64, Error> {
    let (text, args) = render::<sql::Postgres>(query)?;
    Ok(on.execute(sqlx::query_with(text, args)).await?.rows_affected())
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
        assert!(error.to_string().ends_with("turns us away"), "{error}");
        assert!(cause(&error).contains("nothing"), "{}", cause(&error));
    }

    #[tokio::test]
    async fn open_unknown_url_says_what_is_expected() {
        let error = Database::open("mysql://x", Schema::Game).await.unwrap_err();
        assert!(error.to_string().contains("sqlite:<path> or postgres://"), "{error}");
    }
}
