//! SQLite: one file, one owning process, every commit on the disk before it is acknowledged.

use std::{
    fs::{DirBuilder, File, TryLockError},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use shardkeep_types::FileLock;
use sqlx::{
    SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::{ACQUIRE_TIMEOUT, Engine};
use crate::{Error, Schema};

const READERS: u32 = 4;
/// Only a reader that recovers the log of a killed process makes anybody wait this long.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) async fn open(path: &str, schema: Schema) -> Result<Engine, Error> {
    let path = Path::new(path);
    let owner = lock_file(path)?;
    make_private(path)?;
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    let writer = pool(1, options.clone()).await?;
    schema.migrate(&writer, |text| text.replace("BYTEA", "BLOB")).await?;
    let readers = pool(READERS, options.pragma("query_only", "ON")).await?;
    Ok(Engine::Sqlite { writer, readers, _owner: Arc::new(owner) })
}

async fn pool(connections: u32, options: SqliteConnectOptions) -> Result<SqlitePool, Error> {
    let pool = SqlitePoolOptions::new()
        .max_connections(connections)
        .min_connections(1)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        .acquire_timeout(ACQUIRE_TIMEOUT)
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

/// What is in a store proves passwords and second factors: a new file is its owner's alone, and SQLite gives the files
/// beside it the same mode. A file that is there keeps the mode that somebody may have given it.
fn make_private(path: &Path) -> Result<(), Error> {
    let created = File::options().create(true).append(true).mode(0o600).open(path);
    created.map(drop).map_err(|source| Error::File { path: path.to_owned(), source })
}
