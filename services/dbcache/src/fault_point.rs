//! A fault for tests: dbcache aborts between a commit and its answer.
//!
//! A file `fault-after-commit` in the data directory arms the fault. Its content is the reason of the hard action that
//! triggers it, such as `trade`. dbcache deletes the file, so that the fault happens once, and aborts the process.
//! Release builds do not contain this code: a production daemon never reads the file.

use std::path::Path;

/// Aborts the process if the fault is armed for this reason.
#[cfg(debug_assertions)]
pub(crate) fn after_commit(data_dir: &Path, reason: &str) {
    let file = data_dir.join("fault-after-commit");
    if std::fs::read_to_string(&file).is_ok_and(|armed| armed.trim() == reason)
        && std::fs::remove_file(&file).is_ok()
    {
        std::process::abort();
    }
}

#[cfg(not(debug_assertions))]
pub(crate) fn after_commit(_: &Path, _: &str) {}
