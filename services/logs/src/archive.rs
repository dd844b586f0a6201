//! The folder of daily files: lists the days, opens one for writing, and opens several for reading as one.

use std::{
    fs::{self, DirBuilder, File, Permissions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use shardkeep_types::FileLock;
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};

use crate::{Day, LogsError, sandbox};

/// The columns of a query, in order. `time` is UTC text that sorts; `attributes` is a JSON object.
pub(crate) const COLUMNS: &str =
    "id, time, daemon, instance, level, target, message, event, account, character, session, attributes";

const SCHEMA: &str = include_str!("schema.sql");

/// Bound of SQLite's memory over all connections of this process. A query that needs more fails.
const MEMORY_BYTES: &str = "536870912";

/// Owns the folder for as long as any clone lives.
#[derive(Debug, Clone)]
pub struct Archive {
    folder: Arc<Path>,
    _lock: Arc<FileLock>,
}

impl Archive {
    /// # Errors
    /// When the folder cannot be made, or another daemon owns it.
    pub fn open(folder: &Path) -> Result<Self, LogsError> {
        let failed = |source| LogsError::Folder { path: folder.to_owned(), source };
        // Log records name players and their addresses.
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        let lock = FileLock::take(&folder.join("lock")).map_err(|error| match error {
            TryLockError::WouldBlock => LogsError::FolderInUse(folder.to_owned()),
            TryLockError::Error(error) => failed(error),
        })?;
        Ok(Self { folder: folder.into(), _lock: Arc::new(lock) })
    }

    /// The days that have files, oldest first.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn days(&self) -> io::Result<Vec<Day>> {
        let mut days = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let name = entry?.file_name();
            let day: Option<Day> =
                name.to_str().and_then(|name| name.strip_suffix(".db")).and_then(|name| name.parse().ok());
            days.extend(day);
        }
        days.sort_unstable();
        Ok(days)
    }

    /// Removes the files of a day. The caller holds no connection to them.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub(crate) fn remove(&self, day: Day) -> io::Result<()> {
        fs::remove_file(self.path(day))?;
        for sidecar in self.sidecars(day) {
            // Usually there is none: closing a day folds it into the file.
            let _ = fs::remove_file(sidecar);
        }
        Ok(())
    }

    /// Bytes of the files of a day.
    pub(crate) fn bytes(&self, day: Day) -> u64 {
        let paths = self.sidecars(day).into_iter().chain([self.path(day)]);
        paths.filter_map(|path| fs::metadata(path).ok()).map(|file| file.len()).sum()
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    fn path(&self, day: Day) -> PathBuf {
        self.folder.join(format!("{day}.db"))
    }

    fn sidecars(&self, day: Day) -> [PathBuf; 2] {
        ["wal", "shm"].map(|suffix| self.folder.join(format!("{day}.db-{suffix}")))
    }

    pub(crate) async fn write(&self, day: Day) -> Result<SqliteConnection, sqlx::Error> {
        let path = self.path(day);
        // SQLite gives its other files the mode of this one.
        let file = File::options().create(true).truncate(false).write(true).mode(0o600).open(&path)?;
        file.set_permissions(Permissions::from_mode(0o600))?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(5))
            .pragma("hard_heap_limit", MEMORY_BYTES);
        let mut connection = options.connect().await?;
        sqlx::raw_sql(SCHEMA).execute(&mut connection).await?;
        Ok(connection)
    }

    /// Folds a finished day into a single file, unless a query reads it.
    pub(crate) async fn finish(mut connection: SqliteConnection) {
        let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE); PRAGMA journal_mode = DELETE;";
        if let Err(error) = sqlx::raw_sql(checkpoint).execute(&mut connection).await {
            tracing::debug!(%error, "a finished day stays in two files");
        }
        let _ = connection.close().await;
    }

    /// A connection that can only read the view `log` over these days. The view holds the records that match `search`, or
    /// all of them when that is empty.
    pub(crate) async fn read(&self, days: &[Day], search: &str) -> Result<SqliteConnection, LogsError> {
        let present =
            self.days().map_err(|source| LogsError::Folder { path: self.folder.to_path_buf(), source })?;
        let days: Vec<Day> = present.into_iter().filter(|day| days.contains(day)).collect();
        let options = SqliteConnectOptions::new().in_memory(true).pragma("hard_heap_limit", MEMORY_BYTES);
        let mut connection = options.connect().await.map_err(LogsError::Store)?;
        let mut attached = 0;
        for day in days {
            attached += usize::from(attach(&mut connection, &self.path(day), attached).await?);
        }
        sqlx::raw_sql(AssertSqlSafe(view(attached, search)))
            .execute(&mut connection)
            .await
            .map_err(LogsError::Store)?;
        sqlx::raw_sql("PRAGMA query_only = ON; PRAGMA trusted_schema = OFF; PRAGMA busy_timeout = 2000;")
            .execute(&mut connection)
            .await
            .map_err(LogsError::Store)?;
        // The first use of these functions declares their tables, which the sandbox would refuse.
        let declare = "SELECT count(*) FROM json_each('[]'), json_tree('[]')";
        sqlx::raw_sql(declare).execute(&mut connection).await.map_err(LogsError::Store)?;
        for day in 0..attached {
            // At its first use the index reads its settings, which the sandbox would refuse.
            let first_use = format!("SELECT rowid FROM day{day}.log_text WHERE log_text MATCH 'a' LIMIT 1");
            sqlx::raw_sql(AssertSqlSafe(first_use))
                .execute(&mut connection)
                .await
                .map_err(LogsError::Store)?;
        }
        sandbox::restrict(&mut connection).await.map_err(LogsError::Store)?;
        Ok(connection)
    }
}

