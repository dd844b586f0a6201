//! PostgreSQL: a pool of connections to a server that accepts writes, directly or through a pooler such as PgBouncer.

use std::{
    io,
    str::FromStr as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, PgConnection, PgPool, Row as _,
    SqlSafeStr as _,
    pool::PoolConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::time::timeout;

use super::migrate::Schema;
use crate::Error;

/// Connections of one replica. Four kinds of daemons with two replicas each stay below PostgreSQL's default of 100.
const CONNECTIONS: u32 = 10;
/// How long a call waits for a connection before the database counts as unavailable.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);

/// A replica that stops in the middle of a transaction must not hold its row locks for long: the server ends such a
/// session and rolls the transaction back.
const SESSION_OPTIONS: [(&str, &str); 3] =
    [("idle_in_transaction_session_timeout", "5s"), ("lock_timeout", "5s"), ("statement_timeout", "15s")];
/// The same for one transaction.
const TRANSACTION_OPTIONS: &str = "SET LOCAL idle_in_transaction_session_timeout = '5s'; \
     SET LOCAL lock_timeout = '5s'; SET LOCAL statement_timeout = '15s'";

/// A server that daemons can use.
pub(super) struct Server {
    pub(super) address: String,
    pub(super) user: String,
    /// A pooler stands between. In its transaction mode each transaction may run on another server connection, so
    /// session options and prepared statements do not last.
    pub(super) pooled: bool,
    options: PgConnectOptions,
}

pub(super) struct PostgresStore {
    pool: PgPool,
    server: Server,
    eviction: Arc<Eviction>,
}

impl PostgresStore {
    pub(super) async fn open(url: &str, schema: Schema) -> Result<Self, Error> {
        let (server, connection) = connect(url).await?;
        // It has served its purpose, however it ends.
        let _ = connection.close().await;
        let eviction = Arc::<Eviction>::default();
        let pool = pool(server.options.clone(), &eviction).await?;
        let store = Self { pool, server, eviction };
        store.migrate(schema).await?;
        Ok(store)
    }

    /// Runs the migrations in one transaction under a lock, so that replicas that start together wait for each other.
    /// A session lock would stay with a pooler's server connection.
    async fn migrate(&self, schema: Schema) -> Result<(), Error> {
        let mut tx = self.begin("BEGIN").await?;
        if self.server.pooled {
            // sqlx names the statements of migrations; an earlier client may have used the same names.
            tx.execute("DEALLOCATE ALL").await?;
        }
        // Any number that all schemas share: PostgreSQL does not allow concurrent creation of one table.
        tx.execute("SELECT pg_advisory_xact_lock(7270727)").await?;
        schema.migrate(&mut *tx, ToOwned::to_owned).await?;
        if self.server.pooled {
            tx.execute("DEALLOCATE ALL").await?;
        }
        Ok(tx.commit().await?)
    }

    /// Begins a transaction by the statement `begin`.
    pub(super) async fn begin(
        &self,
        begin: &'static str,
    ) -> Result<sqlx::Transaction<'static, sqlx::Postgres>, Error> {
        let connection = self.acquire().await?;
        let begin = if self.server.pooled {
            AssertSqlSafe(format!("{begin}; {TRANSACTION_OPTIONS}")).into_sql_str()
        } else {
            begin.into_sql_str()
        };
        Ok(sqlx::Transaction::begin(connection, Some(begin)).await?)
    }

    /// A connection to a server that accepts writes.
    pub(super) async fn acquire(&self) -> Result<PoolConnection<sqlx::Postgres>, Error> {
        let connection = self.pool.acquire().await.map_err(|error| match error {
            sqlx::Error::PoolTimedOut => Error::Unreachable {
                address: self.server.address.clone(),
                source: format!("no connection within {ACQUIRE_TIMEOUT:?}").into(),
            },
            other => Error::from(other),
        })?;
        if self.eviction.latest_is_read_only() { Err(Error::ReadOnly) } else { Ok(connection) }
    }

    /// Whether a single statement must be wrapped in a transaction. Otherwise a pooler in transaction mode may send
    /// the two steps of the statement to different servers.
    pub(super) fn is_pooled(&self) -> bool {
        self.server.pooled
    }

    /// Closes all present connections as soon as they are free: their server has become read-only.
    pub(super) fn evict_connections(&self) {
        self.eviction.evict_present();
    }

    pub(super) async fn close(&self) {
        self.pool.close().await;
    }
}

