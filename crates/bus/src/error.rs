//! Errors of opening and publishing.

/// The URL does not name a bus.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("unknown bus {0:?}: expected \"memory:\", \"redis://host:port\" or \"rediss://host:port\"")]
    Scheme(String),
    #[error("bus address: {0}")]
    Address(#[source] redis::RedisError),
    #[error("bus address: cannot read sslrootcert={path}")]
    Authority { path: String, source: std::io::Error },
}

/// The bus did not take the message. The fault is ours, never the publisher's.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PublishError {
    #[error("too many messages wait for the bus")]
    Full,
    #[error("the bus is closed")]
    Closed,
}
