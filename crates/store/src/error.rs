//! Errors of the database, grouped by what the caller must do about them.

use std::{io, path::PathBuf};

/// An error of either engine.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operator must correct the setting.
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
    /// The database cannot be reached, cannot write, or is shutting down. The outcome of a commit in flight is unknown.
    #[error("the database is unavailable: {0}")]
    Unavailable(Box<sqlx::Error>),
    #[error("the database did not answer in time")]
    Timeout,
    /// The server is a standby, or was demoted to one: the new primary must take over the address.
    #[error("the database server is read-only; it is a standby, or its role has changed")]
    ReadOnly,
    /// No connection to the server exists.
    #[error("the database at {address} does not answer")]
    Unreachable { address: String, source: Box<dyn std::error::Error + Send + Sync> },
    /// The server refuses the user, the password or the database. The operator must correct the setting.
    #[error("the database at {address} refuses the connection")]
    AccessDenied { address: String, source: Box<sqlx::Error> },
    /// The database cannot store every text. The operator must create another.
    #[error(
        "the database `{database}` at {address} has the encoding {encoding}, which cannot hold all text; \
         create it with `CREATE DATABASE {database} ENCODING 'UTF8' TEMPLATE template0`"
    )]
    NotUtf8 { address: String, database: String, encoding: String },
    /// The queue of the committer is full.
    #[error("too many actions wait for the database")]
    Busy,
    /// A conflict with another transaction has rolled this one back. An immediate retry is safe.
    #[error("the transaction conflicted with another one")]
    Contention(#[source] Box<sqlx::Error>),
    /// A unique key exists already.
    #[error("the key exists already")]
    Duplicate(#[source] Box<sqlx::Error>),
    /// A number that does not fit the database's 64-bit signed integers.
    #[error("the number {0} does not fit the database")]
    OutOfRange(u64),
    /// The database holds something that this program never writes.
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
            Self::Unavailable(_) | Self::Timeout | Self::ReadOnly | Self::Unreachable { .. } => "unavailable",
            Self::AccessDenied { .. } => "access_denied",
            Self::NotUtf8 { .. } => "not_utf8",
            Self::Busy => "busy",
            Self::Contention(_) => "contention",
            Self::Duplicate(_) => "duplicate",
            Self::OutOfRange(_) => "out_of_range",
            Self::Corrupt(_) => "corrupt",
            Self::Statement(_) => "statement",
        }
    }

    /// The error of a call that gave up waiting.
    pub fn timed_out() -> Self {
        Self::Timeout
    }

    /// Whether the database cannot be used at the moment.
    pub fn is_unavailable(&self) -> bool {
        self.label() == "unavailable"
    }

    /// Whether the same call may succeed later without an operator's help.
    pub fn retryable(&self) -> bool {
        self.is_unavailable() || matches!(self, Self::Busy | Self::Contention(_))
    }

    /// The database error inside an error: itself. Errors that wrap this type have the same method.
    pub fn store(&self) -> Option<&Error> {
        Some(self)
    }

    pub fn is_duplicate(&self) -> bool {
        matches!(self, Self::Duplicate(_))
    }

    /// The error and its causes in one line, because some log formats omit causes.
    pub(crate) fn with_causes(&self) -> String {
        let first = std::error::Error::source(self);
        let causes = std::iter::successors(first, |cause| cause.source());
        causes.fold(self.to_string(), |line, cause| format!("{line}: {cause}"))
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        let kind = match &error {
            sqlx::Error::Database(database) if database.is_unique_violation() => Self::Duplicate,
            sqlx::Error::Database(database) if database.code().is_some_and(|code| code == READ_ONLY) => {
                return Self::ReadOnly;
            }
            sqlx::Error::Database(database) => kind_of_code(database.code().as_deref().unwrap_or_default()),
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::BeginFailed
            | sqlx::Error::WorkerCrashed => Self::Unavailable,
            _ => Self::Statement,
        };
        kind(Box::new(error))
    }
}

/// `read_only_sql_transaction` of PostgreSQL.
const READ_ONLY: &str = "25006";

/// SQLSTATE classes of PostgreSQL (its manual, appendix A) and result codes of SQLite (sqlite.org/rescode.html).
fn kind_of_code(code: &str) -> fn(Box<sqlx::Error>) -> Error {
    match code {
        // serialization_failure, deadlock_detected, lock_not_available, query_canceled
        "40001" | "40P01" | "55P03" | "57014" => Error::Contention,
        // idle_in_transaction_session_timeout
        "25P03" => Error::Unavailable,
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
