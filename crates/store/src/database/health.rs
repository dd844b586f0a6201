//! Whether a database accepts writes, as its latest statements found.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::Error;

/// The outcome of the latest statements on one database.
pub(super) struct Health {
    /// Why the database is unavailable; `None` while it accepts writes.
    cause: watch::Sender<Option<String>>,
    written_at: Mutex<Instant>,
}

impl Default for Health {
    fn default() -> Self {
        Self { cause: watch::Sender::new(None), written_at: Mutex::new(Instant::now()) }
    }
}

impl Health {
    /// Records the outcome of a statement or commit that wrote.
    pub(super) fn record_write<T>(&self, outcome: Result<T, Error>) -> Result<T, Error> {
        if outcome.is_ok() {
            *self.written_at.lock() = Instant::now();
            self.cause.send_if_modified(|cause| cause.take().is_some());
        }
        self.record_read(outcome)
    }

    /// Records the outcome of a statement that proves nothing about writes unless it fails.
    pub(super) fn record_read<T>(&self, outcome: Result<T, Error>) -> Result<T, Error> {
        if let Err(error) = &outcome
            && error.is_unavailable()
        {
            let latest = error.with_causes();
            self.cause
                .send_if_modified(|cause| cause.replace(latest.clone()).is_none_or(|old| old != latest));
        }
        outcome
    }

    /// Changes to the cause.
    pub(super) fn subscribe(&self) -> watch::Receiver<Option<String>> {
        self.cause.subscribe()
    }

    /// Time since the latest write.
    pub(super) fn idle(&self) -> Duration {
        self.written_at.lock().elapsed()
    }
}
