//! A throwaway Redis.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use crate::process::{Process, User, find, free_port};

/// Another process may take the free port between our look and the server's.
const PORTS_TO_TRY: usize = 5;

/// An empty Redis server that keeps nothing on the disk.
pub struct Redis {
    process: Process,
    port: u16,
    // Dropped last: the server runs in it.
    _folder: TempDir,
}

impl Redis {
    /// # Panics
    /// When Redis is not installed (the message names the package) or does not start.
    pub async fn start() -> Self {
        let started: Result<Self> =
            tokio::task::spawn_blocking(Self::try_start).await.context("starting Redis").flatten();
        started.unwrap_or_else(|error| panic!("Redis: {error:#}"))
    }

    fn try_start() -> Result<Self> {
        let program = find("redis-server", &[], "redis-server")?;
        let user = User::unprivileged(&["redis", "nobody"])?;
        let folder = tempfile::Builder::new().prefix("shardkeep-redis-").tempdir()?;
        user.change_owner(folder.path())?;
        let mut tried = 0;
        loop {
            let port = free_port()?;
            tried += 1;
            let mut command = user.command(&program);
            command.current_dir(folder.path());
            command.args([
                "--bind",
                "127.0.0.1",
                "--port",
                &port.to_string(),
                "--save",
                "",
                "--appendonly",
                "no",
            ]);
            match Process::start(command, &folder.path().join("log"), || responds_to_ping(port)) {
                Ok(process) => return Ok(Self { process, port, _folder: folder }),
                Err(_) if tried < PORTS_TO_TRY => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// `redis://…`
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
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
