//! Checks that the disk has room for an update, before anything is fetched.

use rustix::fs::Stat;

use super::error::UpdateError;

/// Space left for other programs.
const MARGIN: u64 = 16 << 20;

/// Bytes that a file occupies on the disk. A hole occupies none.
pub(super) fn allocated_bytes(it: &Stat) -> u64 {
    u64::try_from(it.st_blocks).unwrap_or_default() * 512
}

/// Checks for `written` bytes of files, of which `on_disk` are on the disk already.
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
        // Most bytes are on the disk already.
        assert!(check(1 << 30, (1 << 30) - 1, Some(MARGIN + 1)).is_ok());
        // An update without files needs no space.
        assert!(check(0, 0, Some(0)).is_ok());
        assert!(check(u64::MAX, 0, None).is_ok());
    }
}
