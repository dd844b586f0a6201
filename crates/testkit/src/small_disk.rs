//! A small file system in memory, for tests of a full disk.

use std::{fs, path::Path, process::Command};

use tempfile::TempDir;

use crate::process::run;

/// A mounted tmpfs; unmounted when the value is dropped.
pub struct SmallDisk {
    folder: TempDir,
}

impl SmallDisk {
    /// Mounts a file system of this size. `None` where this process may not mount; the test's output says so.
    ///
    /// # Panics
    /// When there is no temporary folder.
    pub fn mount(bytes: u64) -> Option<Self> {
        let folder =
            tempfile::Builder::new().prefix("shardkeep-disk-").tempdir().expect("a temporary folder");
        let options = format!("size={bytes}");
        let mounted =
            run(Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder.path()));
        match mounted {
            Ok(()) => Some(Self { folder }),
            Err(error) => {
                println!("skipped: this process may not mount a tmpfs: {error:#}");
                None
            }
        }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file until no byte is left.
    pub fn fill(&self) {
        use std::io::Write as _;
        let mut file = fs::File::create(self.filler()).expect("an inode is left");
        for block in [64 << 10, 4 << 10, 1] {
            while file.write_all(&vec![0; block]).is_ok() {}
        }
    }

    /// Removes what [`SmallDisk::fill`] has written.
    ///
    /// # Panics
    /// When the disk was not filled.
    pub fn free(&self) {
        fs::remove_file(self.filler()).expect("the disk was filled");
    }

    fn filler(&self) -> std::path::PathBuf {
        self.folder.path().join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a daemon of the test may still hold a file open.
        drop(run(Command::new("umount").arg("--lazy").arg(self.folder.path())));
    }
}
