//! What can go wrong with a database, sorted by what the caller should do about it.

use std::{io, path::PathBuf};

/// An error of the database, whichever engine it is.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The setting is wrong; only the operator can mend it.
    #[error("store {url:?}: {reason}")]
    Url { url: String, reason: String },
    /// Another process owns the SQLite file.
    #[error(
        "the store {} is owned by another process; to run more than one replica, set the daemon's `store` to a postgres:// URL",
        path.display()
    )]
    Owned { path: PathBuf },
    #[error("the store's file {}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("migrating the schema `{schema}`")]
    Migrate { schema: &'static str, source: Box<dyn std::error::Error + Send + Sync> },
    /// The database cannot be reached, or is going away: try again later. Whether a commit under way took
    /// effect is unknown.
    #[error("the database is away")]
    Unavailable(#[source] Box<sqlx::Error>),
    /// There is no connection to the database at the start.
    #[error("the database at {address} does not answer")]
    Unreachable { address: String, source: Box<dyn std::error::Error + Send + Sync> },
    /// The database answers, and lets nobody in under this name, password or database; only the operator can mend it.
    #[error("the database at {address} turns us away")]
    AccessDenied { address: String, source: Box<sqlx::Error> },
    /// More work waits than is allowed to.
    #[error("too much waits for the database")]
    Busy,
    /// Another transaction was in the way and this one has not happened: try again at once.
    #[error("the transaction met another one")]
    Contention(#[source] Box<sqlx::Error>),
    /// A unique key exists already.
    #[error("the key exists already")]
    Duplicate(#[source] Box<sqlx::Error>),
    /// A number that does not fit the database's 64-bit signed integers.
    #[error("the number {0} does not fit the database")]
    OutOfRange(u64),
    /// The database holds something this program never writes.
    #[error("unexpected data in the database: {0}")]
    Corrupt(String),
    #[error("the database refuses a statement")]
    Statement(#[source] Box<sqlx::Error>),
}

impl Error {
    /// Name of the error in metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Url { .. } => "url",
            Self::Owned { .. } => "owned",
            Self::File { .. } => "file",
            Self::Migrate { .. } => "migrate",
            Self::Unavailable(_) | Self::Unreachable { .. } => "unavailable",
            Self::AccessDenied { .. } => "access_denied",
            Self::Busy => "busy",
            Self::Contention(_) => "contention",
            Self::Duplicate(_) => "duplicate",
            Self::OutOfRange(_) => "out_of_range",
            Self::Corrupt(_) => "corrupt",
            Self::Statement(_) => "statement",
        }
    }

    /// The database did not answer in time.
    pub fn timed_out() -> Self {
        Self::Unavailable(Box::new(sqlx::Error::PoolTimedOut))
    }

    /// Whether the database cannot be reached at the moment.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Unreachable { .. })
    }

    /// Whether the same call may succeed later without anybody mending anything.
    pub fn retryable(&self) -> bool {
        self.is_unavailable() || matches!(self, Self::Busy | Self::Contention(_))
    }

    /// The error of the database in an error of this kind: itself. Errors that wrap it have the same method.
    pub fn store(&self) -> Option<&Error> {
        Some(self)
    }

    pub fn is_duplicate(&self) -> bool {
        matches!(self, Self::Duplicate(_))
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        let kind = match &error {
            sqlx::Error::Database(database) if database.is_unique_violation() => Self::Duplicate,
            sqlx::Error::Database(database) => kind_of_code(database.code().as_deref().unwrap_or_default()),
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Self::Unavailable,
            _ => Self::Statement,
        };
        kind(Box::new(error))
    }
}

/// SQLSTATE classes of PostgreSQL (its manual, appendix A) and result codes of SQLite (sqlite.org/rescode.html).
fn kind_of_code(code: &str) -> fn(Box<sqlx::Error>) -> Error {
    match code {
        // serialization_failure, deadlock_detected, lock_not_available, query_canceled
        "40001" | "40P01" | "55P03" | "57014" => Error::Contention,
        // idle_in_transaction_session_timeout, read_only_sql_transaction (a standby)
        "25P03" | "25006" => Error::Unavailable,
        _ if code.len() == 5 && ["08", "53", "57", "58"].iter().any(|class| code.starts_with(class)) => {
            Error::Unavailable
        }
        _ => match code.parse::<u32>().map(|code| code & 0xff) {
            // SQLITE_BUSY, SQLITE_LOCKED
            Ok(5 | 6) if code.len() < 5 => Error::Contention,
            // SQLITE_READONLY, SQLITE_IOERR, SQLITE_FULL, SQLITE_CANTOPEN
            Ok(8 | 10 | 13 | 14) if code.len() < 5 => Error::Unavailable,
            _ => Error::Statement,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(code: &str) -> &'static str {
        kind_of_code(code)(Box::new(sqlx::Error::RowNotFound)).label()
    }

    #[test]
    fn database_codes_map_to_error_kinds() {
        for code in ["40001", "40P01", "55P03", "5", "6", "517"] {
            assert_eq!(label(code), "contention", "{code}");
        }
        for code in ["57P01", "57P03", "53300", "08006", "25P03", "10", "13", "522"] {
            assert_eq!(label(code), "unavailable", "{code}");
        }
        for code in ["42P01", "23514", "28P01", "1", "", "nonsense"] {
            assert_eq!(label(code), "statement", "{code}");
        }
    }
}
