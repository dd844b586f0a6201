//! The progress of an update, for display.

use std::sync::{
    Arc,
    atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// Asking what is published.
    Manifest,
    /// Reading what is installed.
    Scan,
    /// Copying what is here, in bytes of files.
    Copy,
    /// Fetching chunks, in bytes of their stored form.
    Fetch,
    /// Putting files in their places.
    Commit,
}

/// Counts while the update runs.
#[derive(Debug, Default)]
pub struct Progress {
    stage: AtomicU8,
    position: AtomicU64,
    length: AtomicU64,
    fetched: AtomicU64,
    corrupted: AtomicU64,
    lost: AtomicU64,
}

impl Progress {
    pub fn shared() -> Arc<Self> {
        Arc::default()
    }

    /// The stage, its progress, and its total (0: unknown).
    pub fn snapshot(&self) -> (Stage, u64, u64) {
        let stage = match self.stage.load(Relaxed) {
            1 => Stage::Scan,
            2 => Stage::Copy,
            3 => Stage::Fetch,
            4 => Stage::Commit,
            _ => Stage::Manifest,
        };
        (stage, self.position.load(Relaxed), self.length.load(Relaxed))
    }

    /// Bytes of chunks that came over the network.
    pub fn fetched(&self) -> u64 {
        self.fetched.load(Relaxed)
    }

    /// Chunks whose content was wrong.
    pub fn corrupted(&self) -> u64 {
        self.corrupted.load(Relaxed)
    }

    /// Connections that were lost.
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }

    pub(super) fn begin_stage(&self, stage: Stage, length: u64) {
        self.stage.store(stage as u8, Relaxed);
        self.position.store(0, Relaxed);
        self.length.store(length, Relaxed);
    }

    pub(super) fn advance(&self, by: u64) {
        self.position.fetch_add(by, Relaxed);
    }

    pub(super) fn count_fetched(&self, bytes: u64) {
        self.fetched.fetch_add(bytes, Relaxed);
        self.advance(bytes);
    }

    pub(super) fn count_corrupted(&self) {
        self.corrupted.fetch_add(1, Relaxed);
    }

    pub(super) fn count_lost(&self) {
        self.lost.fetch_add(1, Relaxed);
    }
}
