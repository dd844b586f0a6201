//! The options of an update.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use shardkeep_patch::PublicKey;

/// Pause between attempts: it doubles from the first value to the second.
pub(super) const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3));

/// The folder, the trusted keys, and how to fetch.
#[derive(Debug, Clone)]
pub struct Options {
    /// Folder of the installation. Files in it that no release named are left alone.
    pub to: PathBuf,
    /// Keys that may sign a manifest.
    pub keys: Vec<PublicKey>,
    /// Connections to fetch over.
    pub connections: usize,
    /// The update fails after this long without receiving a byte.
    pub patience: Duration,
    /// Takes a release that is older than the installed one.
    pub allow_older: bool,
    /// Reports a release whose signature is older than this, in `UpdateSummary::stale`.
    pub warn_after: Duration,
    /// Refuses a release whose signature is older than this; `None`: none is refused.
    pub refuse_after: Option<Duration>,
    /// Trusts the record of the last update, if it was of this release, instead of reading every file.
    pub quick: bool,
}

impl Options {
    pub const WARN_AFTER: Duration = Duration::from_hours(90 * 24);

    pub fn new(to: &Path, key: PublicKey) -> Self {
        Self {
            to: to.to_owned(),
            keys: vec![key],
            connections: 4,
            patience: Duration::from_secs(60),
            allow_older: false,
            warn_after: Self::WARN_AFTER,
            refuse_after: None,
            quick: false,
        }
    }
}
