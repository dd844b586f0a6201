//! PostgreSQL: a pool of connections whose sessions cannot hang others for long.

use std::str::FromStr as _;

use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::ACQUIRE_TIMEOUT;
use crate::{Error, Schema};

/// Of one replica; four kinds of daemons, each twice, stay below PostgreSQL's default of 100.
const CONNECTIONS: u32 = 10;

/// A replica that is stopped in the middle of a transaction must not hold its row locks for ever: the server ends
/// such a session, and the transaction with it.
const SESSION: [(&str, &str); 3] = [
    ("idle_in_transaction_session_timeout", "5000"),
    ("lock_timeout", "5000"),
    ("statement_timeout", "15000"),
];

pub(super) async fn open(url: &str, schema: Schema) -> Result<PgPool, Error> {
    let options = PgConnectOptions::from_str(url)
        .map_err(|error| Error::Url { url: without_password(url), why: error.to_string() })?
        .application_name("shardkeep")
        .options(SESSION);
    let pool = PgPoolOptions::new()
        .max_connections(CONNECTIONS)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .connect_with(options)
        .await?;
    schema.migrate(&pool, ToOwned::to_owned).await?;
    Ok(pool)
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
    fn passwords_are_not_told() {
        assert_eq!(without_password("postgres://me:secret@host/db"), "postgres://***@host/db");
        assert_eq!(without_password("postgres://host/db"), "postgres://host/db");
    }
}
