//! A throwaway PostgreSQL.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::Command,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU32, Ordering},
    },
};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use crate::{
    process::{Process, User, find, free_port, run},
    tls::TlsFiles,
};

const PACKAGE: &str = "postgresql";
/// Another process may take the free port between our look and the server's.
const PORTS_TO_TRY: usize = 5;

/// The server that tests of one process share while at least one of them runs.
static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());

/// An empty database on a throwaway server.
pub struct Postgres {
    server: Arc<Server>,
    database: String,
}

impl Postgres {
    /// A fresh database. Tests of one process share a server, which does not wait for the disk.
    ///
    /// # Panics
    /// When PostgreSQL is not installed (the message names the package) or does not start.
    pub async fn start() -> Self {
        Self::blocking(|| {
            let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
            let server = match shared.upgrade() {
                Some(server) => server,
                None => Arc::new(Server::start(false)?),
            };
            *shared = Arc::downgrade(&server);
            Ok(server)
        })
        .await
    }

    /// A server that no other test uses, with every commit on the disk: for measurements, and for tests that stop it.
    ///
    /// # Panics
    /// As [`Postgres::start`].
    pub async fn dedicated() -> Self {
        Self::blocking(|| Ok(Arc::new(Server::start(true)?))).await
    }

    async fn blocking(server: impl FnOnce() -> Result<Arc<Server>> + Send + 'static) -> Self {
        let start = move || {
            let server = server()?;
            let database = server.create_database()?;
            Ok(Self { server, database })
        };
        let started: Result<Self> =
            tokio::task::spawn_blocking(start).await.context("starting PostgreSQL").flatten();
        started.unwrap_or_else(|error| panic!("PostgreSQL: {error:#}"))
    }

    /// `postgres://…` of this database.
    pub fn url(&self) -> String {
        self.url_through(self.address())
    }

    /// Kills the server at once, as a power cut does; [`Postgres::restart`] brings it back on the same port.
    /// Only for [`Postgres::dedicated`].
    pub fn kill(&self) {
        let mut process = self.server.process.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut process) = process.take() {
            process.end("QUIT");
        }
    }

    /// Stops answering without closing anything, as a frozen machine does. Only for [`Postgres::dedicated`].
    ///
    /// # Panics
    /// When the server has ended by itself.
    pub fn freeze(&self) {
        self.signal("STOP");
    }

    /// # Panics
    /// When the server has ended by itself.
    pub fn thaw(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let process = self.server.process.lock().unwrap_or_else(PoisonError::into_inner);
        let signalled = process.as_ref().map_or(Ok(()), |process| process.signal_all(name));
        signalled.unwrap_or_else(|error| panic!("PostgreSQL: {error:#}"));
    }

    /// # Panics
    /// When the server does not come back.
    pub fn restart(&self) {
        self.kill();
        let process = self.server.run().unwrap_or_else(|error| panic!("PostgreSQL: {error:#}"));
        *self.server.process.lock().unwrap_or_else(PoisonError::into_inner) = Some(process);
    }
}

impl Postgres {
    /// Makes the server offer TLS from now on. Returns the file of its authority. Only for a dedicated server.
    ///
    /// # Panics
    /// When the server does not come back.
    pub fn enable_tls(&self) -> PathBuf {
        let folder = self.server.folder.path();
        let enable = || -> Result<PathBuf> {
            let files = TlsFiles::create(folder, &self.server.user)?;
            let settings = format!(
                "ssl = on\nssl_cert_file = '{}'\nssl_key_file = '{}'\n",
                files.certificate.display(),
                files.key.display()
            );
            fs::write(folder.join("data/postgresql.auto.conf"), settings)?;
            Ok(files.authority)
        };
        let authority = enable().unwrap_or_else(|error| panic!("PostgreSQL: {error:#}"));
        self.restart();
        authority
    }

    /// A standby that replicates from this server. It refuses writes until [`Postgres::promote`]. Only for a dedicated
    /// server.
    ///
    /// # Panics
    /// When the standby does not start.
    pub async fn standby(&self) -> Self {
        let (primary, database) = (Arc::clone(&self.server), self.database.clone());
        let start = move || Ok(Self { server: Arc::new(Server::start_standby(&primary)?), database });
        let started: Result<Self> =
            tokio::task::spawn_blocking(start).await.context("starting a standby").flatten();
        started.unwrap_or_else(|error| panic!("PostgreSQL: {error:#}"))
    }

    /// Turns a standby into a primary, and waits until it accepts writes.
    ///
    /// # Panics
    /// When the server is not a standby.
    pub fn promote(&self) {
        self.query("SELECT pg_promote(true, 30)")
            .unwrap_or_else(|error| panic!("PostgreSQL: {error:#}\n{}", self.server.log()));
    }

    /// Shuts a primary down, so that its standby receives everything, and starts it again as a standby on the same
    /// port.
    ///
    /// # Panics
    /// When the server does not come back.
    pub fn demote(&self) {
        let signal = self.server.folder.path().join("data/standby.signal");
        let mut process = self.server.process.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut process) = process.take() {
            process.end("INT");
        }
        fs::write(signal, "").unwrap_or_else(|error| panic!("PostgreSQL: {error:#}"));
        let standby = self.server.run().unwrap_or_else(|error| panic!("PostgreSQL: {error:#}"));
        *process = Some(standby);
    }

    /// Runs a statement by `psql`.
    ///
    /// # Errors
    /// When the server refuses it.
    pub fn query(&self, statement: &str) -> Result<()> {
        self.server.psql(&self.database, statement)
    }

    /// Name of this database.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// `host:port`.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.server.port).into()
    }

    /// The URL of this database through another address, such as a proxy's.
    pub fn url_through(&self, address: SocketAddr) -> String {
        format!("postgres://postgres@{address}/{}", self.database)
    }
}

