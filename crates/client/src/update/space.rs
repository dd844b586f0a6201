//! Whether the disk can hold an update, asked before anything is fetched.

use std::{fs::Metadata, path::Path};

use super::error::UpdateError;

/// Space left for other programs.
const MARGIN: u64 = 16 << 20;

/// Bytes that the disk of this folder has for us; `None` where the system does not say.
pub(super) fn free(folder: &Path) -> Option<u64> {
    let it = rustix::fs::statvfs(folder).ok()?;
    Some(it.f_bavail.saturating_mul(it.f_frsize))
}

/// Bytes that a file really takes: a hole in it takes none.
pub(super) fn allocated_bytes(it: &Metadata) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    it.blocks() * 512
}

/// `written` bytes are to come, of which `on_disk` stand on the disk already.
pub(super) fn check(written: u64, on_disk: u64, free: Option<u64>) -> Result<(), UpdateError> {
    let needed = written.saturating_sub(on_disk);
    match free {
        Some(free) if needed > 0 && needed.saturating_add(MARGIN) > free => {
            Err(UpdateError::InsufficientSpace { needed: needed + MARGIN, free })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disk_space_check_requires_size_and_margin() {
        assert!(check(1 << 30, 0, Some((1 << 30) + MARGIN)).is_ok());
        let error = check(1 << 30, 0, Some(1 << 30)).unwrap_err();
        assert!(
            matches!(error, UpdateError::InsufficientSpace { needed, free } if needed == (1 << 30) + MARGIN && free == 1 << 30)
        );
        // Most of it was written before.
        assert!(check(1 << 30, (1 << 30) - 1, Some(MARGIN + 1)).is_ok());
        // Nothing to do needs nothing.
        assert!(check(0, 0, Some(0)).is_ok());
        assert!(check(u64::MAX, 0, None).is_ok());
        assert!(free(Path::new("/")).is_some());
    }
}
