//! Access to files below one folder that never follows a symbolic link: each part of a path is opened on its own, from the
//! folder above it. A link inside an installation can then not lead an update out of it.

use std::{
    fs::File,
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{self, AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat},
    io::Errno,
};

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const FOLDER_MODE: Mode = Mode::from_raw_mode(0o777);
const FILE_MODE: Mode = Mode::from_raw_mode(0o666);

#[derive(Debug)]
pub(super) struct Folder {
    opened: OwnedFd,
    /// For error texts only.
    path: PathBuf,
}

impl Folder {
    /// Opens the installation's own folder, and creates it if necessary. Links in its path are followed, because the
    /// player chose it.
    pub(super) fn open_root(path: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(path)?;
        let opened = fs::openat(CWD, path, FOLDER.difference(OFlags::NOFOLLOW), Mode::empty())?;
        Ok(Self { opened, path: path.to_owned() })
    }

    /// The path of an entry, for error texts.
    pub(super) fn shown(&self, path: &str) -> PathBuf {
        self.path.join(path)
    }

    /// Opens a folder below this one. `create`: creates the folders that are missing.
    ///
    /// # Errors
    /// A part of the path is missing, or is not a folder. A symbolic link is not a folder.
    pub(super) fn folder(&self, path: &str, create: bool) -> io::Result<Self> {
        let mut opened = self.opened.try_clone()?;
        for part in path.split('/').filter(|part| !part.is_empty()) {
            if create {
                match fs::mkdirat(&opened, part, FOLDER_MODE) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            opened = fs::openat(&opened, part, FOLDER, Mode::empty()).map_err(|error| match error {
                // Systems differ in the error for a link.
                Errno::LOOP | Errno::MLINK | Errno::NOTDIR => not_a_folder(),
                error => error.into(),
            })?;
        }
        Ok(Self { opened, path: self.shown(path) })
    }

    /// The folder of a file, and the file's name in it.
    fn parent<'a>(&self, path: &'a str, create: bool) -> io::Result<(Self, &'a str)> {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        Ok((self.folder(folder, create)?, name))
    }

    pub(super) fn open_to_read(&self, path: &str) -> io::Result<File> {
        self.open(path, OFlags::RDONLY)
    }

    pub(super) fn open_to_write(&self, path: &str) -> io::Result<File> {
        self.open(path, OFlags::WRONLY)
    }

    /// Opens a file to read and write it, and creates it if it is missing.
    pub(super) fn create(&self, path: &str) -> io::Result<File> {
        self.open(path, OFlags::RDWR.union(OFlags::CREATE))
    }

    fn open(&self, path: &str, flags: OFlags) -> io::Result<File> {
        let (folder, name) = self.parent(path, false)?;
        let flags = flags.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
        Ok(fs::openat(&folder.opened, name, flags, FILE_MODE)?.into())
    }

    /// The metadata of an entry, or of a symbolic link itself. `None`: there is no entry, or no folder leads to it.
    pub(super) fn stat(&self, path: &str) -> Option<Stat> {
        let (folder, name) = self.parent(path, false).ok()?;
        fs::statat(&folder.opened, name, AtFlags::SYMLINK_NOFOLLOW).ok()
    }

    /// Bytes of the regular file at this path.
    pub(super) fn size_of(&self, path: &str) -> Option<u64> {
        let stat = self.stat(path)?;
        let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        is_file.then(|| u64::try_from(stat.st_size).unwrap_or_default())
    }

    /// Removes a file or a symbolic link. Nothing happens if no folder leads there.
    pub(super) fn remove(&self, path: &str) -> io::Result<()> {
        let Ok((folder, name)) = self.parent(path, false) else { return Ok(()) };
        match fs::unlinkat(&folder.opened, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes a folder if it is empty. Returns whether it did.
    pub(super) fn remove_empty_folder(&self, path: &str) -> bool {
        let Ok((folder, name)) = self.parent(path, false) else { return false };
        fs::unlinkat(&folder.opened, name, AtFlags::REMOVEDIR).is_ok()
    }

    /// Renames a file of another folder to a path below this one, and creates the folders on the way. Survives a power
    /// failure.
    pub(super) fn move_here(&self, from: &Self, name: &str, to: &str) -> io::Result<()> {
        let (folder, to) = self.parent(to, true)?;
        fs::renameat(&from.opened, name, &folder.opened, to)?;
        folder.sync()
    }

    /// Writes the names of the folder's entries to the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        Ok(fs::fsync(self.opened.as_fd())?)
    }

    /// Names of the entries that are valid UTF-8.
    pub(super) fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.opened)? {
            let entry = entry?;
            if let Ok(name) = entry.file_name().to_str()
                && !matches!(name, "." | "..")
            {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    /// Bytes that the disk of this folder has free.
    pub(super) fn free_bytes(&self) -> Option<u64> {
        let it = fs::fstatvfs(&self.opened).ok()?;
        Some(it.f_bavail.saturating_mul(it.f_frsize))
    }
}

fn not_a_folder() -> io::Error {
    io::Error::new(
        io::ErrorKind::NotADirectory,
        "a symbolic link or a file is where a folder has to be; updates follow no links: replace it with a folder",
    )
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsStr, io::Write as _, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn linked_folder_is_never_entered() {
        let (inside, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(outside.path().join("precious"), "kept").unwrap();
        symlink(outside.path(), inside.path().join("data")).unwrap();
        let folder = Folder::open_root(inside.path()).unwrap();
        assert!(folder.open_to_read("data/precious").is_err());
        assert!(folder.create("data/new").is_err());
        assert_eq!(folder.size_of("data/precious"), None);
        folder.remove("data/precious").unwrap();
        assert!(!folder.remove_empty_folder("data/x"));
        folder.create("staged").unwrap().write_all(b"new").unwrap();
        let error = folder.move_here(&folder, "staged", "data/new").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotADirectory);
        let names: Vec<_> =
            std::fs::read_dir(outside.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
        assert_eq!(names, [OsStr::new("precious")]);
        assert_eq!(std::fs::read(outside.path().join("precious")).unwrap(), b"kept");
    }

    #[test]
    fn linked_file_is_replaced_and_its_target_kept() {
        let (inside, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let target = outside.path().join("precious");
        std::fs::write(&target, "kept").unwrap();
        symlink(&target, inside.path().join("game")).unwrap();
        let folder = Folder::open_root(inside.path()).unwrap();
        assert!(folder.open_to_write("game").is_err());
        assert_eq!(folder.size_of("game"), None);
        folder.create("staged").unwrap().write_all(b"new").unwrap();
        folder.move_here(&folder, "staged", "game").unwrap();
        assert_eq!(std::fs::read(inside.path().join("game")).unwrap(), b"new");
        assert_eq!(std::fs::read(&target).unwrap(), b"kept");
    }
}
