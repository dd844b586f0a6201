//! A lock file, held by one process at a time.

use std::{
    fs::{File, TryLockError},
    path::Path,
};

/// An exclusive lock on a file. The operating system releases it when the process ends in any way.
#[derive(Debug)]
pub struct FileLock(File);

impl FileLock {
    /// Locks the file at `path`. Creates it if it is missing, and keeps its content.
    ///
    /// # Errors
    /// [`TryLockError::WouldBlock`] when another process holds the lock. Otherwise the error of opening the file.
    pub fn take(path: &Path) -> Result<Self, TryLockError> {
        let options = File::options().create(true).truncate(false).read(true).write(true).open(path);
        Self::of(options.map_err(TryLockError::Error)?)
    }

    /// Locks an open file.
    ///
    /// # Errors
    /// [`TryLockError::WouldBlock`] when another process holds the lock.
    pub fn of(file: File) -> Result<Self, TryLockError> {
        file.try_lock()?;
        Ok(Self(file))
    }

    /// The locked file, so that the holder can write its name into it.
    pub fn file(&mut self) -> &mut File {
        &mut self.0
    }
}

impl Drop for FileLock {
    /// Closing the file is not enough: a child process has a copy of the descriptor until its `exec`, and the lock
    /// lives until the last copy is closed.
    fn drop(&mut self) {
        // Fails only for a file that is not open.
        let _ = self.0.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inherited_file_handle_does_not_keep_the_lock() {
        let path = std::env::temp_dir().join(format!("shardkeep-lock-{}", std::process::id()));
        let lock = FileLock::take(&path).unwrap();
        let inherited = lock.0.try_clone().unwrap();
        assert!(matches!(FileLock::take(&path), Err(TryLockError::WouldBlock)));
        drop(lock);
        assert!(FileLock::take(&path).is_ok());
        drop(inherited);
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn lock_on_uncreatable_file_is_an_io_error() {
        assert!(matches!(FileLock::take(Path::new("/nowhere/at/all")), Err(TryLockError::Error(_))));
    }
}
