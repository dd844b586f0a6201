//! Errors that end a connection: the side at fault, the metric label, and the answer to the client.

use std::io;

use shardkeep_wire::{
    WireError,
    payload::{Error as Answer, ErrorCode},
};

/// The side that caused an error. Only [`Fault::Us`] is logged as an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// An ordinary end, or too many clients at once.
    NoFault,
    Client,
    /// Another daemon, or the database.
    Peer,
    Us,
}

impl Fault {
    /// The value of a metric's `fault` label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoFault => "none",
            Self::Client => "client",
            Self::Peer => "peer",
            Self::Us => "us",
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    #[error("the client closed the connection")]
    Closed,
    #[error("the connection failed: {0}")]
    Io(io::Error),
    #[error("the client did not {0} in time")]
    Timeout(&'static str),
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("{0}")]
    Malformed(&'static str),
    #[error("a message of this server is longer than a record")]
    MessageTooLong,
}

impl ConnectionError {
    /// Low-cardinality name for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Io(_) => "broken",
            Self::Timeout(_) => "timeout",
            Self::Wire(error) => error.label(),
            Self::Malformed(_) => "malformed",
            Self::MessageTooLong => "internal",
        }
    }

    pub fn fault(&self) -> Fault {
        match self {
            Self::Closed => Fault::NoFault,
            Self::MessageTooLong => Fault::Us,
            _ => Fault::Client,
        }
    }

    /// The last message to the client; `None`: there is none.
    pub fn answer(&self) -> Option<Answer> {
        let code = match self {
            Self::Closed | Self::Io(_) => return None,
            Self::Timeout(_) => ErrorCode::TooSlow,
            Self::Wire(error) => error.code()?,
            Self::Malformed(_) => ErrorCode::Malformed,
            Self::MessageTooLong => ErrorCode::Unavailable,
        };
        Some(Answer::of(code, self.to_string()))
    }
}

impl From<io::Error> for ConnectionError {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
        match error.kind() {
            // Each of these is how some operating system reports that the client closed the connection.
            BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof => Self::Closed,
            _ => Self::Io(error),
        }
    }
}
