//! A throwaway Redis.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use crate::{
    process::{Process, User, find, free_port},
    tls::TlsFiles,
    wait::wait_until,
};

/// Another process may take the free port between our look and the server's.
const PORTS_TO_TRY: usize = 5;

/// An empty Redis server that keeps nothing on the disk.
pub struct Redis {
    process: Process,
    port: u16,
    /// Set when the server accepts only TLS.
    authority: Option<PathBuf>,
    // Dropped last: the server runs in it.
    _folder: TempDir,
}

impl Redis {
    /// # Panics
    /// When Redis is not installed (the message names the package) or does not start.
    pub async fn start() -> Self {
        Self::start_as(false).await
    }

    /// A server that accepts only TLS. [`Redis::url`] names its authority.
    ///
    /// # Panics
    /// As [`Redis::start`].
    pub async fn with_tls() -> Self {
        Self::start_as(true).await
    }

    async fn start_as(tls: bool) -> Self {
        let started: Result<Self> = tokio::task::spawn_blocking(move || Self::try_start(tls))
            .await
            .context("starting Redis")
            .flatten();
        started.unwrap_or_else(|error| panic!("Redis: {error:#}"))
    }

    fn try_start(tls: bool) -> Result<Self> {
        let program = find("redis-server", &[], "redis-server")?;
        let user = User::unprivileged(&["redis", "nobody"])?;
        let folder = tempfile::Builder::new().prefix("shardkeep-redis-").tempdir()?;
        user.change_owner(folder.path())?;
        let tls = if tls { Some(TlsFiles::create(folder.path(), &user)?) } else { None };
        let mut tried = 0;
        loop {
            let port = free_port()?;
            tried += 1;
            let mut command = user.command(&program);
            command.current_dir(folder.path());
            command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
            match &tls {
                None => drop(command.args(["--port", &port.to_string()])),
                Some(files) => {
                    command.args([
                        "--port",
                        "0",
                        "--tls-port",
                        &port.to_string(),
                        "--tls-auth-clients",
                        "no",
                    ]);
                    command.arg("--tls-ca-cert-file").arg(&files.authority);
                    command.arg("--tls-cert-file").arg(&files.certificate);
                    command.arg("--tls-key-file").arg(&files.key);
                }
            }
            let ready = || match tls {
                None => responds_to_ping(port),
                Some(_) => TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok(),
            };
            match Process::start(command, &folder.path().join("log"), ready) {
                Ok(process) => {
                    let authority = tls.map(|files| files.authority);
                    return Ok(Self { process, port, authority, _folder: folder });
                }
                Err(_) if tried < PORTS_TO_TRY => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// `redis://…`, or `rediss://…` with the authority of the server.
    pub fn url(&self) -> String {
        match &self.authority {
            None => format!("redis://127.0.0.1:{}", self.port),
            Some(path) => format!("rediss://127.0.0.1:{}?sslrootcert={}", self.port, path.display()),
        }
    }

    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Makes this server a replica of `primary`, and waits until it has copied everything.
    ///
    /// # Panics
    /// When the server does not obey.
    pub async fn replicate(&self, primary: &Self) {
        self.command(&format!("REPLICAOF 127.0.0.1 {}", primary.port));
        let copied = wait_until("the replica has copied the primary", async || {
            Ok(self.command("INFO replication").contains("master_link_status:up").then_some(()))
        });
        copied.await.expect("the primary is up");
    }

    /// Makes a replica the primary.
    ///
    /// # Panics
    /// When the server does not obey.
    pub fn promote(&self) {
        self.command("REPLICAOF NO ONE");
    }

    fn command(&self, command: &str) -> String {
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(self.address())?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream.write_all(format!("{command}\r\n").as_bytes())?;
            let mut response = vec![0; 16 << 10];
            let read = stream.read(&mut response)?;
            Ok(String::from_utf8_lossy(&response[..read]).into_owned())
        };
        let response = ask().unwrap_or_else(|error| panic!("Redis: {command}: {error}"));
        assert!(!response.starts_with('-'), "Redis: {command}: {response}");
        response
    }

    /// Stops answering without closing anything, as a frozen machine does.
    ///
    /// # Panics
    /// When the server has ended by itself.
    pub fn freeze(&self) {
        self.process.signal("STOP").unwrap_or_else(|error| panic!("Redis: {error:#}"));
    }

    /// # Panics
    /// When the server has ended by itself.
    pub fn thaw(&self) {
        self.process.signal("CONT").unwrap_or_else(|error| panic!("Redis: {error:#}"));
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.process.end("KILL");
    }
}

fn responds_to_ping(port: u16) -> bool {
    let ping = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"PING\r\n")?;
        let mut response = [0; 7];
        stream.read_exact(&mut response)?;
        Ok(&response == b"+PONG\r\n")
    };
    ping().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn redis_server_runs_until_dropped() {
        let redis = Redis::start().await;
        let port = redis.port;
        assert!(responds_to_ping(port));
        drop(redis);
        assert!(!responds_to_ping(port));
    }
}