/// Which connections the pool must not use again. After a fail-over the address may lead to the demoted server for a
/// while; its connections stay open, and only a new connection finds the new primary.
#[derive(Default)]
struct Eviction {
    created_before: Mutex<Option<Instant>>,
    latest_is_read_only: AtomicBool,
}

impl Eviction {
    fn evict_present(&self) {
        *self.created_before.lock() = Some(Instant::now());
    }

    fn connected(&self, read_only: bool) {
        self.latest_is_read_only.store(read_only, Ordering::Release);
        if read_only {
            self.evict_present();
        }
    }

    fn latest_is_read_only(&self) -> bool {
        self.latest_is_read_only.load(Ordering::Acquire)
    }

    fn may_keep(&self, age: Duration) -> bool {
        let created = Instant::now().checked_sub(age);
        match *self.created_before.lock() {
            Some(limit) => created.is_some_and(|created| created > limit),
            None => true,
        }
    }
}

async fn pool(options: PgConnectOptions, eviction: &Arc<Eviction>) -> Result<PgPool, Error> {
    let (connected, released, reused) = (eviction.clone(), eviction.clone(), eviction.clone());
    let pool = PgPoolOptions::new()
        .max_connections(CONNECTIONS)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .after_connect(move |connection, _| {
            let eviction = connected.clone();
            Box::pin(async move {
                eviction.connected(is_read_only(connection).await?);
                Ok(())
            })
        })
        .before_acquire(move |_, meta| {
            let keep = reused.may_keep(meta.age);
            Box::pin(async move { Ok(keep) })
        })
        .after_release(move |_, meta| {
            let keep = released.may_keep(meta.age);
            Box::pin(async move { Ok(keep) })
        })
        .connect_with(options)
        .await?;
    Ok(pool)
}

async fn is_read_only(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let row = connection.fetch_one("SHOW transaction_read_only").await?;
    Ok(row.try_get::<String, _>(0)? == "on")
}

/// Connects once and checks the server. A pool would retry until its time-out, and report that instead of the cause.
pub(super) async fn connect(url: &str) -> Result<(Server, PgConnection), Error> {
    let plain = PgConnectOptions::from_str(url)
        .map_err(|error| Error::Url { url: shardkeep_types::mask_url(url), reason: error.to_string() })?
        .application_name("shardkeep")
        // Daemons store no floats, and PgBouncer refuses the option.
        .extra_float_digits(None);
    let direct = plain.clone().options(SESSION_OPTIONS);
    match connect_with(&direct).await {
        Ok(mut connection) => {
            let pooled = check(&direct, &mut connection).await?;
            let options = if pooled { plain } else { direct };
            Ok((
                Server {
                    address: address(&options),
                    user: options.get_username().to_owned(),
                    pooled,
                    options,
                },
                connection,
            ))
        }
        Err(error) if refuses_session_options(&error) => {
            let mut connection = connect_with(&plain).await?;
            check(&plain, &mut connection).await?;
            let server = Server {
                address: address(&plain),
                user: plain.get_username().to_owned(),
                pooled: true,
                options: plain,
            };
            Ok((server, connection))
        }
        Err(error) => Err(error),
    }
}

async fn connect_with(options: &PgConnectOptions) -> Result<PgConnection, Error> {
    let timed_out = || sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, "no connection in time"));
    let connected = timeout(ACQUIRE_TIMEOUT, options.connect()).await.unwrap_or_else(|_| Err(timed_out()));
    connected.map_err(|error| match error {
        sqlx::Error::Io(error) => Error::Unreachable { address: address(options), source: error.into() },
        error => match Error::from(error) {
            Error::Unavailable(source) if is_permanent(&source) => {
                Error::AccessDenied { address: address(options), source }
            }
            Error::Unavailable(source) => Error::Unreachable { address: address(options), source },
            Error::Statement(source) => Error::AccessDenied { address: address(options), source },
            other => other,
        },
    })
}

