//! Where a cluster on this machine keeps its things: one folder, the same layout for every command.
//!
//! ```text
//! var/
//!   tls/        development CA and one certificate per daemon
//!   db/         SQLite files of the owning daemons, and the collected logs
//!   log/        what each daemon prints
//!   run/        up.lock, one configuration and one announcement per daemon
//! ```

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Error, Result, anyhow};
use serde::{Deserialize, Serialize};
use shardkeep_types::FileLock;

/// What a daemon writes once its sockets are bound.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    pub name: String,
    pub kind: String,
    pub pid: u32,
    pub grpc: String,
    pub admin: String,
    /// Empty for daemons without a socket for clients.
    #[serde(default)]
    pub client: String,
}

#[derive(Debug, Clone)]
pub struct DataDir(PathBuf);

impl DataDir {
    pub fn new(path: &Path) -> Result<Self> {
        let absolute =
            std::path::absolute(path).with_context(|| format!("data directory {}", path.display()))?;
        Ok(Self(absolute))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn create(&self) -> Result<()> {
        for folder in [self.tls(), self.db(), self.log(), self.run()] {
            fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        Ok(())
    }

    pub fn tls(&self) -> PathBuf {
        self.0.join("tls")
    }

    pub fn db(&self) -> PathBuf {
        self.0.join("db")
    }

    pub fn log(&self) -> PathBuf {
        self.0.join("log")
    }

    pub fn run(&self) -> PathBuf {
        self.0.join("run")
    }

    pub fn lock(&self) -> PathBuf {
        self.run().join("up.lock")
    }

    pub fn config(&self, name: &str) -> PathBuf {
        self.run().join(format!("{name}.toml"))
    }

    pub fn announcement(&self, name: &str) -> PathBuf {
        self.run().join(format!("{name}.json"))
    }

    /// What a daemon announced, if it has bound its sockets.
    pub fn announced(&self, name: &str) -> Option<Announcement> {
        serde_json::from_slice(&fs::read(self.announcement(name)).ok()?).ok()
    }

    /// Process id of the running `shardkeep up` of this folder.
    pub fn supervisor(&self) -> Result<Option<u32>> {
        let file = match fs::File::open(self.lock()) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", self.lock().display()));
            }
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(None),
            Err(fs::TryLockError::WouldBlock) => {
                let text = io::read_to_string(file)?;
                Ok(text.trim().parse().ok())
            }
            Err(fs::TryLockError::Error(error)) => Err(error.into()),
        }
    }

    /// Takes the folder for one supervisor; the lock goes with the process.
    pub fn take(&self) -> Result<FileLock> {
        use io::Write as _;
        self.create()?;
        let mut lock = FileLock::take(&self.lock()).map_err(|error| match error {
            fs::TryLockError::WouldBlock => anyhow!(
                "a cluster already runs in {}: stop it with `shardkeep down`, or choose another --data-dir",
                self.0.display()
            ),
            fs::TryLockError::Error(error) => {
                Error::new(error).context(format!("cannot lock {}", self.lock().display()))
            }
        })?;
        let file = lock.file();
        file.set_len(0)?;
        write!(file, "{}", std::process::id())?;
        file.flush()?;
        Ok(lock)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_serves_one_supervisor() {
        let folder = tempfile::tempdir().unwrap();
        let dir = DataDir::new(folder.path()).unwrap();
        assert_eq!(dir.supervisor().unwrap(), None);
        let lock = dir.take().unwrap();
        assert_eq!(dir.supervisor().unwrap(), Some(std::process::id()));
        assert!(dir.take().unwrap_err().to_string().contains("shardkeep down"));
        drop(lock);
        assert_eq!(dir.supervisor().unwrap(), None);
    }
}