/// Attaches the file of a day as `day<number>`. Returns false if the day has no tables yet or was removed meanwhile.
async fn attach(connection: &mut SqliteConnection, path: &Path, number: usize) -> Result<bool, LogsError> {
    let uri = format!("file:{}?mode=ro", uri_path(path));
    let attach = AssertSqlSafe(format!("ATTACH DATABASE ? AS day{number}"));
    if let Err(error) = sqlx::query(attach).bind(uri).execute(&mut *connection).await {
        // The writer may have removed the day since the days were listed.
        return if path.exists() { Err(LogsError::Store(error)) } else { Ok(false) };
    }
    let table = format!("SELECT 1 FROM day{number}.sqlite_schema WHERE name = 'log'");
    let found =
        sqlx::query(AssertSqlSafe(table)).fetch_optional(&mut *connection).await.map_err(LogsError::Store)?;
    if found.is_none() {
        sqlx::raw_sql(AssertSqlSafe(format!("DETACH DATABASE day{number}")))
            .execute(connection)
            .await
            .map_err(LogsError::Store)?;
    }
    Ok(found.is_some())
}

fn view(days: usize, search: &str) -> String {
    let matching = |day: usize| {
        if search.is_empty() {
            return String::new();
        }
        let quoted = search.replace('\'', "''");
        format!(" WHERE id IN (SELECT rowid FROM day{day}.log_text WHERE log_text MATCH '{quoted}')")
    };
    let selects: Vec<String> =
        (0..days).map(|day| format!("SELECT {COLUMNS} FROM day{day}.log{}", matching(day))).collect();
    let all = if selects.is_empty() {
        // A view with the right columns and no rows.
        let null_columns: Vec<String> =
            COLUMNS.split(", ").map(|column| format!("NULL AS {column}")).collect();
        format!("SELECT {} WHERE 0", null_columns.join(", "))
    } else {
        selects.join(" UNION ALL ")
    };
    format!("CREATE TEMP VIEW log AS {all}")
}

/// Percent-encodes what has a meaning in SQLite's URIs.
fn uri_path(path: &Path) -> String {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    path.to_string_lossy().replace('%', "%25").replace('?', "%3f").replace('#', "%23")
}
