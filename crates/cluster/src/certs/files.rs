//! The files of one certificate, and how they are written.

use std::{
    fs::OpenOptions,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};

use crate::{Identity, identity::REVOKED, peer::is_instance_name};

/// Name of the certificate for players, in the certificate and of its files.
pub(super) const PLAYERS: &str = "players";
/// File stem of the authority.
const AUTHORITY: &str = "ca";

/// The files of one issued certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    pub ca: PathBuf,
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl Files {
    /// Paths of the certificate of this instance, whether the files exist or not.
    pub fn of(dir: &Path, name: &str) -> Self {
        let file = |extension: &str| dir.join(format!("{name}.{extension}"));
        Self { ca: dir.join("ca.pem"), cert: file("pem"), key: file("key") }
    }

    /// Like [`Files::of`], for a name that a person has typed.
    ///
    /// # Errors
    /// When the name is no instance name, and could therefore lead out of the folder, or names the CA's or the
    /// players' files.
    pub(super) fn of_instance(dir: &Path, name: &str) -> anyhow::Result<Self> {
        ensure!(
            is_instance_name(name),
            "{name:?} is not an instance name: use 1 to 63 letters, digits, `-`, `_` or `.`, and begin with a letter or digit"
        );
        let reserved = [AUTHORITY, PLAYERS, "revoked"];
        ensure!(
            !reserved.contains(&name),
            "{name:?} cannot be an instance name: {name}.pem has another purpose; choose another name, for example {name}-1"
        );
        Ok(Self::of(dir, name))
    }

    /// # Errors
    /// See [`Identity::load`].
    pub fn load(&self) -> anyhow::Result<Identity> {
        Identity::load(&self.ca, &self.cert, &self.key)
    }

    /// Copies certificate and key, the CA's certificate and the revocation list, if there is one, into `folder`. The
    /// copies are what one container may see of the folder.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub fn copy_to(&self, folder: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let copy = |from: &Path, mode| {
            let to = folder.join(from.file_name().context("the path names no file")?);
            let content = std::fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
            write(&to, &content, mode)?;
            anyhow::Ok(to)
        };
        let revoked = self.ca.with_file_name(REVOKED);
        if revoked.exists() {
            copy(&revoked, 0o644)?;
        }
        Ok(Self { ca: copy(&self.ca, 0o644)?, cert: copy(&self.cert, 0o644)?, key: copy(&self.key, 0o600)? })
    }
}

/// Replaces the file in one step, so that a reader sees the old or the new content. The file has its mode from the
/// start, so that no other user can read a key while it is written.
pub(super) fn write(path: &Path, content: &[u8], mode: u32) -> anyhow::Result<()> {
    let draft = path.with_extension(format!("draft-{}", std::process::id()));
    let result = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&draft)
        .and_then(|mut file| file.write_all(content))
        .and_then(|()| std::fs::rename(&draft, path));
    result.with_context(|| format!("cannot write {}", path.display()))
}