struct Server {
    process: Mutex<Option<Process>>,
    programs: Programs,
    user: User,
    port: u16,
    durable: bool,
    databases: AtomicU32,
    // Dropped last: the server runs in it.
    folder: TempDir,
}

struct Programs {
    initdb: PathBuf,
    basebackup: PathBuf,
    postgres: PathBuf,
    psql: PathBuf,
}

impl Programs {
    fn find() -> Result<Self> {
        let mut folders: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
            .map(|entries| entries.flatten().map(|entry| entry.path().join("bin")).collect())
            .unwrap_or_default();
        folders.sort();
        folders.reverse();
        Ok(Self {
            initdb: find("initdb", &folders, PACKAGE)?,
            basebackup: find("pg_basebackup", &folders, PACKAGE)?,
            postgres: find("postgres", &folders, PACKAGE)?,
            psql: find("psql", &folders, PACKAGE)?,
        })
    }
}

impl Server {
    fn start(durable: bool) -> Result<Self> {
        Self::start_in(durable, |server| {
            run(server
                .user
                .command(&server.programs.initdb)
                .args([
                    "--no-sync",
                    "--auth=trust",
                    "--username=postgres",
                    "--encoding=UTF8",
                    "--locale=C",
                    "--pgdata",
                ])
                .arg(server.folder.path().join("data"))
                .current_dir(server.folder.path()))
        })
    }

    fn start_standby(primary: &Self) -> Result<Self> {
        Self::start_in(true, |server| {
            run(server
                .user
                .command(&server.programs.basebackup)
                .args([
                    "--host=127.0.0.1",
                    "--username=postgres",
                    "--write-recovery-conf",
                    "--checkpoint=fast",
                ])
                .arg(format!("--port={}", primary.port))
                .arg("--pgdata")
                .arg(server.folder.path().join("data"))
                .current_dir(server.folder.path()))
        })
    }

    /// Starts a server in a folder that `create` has filled, on a free port.
    fn start_in(durable: bool, create: impl FnOnce(&Self) -> Result<()>) -> Result<Self> {
        let user = User::unprivileged(&["postgres", "nobody"])?;
        let folder = tempfile::Builder::new().prefix("shardkeep-postgres-").tempdir()?;
        user.change_owner(folder.path())?;
        let mut server = Self {
            process: Mutex::new(None),
            programs: Programs::find()?,
            user,
            port: 0,
            durable,
            databases: AtomicU32::new(0),
            folder,
        };
        create(&server)?;
        let mut tried = 0;
        let process = loop {
            server.port = free_port()?;
            tried += 1;
            match server.run() {
                Err(_) if tried < PORTS_TO_TRY => {}
                result => break result?,
            }
        };
        server.process = Mutex::new(Some(process));
        Ok(server)
    }

    fn run(&self) -> Result<Process> {
        let data = self.folder.path().join("data");
        let mut command = self.user.command(&self.programs.postgres);
        command.current_dir(self.folder.path()).arg("-D").arg(&data);
        command.args(["-c", &format!("port={}", self.port)]);
        command.args([
            "-c",
            "listen_addresses=127.0.0.1",
            "-c",
            "unix_socket_directories=",
            "-c",
            "max_connections=300",
        ]);
        if !self.durable {
            command.args(["-c", "fsync=off", "-c", "full_page_writes=off"]);
        }
        // A killed server leaves the file of its process behind; its last line is about the past.
        let pid_file = data.join("postmaster.pid");
        drop(fs::remove_file(&pid_file));
        Process::start(command, &self.folder.path().join("log"), || {
            fs::read_to_string(&pid_file).is_ok_and(|text| {
                text.lines().nth(7).is_some_and(|line| matches!(line.trim(), "ready" | "standby"))
            })
        })
    }

    /// Output of the server since its last start.
    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn create_database(&self) -> Result<String> {
        let name = format!("test{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.psql("postgres", &format!("CREATE DATABASE {name}"))?;
        Ok(name)
    }

    fn psql(&self, database: &str, statement: &str) -> Result<()> {
        run(Command::new(&self.programs.psql)
            .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", "postgres", "-d", database])
            .args(["-p", &self.port.to_string(), "-c", statement]))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Before the folder is removed.
        drop(self.process.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn postgres_server_is_shared_and_ends_with_last_database() {
        let (one, other) = tokio::join!(Postgres::start(), Postgres::start());
        assert_eq!(one.server.port, other.server.port);
        assert_ne!(one.url(), other.url());
        let folder = one.server.folder.path().to_owned();
        drop(one);
        assert!(folder.exists());
        drop(other);
        assert!(!folder.exists());
    }

    #[tokio::test]
    async fn killed_postgres_restarts_with_its_databases() {
        let postgres = Postgres::dedicated().await;
        postgres.kill();
        postgres.restart();
        assert_eq!(postgres.server.create_database().unwrap(), "test1");
    }
}
