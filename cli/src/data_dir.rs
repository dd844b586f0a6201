//! The folder of a cluster on this machine, with the same layout for every command.
//!
//! ```text
//! var/
//!   tls/        development CA and one certificate per daemon
//!   db/         SQLite files of the owning daemons, the collected logs, and the zones' journals
//!   log/        the output of each daemon
//!   run/        up.lock, one configuration and one announcement per daemon
//! ```

use std::{
    fs::{self, DirBuilder, Permissions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Error, Result, anyhow};
use serde::{Deserialize, Serialize};
use shardkeep_types::FileLock;

use crate::program;

/// Mode of folders that only their owner can open.
const PRIVATE: u32 = 0o700;

/// Writes a file that only its owner can read. An existing file loses the permissions of others.
pub fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut file = fs::File::options().create(true).write(true).truncate(true).mode(0o600).open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(text.as_bytes())
}

/// The addresses that a daemon writes into a file when its sockets are bound.
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

    /// Creates the missing folders, readable by their owner only: they hold verifiers, chat lines and passwords of servers.
    /// Existing folders lose the permissions of others. The data directory itself keeps its permissions when it exists,
    /// because it may be a home directory.
    pub fn create(&self) -> Result<()> {
        let mut private = DirBuilder::new();
        private.recursive(true).mode(PRIVATE);
        for folder in [self.tls(), self.db(), self.log(), self.run()] {
            private.create(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        for folder in [self.db(), self.log(), self.run()] {
            let close = fs::set_permissions(&folder, Permissions::from_mode(PRIVATE));
            close.with_context(|| format!("cannot close {} to others", folder.display()))?;
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

    /// The announcement of a daemon that has bound its sockets.
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

    /// Locks the folder for one supervisor. The lock ends with the process.
    pub fn take(&self) -> Result<FileLock> {
        self.create()?;
        let mut lock = FileLock::take(&self.lock()).map_err(|error| match error {
            fs::TryLockError::WouldBlock => anyhow!(
                "a cluster already runs in {}: end it with `{}`, or choose another --data-dir",
                self.0.display(),
                program::hint("down", &self.0)
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

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn data_dir_is_private_to_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let dir = DataDir::new(&folder.path().join("var")).unwrap();
        fs::create_dir_all(dir.log()).unwrap();
        fs::set_permissions(dir.log(), Permissions::from_mode(0o755)).unwrap();
        fs::create_dir_all(dir.run()).unwrap();
        let config = dir.config("dbcache-1");
        fs::write(&config, "of an earlier version").unwrap();
        fs::set_permissions(&config, Permissions::from_mode(0o644)).unwrap();

        dir.create().unwrap();
        for folder in [dir.db(), dir.log(), dir.run()] {
            assert_eq!(mode(&folder), 0o700, "{}", folder.display());
        }
        assert_eq!(mode(folder.path()), 0o755, "not ours");
        write_private(&config, "store = \"postgres://me:secret@host/db\"").unwrap();
        assert_eq!(mode(&config), 0o600);
        assert!(fs::read_to_string(&config).unwrap().starts_with("store"));
        let fresh = DataDir::new(&folder.path().join("fresh")).unwrap();
        fresh.create().unwrap();
        assert_eq!(mode(fresh.path()), 0o700);
    }

    #[test]
    fn second_supervisor_of_a_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let dir = DataDir::new(folder.path()).unwrap();
        assert_eq!(dir.supervisor().unwrap(), None);
        let lock = dir.take().unwrap();
        assert_eq!(dir.supervisor().unwrap(), Some(std::process::id()));
        assert!(dir.take().unwrap_err().to_string().contains(" down --data-dir "));
        drop(lock);
        assert_eq!(dir.supervisor().unwrap(), None);
    }
}
