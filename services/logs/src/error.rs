//! Errors of the storage and of queries.

use std::{io, path::PathBuf};

use tonic::Status;

use crate::day::InvalidDay;

/// Days that one query can read: SQLite attaches ten files to a connection.
pub(crate) const MAX_DAYS: usize = 10;

#[derive(Debug, thiserror::Error)]
pub enum LogsError {
    #[error("{}: {source}", path.display())]
    Folder { path: PathBuf, source: io::Error },
    #[error("{} is in use by another logs daemon; give each its own daemon.data_dir", .0.display())]
    FolderInUse(PathBuf),
    #[error("the log files: {0}")]
    Store(sqlx::Error),
    #[error(transparent)]
    Day(#[from] InvalidDay),
    #[error("{0} days asked for; at most {MAX_DAYS} at once")]
    TooManyDays(usize),
    #[error("{0}")]
    InvalidQuery(&'static str),
    #[error("SQL: {0}")]
    Sql(String),
    #[error("stopped after {0:?}; narrow the query down")]
    QueryTimeout(std::time::Duration),
    #[error("as many queries as may run at once are running; try again")]
    Busy,
}

impl LogsError {
    /// For metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Folder { .. } => "folder",
            Self::FolderInUse(_) => "owned",
            Self::Store(_) => "store",
            Self::Day(_) | Self::TooManyDays(_) => "days",
            Self::InvalidQuery(_) => "refused",
            Self::Sql(_) => "sql",
            Self::QueryTimeout(_) => "too_slow",
            Self::Busy => "busy",
        }
    }
}

impl From<LogsError> for Status {
    fn from(error: LogsError) -> Self {
        let message = error.to_string();
        match error {
            LogsError::Day(_)
            | LogsError::TooManyDays(_)
            | LogsError::InvalidQuery(_)
            | LogsError::Sql(_) => Status::invalid_argument(message),
            LogsError::QueryTimeout(_) => Status::deadline_exceeded(message),
            LogsError::Busy => Status::resource_exhausted(message),
            LogsError::Folder { .. } | LogsError::FolderInUse(_) | LogsError::Store(_) => {
                Status::internal(message)
            }
        }
    }
}
