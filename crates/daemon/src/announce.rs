//! The announce file: tells whoever started a daemon with port 0 where it listens.

use std::path::Path;

use crate::BoundAddresses;

/// Writes the addresses so that a reader sees the whole file or none.
pub(crate) fn write(path: &Path, bound: &BoundAddresses) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let draft = path.with_extension(format!("{}.draft", bound.pid));
    std::fs::write(&draft, serde_json::to_vec_pretty(bound)?)?;
    std::fs::rename(&draft, path)
}
