//! Development certificates: an authority in a folder, and certificates that name kind, instance and world.

use std::path::{Path, PathBuf};

use shardkeep_types::{DaemonKind, WorldId};

/// The files of one issued certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    pub ca: PathBuf,
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// Makes an authority in this folder, or keeps the one that is there.
///
/// # Errors
/// When the folder or its files can not be written, or hold something else.
pub fn make_ca(dir: &Path) -> anyhow::Result<PathBuf> {
    let _ = dir;
    todo!()
}

/// Issues a certificate signed by the folder's authority, or keeps a valid one that is there.
///
/// # Errors
/// When there is no authority, or files can not be written.
pub fn issue(dir: &Path, kind: DaemonKind, name: &str, world: WorldId) -> anyhow::Result<Files> {
    let _ = (dir, kind, name, world);
    todo!()
}
