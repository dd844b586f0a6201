//! Looks at databases for `shardkeep doctor`, without the ownership that a daemon takes.

use sqlx::{ConnectOptions as _, Connection as _, Executor as _, Row as _, sqlite::SqliteConnectOptions};

use super::{
    handle::{postgres_all, sqlite_all},
    postgres,
};
use crate::{Error, Query, Row};

/// What [`inspect`] found on a server that daemons can use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// `host:port`, or the path of the socket.
    pub address: String,
    pub user: String,
    /// A pooler such as PgBouncer stands between.
    pub pooled: bool,
    pub may_create_tables: bool,
}

/// Connects as daemons do, with the same checks.
///
/// # Errors
/// Those that [`Database::open`](super::Database::open) would return.
pub async fn inspect(url: &str) -> Result<Inspection, Error> {
    let (server, mut connection) = postgres::connect(url).await?;
    let query = "SELECT has_schema_privilege(current_schema(), 'CREATE') \
         OR has_database_privilege(current_database(), 'CREATE')";
    let row = connection.fetch_one(query).await?;
    let may_create_tables = row.try_get::<Option<bool>, _>(0)?.unwrap_or(false);
    // The server has answered, however the connection ends.
    let _ = connection.close().await;
    Ok(Inspection { address: server.address, user: server.user, pooled: server.pooled, may_create_tables })
}

/// Runs one statement that reads, over a connection by itself. Another process may own the SQLite file.
pub(crate) async fn read_once(url: &str, query: Query) -> Result<Vec<Row>, Error> {
    let Some(path) = url.strip_prefix("sqlite:") else {
        let (_, mut connection) = postgres::connect(url).await?;
        return postgres_all(&mut connection, query, true).await;
    };
    let path = path.strip_prefix("//").unwrap_or(path);
    let mut connection = SqliteConnectOptions::new().filename(path).read_only(true).connect().await?;
    let rows = sqlite_all(&mut connection, query).await;
    let _ = connection.close().await;
    rows
}
