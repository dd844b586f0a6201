//! SQLite: one file that one process owns. Each commit reaches the disk before it is acknowledged.

use std::{
    fs::{DirBuilder, File, TryLockError},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use parking_lot::Mutex;
use shardkeep_types::FileLock;
use sqlx::{
    Connection as _, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::migrate::Schema;
use crate::Error;

const READERS: u32 = 4;
/// How long a call waits for the writer, or for a reader, before the database counts as unavailable.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);
/// Only a reader that recovers the log of a killed process makes others wait this long.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The connections to one file. One connection writes, because SQLite allows one writer at a time, and waiting for it
/// in a fair queue costs less than retries after "busy".
pub(super) struct SqliteStore {
    pub(super) writer: SqlitePool,
    pub(super) readers: SqlitePool,
    /// `None` once closed.
    owner: Mutex<Option<FileLock>>,
}

impl SqliteStore {
    pub(super) async fn open(path: &str, schema: Schema) -> Result<Self, Error> {
        let path = Path::new(path);
        let owner = lock_file(path)?;
        create_private_file(path)?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full);
        let writer = pool(1, options.clone()).await?;
        schema.migrate(&mut *writer.acquire().await?, |text| text.replace("BYTEA", "BLOB")).await?;
        let readers = pool(READERS, options.pragma("query_only", "ON")).await?;
        Ok(Self { writer, readers, owner: Mutex::new(Some(owner)) })
    }

    pub(super) async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
        drop(self.owner.lock().take());
    }
}

async fn pool(connections: u32, options: SqliteConnectOptions) -> Result<SqlitePool, Error> {
    let pool = SqlitePoolOptions::new()
        .max_connections(connections)
        .min_connections(1)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        // On a full disk SQLite rolls a transaction back by itself. sqlx still counts it as open, and would refuse each
        // later BEGIN on this connection, so the pool closes it and opens another. The ping waits for the rollback.
        .after_release(|connection, _| {
            Box::pin(async move {
                connection.ping().await?;
                Ok(!connection.is_in_transaction())
            })
        })
        .connect_with(options)
        .await?;
    Ok(pool)
}

/// Locks `<path>.lock`.
fn lock_file(path: &Path) -> Result<FileLock, Error> {
    if let Some(folder) = path.parent() {
        let created = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        created.map_err(|source| Error::File { path: folder.to_owned(), source })?;
    }
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let lock = PathBuf::from(name);
    FileLock::take(&lock).map_err(|error| match error {
        TryLockError::WouldBlock => Error::Owned { path: path.to_owned() },
        TryLockError::Error(source) => Error::File { path: lock, source },
    })
}

/// Creates a new file that only its owner can read, because stores hold password verifiers and second factors. SQLite
/// gives the files beside it the same mode. An existing file keeps its mode.
fn create_private_file(path: &Path) -> Result<(), Error> {
    let created = File::options().create(true).append(true).mode(0o600).open(path);
    created.map(drop).map_err(|source| Error::File { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use shardkeep_testkit::SmallDisk;

    use crate::{Database, Error, Schema, sql};

    /// Larger than what remains of a full disk.
    const NOTE: &str = "INSERT INTO operators (name, role, password, created_ms) VALUES ($1, 'admin', $2, 1)";

    async fn insert(database: &Database, name: &str, bytes: usize) -> Result<(), Error> {
        let mut tx = database.begin().await?;
        tx.execute(sql(NOTE).bind(name).bind("x".repeat(bytes))).await?;
        tx.commit().await
    }

    #[tokio::test]
    async fn commit_on_full_disk_fails_and_writes_resume_when_space_is_free() {
        let Some(disk) = SmallDisk::mount(4 << 20) else { return };
        let url = format!("sqlite:{}", disk.path().join("gm.db").display());
        let database = Database::open(&url, Schema::Gm).await.unwrap();
        insert(&database, "before", 10).await.unwrap();
        disk.fill();
        for _ in 0..3 {
            let error = insert(&database, "meanwhile", 100_000).await.unwrap_err();
            assert!(error.is_unavailable(), "{error}");
            assert!(error.to_string().contains("full"), "{error}");
        }
        disk.free();
        insert(&database, "after", 100_000).await.unwrap();
        let rows = database.fetch_all(sql("SELECT name FROM operators ORDER BY name")).await.unwrap();
        let names: Vec<String> = rows.into_iter().map(|mut row| row.take().unwrap()).collect();
        assert_eq!(names, ["after", "before"]);
    }

    /// Runs without the right to mount: the page limit makes a statement fail as a full disk does.
    #[tokio::test]
    async fn statement_that_fills_database_breaks_transaction_not_writer() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("gm.db").display());
        let database = Database::open(&url, Schema::Gm).await.unwrap();
        let mut tx = database.begin().await.unwrap();
        tx.fetch_all(sql("PRAGMA max_page_count = 1")).await.unwrap();
        let error = tx.execute(sql(NOTE).bind("big").bind("x".repeat(100_000))).await.unwrap_err();
        assert!(error.is_unavailable(), "{error}");
        let error = tx.execute(sql(NOTE).bind("small").bind("x")).await.unwrap_err();
        assert!(error.is_unavailable(), "a statement ran outside of its transaction: {error}");
        assert!(tx.commit().await.unwrap_err().is_unavailable());
        insert(&database, "after", 100_000).await.unwrap();
        let rows = database.fetch_all(sql("SELECT name FROM operators")).await.unwrap();
        assert_eq!(rows.len(), 1);
    }
}
