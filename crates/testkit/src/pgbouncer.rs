//! A throwaway PgBouncer in front of a throwaway PostgreSQL.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpStream},
};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use crate::{
    postgres::Postgres,
    process::{Process, User, find, free_port},
};

/// A pooler. In transaction mode it has three server connections, so that clients share them.
pub struct PgBouncer {
    process: Process,
    port: u16,
    // Dropped last: the server runs in it.
    _folder: TempDir,
}

impl PgBouncer {
    /// Starts a pooler for the database of `server`. `pool_mode` is `session` or `transaction`.
    ///
    /// # Panics
    /// When PgBouncer is not installed (the message names the package) or does not start.
    pub async fn start(server: &Postgres, pool_mode: &'static str) -> Self {
        let (server, database) = (server.address(), server.database().to_owned());
        let start = move || Self::try_start(server, &database, pool_mode);
        let started: Result<Self> =
            tokio::task::spawn_blocking(start).await.context("starting PgBouncer").flatten();
        started.unwrap_or_else(|error| panic!("PgBouncer: {error:#}"))
    }

    fn try_start(server: SocketAddr, database: &str, pool_mode: &str) -> Result<Self> {
        let program = find("pgbouncer", &["/usr/sbin".into()], "pgbouncer")?;
        let user = User::unprivileged(&["postgres", "nobody"])?;
        let folder = tempfile::Builder::new().prefix("shardkeep-pgbouncer-").tempdir()?;
        let port = free_port()?;
        // In session mode each client connection needs a server connection.
        let pool_size = if pool_mode == "session" { 40 } else { 3 };
        let users = folder.path().join("users.txt");
        fs::write(&users, "\"postgres\" \"\"\n")?;
        let settings = folder.path().join("pgbouncer.ini");
        let text = format!(
            "[databases]\n{database} = host={} port={}\n\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\nauth_type = trust\nauth_file = {}\n\
             pool_mode = {pool_mode}\ndefault_pool_size = {pool_size}\n",
            server.ip(),
            server.port(),
            users.display()
        );
        fs::write(&settings, text)?;
        for path in [folder.path(), &users, &settings] {
            user.change_owner(path)?;
        }
        let mut command = user.command(&program);
        command.current_dir(folder.path()).arg(&settings);
        let ready = || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok();
        let process = Process::start(command, &folder.path().join("log"), ready)?;
        Ok(Self { process, port, _folder: folder })
    }

    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        self.process.end("KILL");
    }
}