/// Refuses a server that would fail later: a read-only one, and one that cannot store all text. Returns whether the
/// session options got lost, which means that a pooler dropped them.
async fn check(options: &PgConnectOptions, connection: &mut PgConnection) -> Result<bool, Error> {
    let query = "SELECT current_setting('server_encoding'), current_setting('transaction_read_only'), \
         current_setting('lock_timeout')";
    let row = connection.fetch_one(query).await?;
    let (encoding, read_only, lock_timeout): (String, String, String) =
        (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    if encoding != "UTF8" {
        let database = options.get_database().unwrap_or_else(|| options.get_username()).to_owned();
        return Err(Error::NotUtf8 { address: address(options), database, encoding });
    }
    if read_only == "on" {
        return Err(Error::ReadOnly);
    }
    Ok(lock_timeout != SESSION_OPTIONS[1].1)
}

fn address(options: &PgConnectOptions) -> String {
    match options.get_socket() {
        Some(socket) => socket.display().to_string(),
        None => format!("{}:{}", options.get_host(), options.get_port()),
    }
}

/// PgBouncer uses the code 08P01 for most errors, so only the text distinguishes a permanent refusal.
fn is_permanent(error: &sqlx::Error) -> bool {
    const REFUSALS: [&str; 7] = [
        "no such database",
        "no such user",
        "authentication failed",
        "auth failed",
        "not allowed",
        "unsupported startup parameter",
        "SSL required",
    ];
    matches!(error, sqlx::Error::Database(error)
        if error.code().is_some_and(|code| code == "08P01")
            && REFUSALS.iter().any(|refusal| error.message().contains(refusal)))
}

fn refuses_session_options(error: &Error) -> bool {
    matches!(error, Error::AccessDenied { source, .. }
        if source.to_string().contains("unsupported startup parameter"))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use shardkeep_testkit::{AddressSwitch, PgBouncer, Postgres};

    use super::*;
    use crate::{Database, Error, Query, inspect, sql};

    fn insert(name: u32) -> Query {
        sql("INSERT INTO sequences (name, next) VALUES ($1, 1)").bind(name.to_string())
    }

    /// Statements and transactions of two replicas at once, more than the pooler has server connections.
    async fn work_through_pooler(pool_mode: &'static str) {
        let server = Postgres::start().await;
        let pooler = PgBouncer::start(&server, pool_mode).await;
        let url = server.url_through(pooler.address());
        assert!(inspect(&url).await.unwrap().pooled);
        let (one, two) =
            tokio::try_join!(Database::open(&url, Schema::Game), Database::open(&url, Schema::Game)).unwrap();
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..100 {
            let database = if number % 2 == 0 { one.clone() } else { two.clone() };
            tasks.spawn(async move {
                database.execute(insert(number)).await?;
                let mut tx = database.begin().await?;
                let select = sql("SELECT next FROM sequences WHERE name = $1 {for_update}");
                let mut row =
                    tx.fetch_optional(select.bind(number.to_string())).await?.expect("just inserted");
                assert_eq!(row.take::<u64>()?, 1);
                tx.execute(sql("UPDATE sequences SET next = 2 WHERE name = $1").bind(number.to_string()))
                    .await?;
                tx.commit().await
            });
        }
        for done in tasks.join_all().await {
            done.unwrap();
        }
        let mut snapshot = one.snapshot().await.unwrap();
        let rows = snapshot.fetch_all(sql("SELECT name FROM sequences WHERE next = 2")).await.unwrap();
        assert_eq!(rows.len(), 100);
        let timeout =
            snapshot.fetch_all(sql("SELECT current_setting('lock_timeout')")).await.unwrap().remove(0).take();
        assert_eq!(timeout.ok(), Some("5s".to_owned()), "a transaction without the limits of a session");
    }

    #[tokio::test]
    async fn pgbouncer_in_session_mode_works() {
        work_through_pooler("session").await;
    }

    #[tokio::test]
    async fn pgbouncer_in_transaction_mode_works() {
        work_through_pooler("transaction").await;
    }

    #[tokio::test]
    async fn refusal_by_pgbouncer_is_permanent() {
        let server = Postgres::start().await;
        let pooler = PgBouncer::start(&server, "session").await;
        for url in [
            format!("postgres://postgres@{}/nothing", pooler.address()),
            format!("postgres://nobody@{}/{}", pooler.address(), server.database()),
        ] {
            let error = Database::open(&url, Schema::Game).await.unwrap_err();
            assert_eq!(error.label(), "access_denied", "{}", error.with_causes());
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn sslmode_verify_full_checks_authority() {
        let server = Postgres::dedicated().await;
        let authority = server.enable_tls();
        let url = |authority: &std::path::Path| {
            format!("{}?sslmode=verify-full&sslrootcert={}", server.url(), authority.display())
        };
        let database = Database::open(&url(&authority), Schema::Game).await.unwrap();
        let encrypted = sql("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()");
        assert!(database.fetch_optional(encrypted).await.unwrap().unwrap().take::<bool>().unwrap());
        let stranger = Postgres::dedicated().await;
        let error = Database::open(&url(&stranger.enable_tls()), Schema::Game).await.unwrap_err();
        assert!(error.with_causes().contains("certificate"), "{}", error.with_causes());
    }

    #[tokio::test]
    async fn database_that_is_not_utf8_is_refused() {
        let server = Postgres::start().await;
        let name = format!("{}_latin", server.database());
        server.query(&format!("CREATE DATABASE {name} ENCODING 'LATIN1' TEMPLATE template0")).unwrap();
        let url = server.url().replace(server.database(), &name);
        for error in
            [Database::open(&url, Schema::Accounts).await.unwrap_err(), inspect(&url).await.unwrap_err()]
        {
            assert_eq!(error.label(), "not_utf8");
            assert!(!error.is_unavailable(), "waiting cures nothing");
            assert!(error.to_string().contains("LATIN1") && error.to_string().contains(&name), "{error}");
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn writes_succeed_after_failover_to_standby() {
        let primary = Postgres::dedicated().await;
        let standby = primary.standby().await;
        let switch = AddressSwitch::start(primary.address()).await;
        let url = primary.url_through(switch.address());
        let database = Database::open(&url, Schema::Game).await.unwrap();
        database.execute(insert(1)).await.unwrap();
        let standby_url = standby.url();
        assert_eq!(inspect(&standby_url).await.unwrap_err().to_string(), Error::ReadOnly.to_string());

        primary.demote();
        // The address still leads to the demoted server, so the pool connects to it again.
        let refused = loop {
            match database.execute(insert(2)).await.unwrap_err() {
                error @ Error::ReadOnly => break error,
                error => assert!(error.is_unavailable(), "{error}"),
            }
        };
        assert!(refused.is_unavailable());
        standby.promote();
        switch.switch_to(standby.address());
        let moved = Instant::now();
        while database.execute(insert(2)).await.is_err() {
            assert!(moved.elapsed().as_secs() < 5, "writes do not succeed");
        }
        let rows = database.fetch_all(sql("SELECT name FROM sequences")).await.unwrap();
        assert_eq!(rows.len(), 2);
    }

    /// The server turns read-only under open connections, as some managed services do at a fail-over.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn connection_to_read_only_server_is_evicted_at_first_error() {
        let (old, new) = (Postgres::dedicated().await, Postgres::dedicated().await);
        let switch = AddressSwitch::start(old.address()).await;
        let url = old.url_through(switch.address());
        drop(Database::open(&new.url(), Schema::Game).await.unwrap());
        let database = Database::open(&url, Schema::Game).await.unwrap();
        // Several connections that the pool keeps.
        let open = || async { database.begin().await.unwrap() };
        drop(tokio::join!(open(), open(), open()));
        old.query("ALTER SYSTEM SET default_transaction_read_only = on").unwrap();
        old.query("SELECT pg_reload_conf()").unwrap();
        // The server reads its settings again in the background.
        while database.execute(sql("UPDATE sequences SET next = 1")).await.is_ok() {}
        switch.switch_to(new.address());
        assert_eq!(database.execute(insert(1)).await.unwrap(), 1, "an old connection is still in use");
    }
}
