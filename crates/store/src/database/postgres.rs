//! PostgreSQL: a pool of connections whose sessions cannot hang others for long.

use std::{io, str::FromStr as _};

use sqlx::{
    ConnectOptions as _, Connection as _, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::time::timeout;

use super::ACQUIRE_TIMEOUT;
use crate::{Error, Schema};

/// Of one replica; four kinds of daemons, each twice, stay below PostgreSQL's default of 100.
const CONNECTIONS: u32 = 10;

/// A replica that is stopped in the middle of a transaction must not hold its row locks for ever: the server ends
/// such a session, and the transaction with it.
const SESSION_OPTIONS: [(&str, &str); 3] = [
    ("idle_in_transaction_session_timeout", "5000"),
    ("lock_timeout", "5000"),
    ("statement_timeout", "15000"),
];

pub(super) async fn open(url: &str, schema: Schema) -> Result<PgPool, Error> {
    let options = PgConnectOptions::from_str(url)
        .map_err(|error| Error::Url { url: without_password(url), reason: error.to_string() })?
        .application_name("shardkeep")
        .options(SESSION_OPTIONS);
    probe(&options).await?;
    let pool = PgPoolOptions::new()
        .max_connections(CONNECTIONS)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .connect_with(options)
        .await?;
    schema.migrate(&pool, ToOwned::to_owned).await?;
    Ok(pool)
}

/// One connection by itself. A pool tries again until its time is over, and then tells the time instead of the cause.
async fn probe(options: &PgConnectOptions) -> Result<(), Error> {
    let timeout_error = || sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, "no connection in time"));
    let connected =
        timeout(ACQUIRE_TIMEOUT, options.connect()).await.unwrap_or_else(|_| Err(timeout_error()));
    let address = || match options.get_socket() {
        Some(socket) => socket.display().to_string(),
        None => format!("{}:{}", options.get_host(), options.get_port()),
    };
    match connected {
        Ok(connection) => {
            // It has served its purpose, however it ends.
            let _ = connection.close().await;
            Ok(())
        }
        Err(sqlx::Error::Io(error)) => Err(Error::Unreachable { address: address(), source: error.into() }),
        Err(error) => Err(match Error::from(error) {
            Error::Unavailable(source) => Error::Unreachable { address: address(), source },
            Error::Statement(source) => Error::AccessDenied { address: address(), source },
            other => other,
        }),
    }
}

/// The URL as it may be logged.
fn without_password(url: &str) -> String {
    match (url.find("://"), url.find('@')) {
        (Some(scheme), Some(at)) if scheme < at => format!("{}://***{}", &url[..scheme], &url[at..]),
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::without_password;

    #[test]
    fn password_is_removed_from_logged_url() {
        assert_eq!(without_password("postgres://me:secret@host/db"), "postgres://***@host/db");
        assert_eq!(without_password("postgres://host/db"), "postgres://host/db");
    }
}
