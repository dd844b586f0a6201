//! A failure that repeats until somebody mends it: told once, and then only to those who debug.

use std::fmt::Display;

use tracing::{debug, warn};

#[derive(Debug, Default)]
pub(crate) struct Outage {
    reported: bool,
}

impl Outage {
    /// It works; the next failure is news again.
    pub(crate) fn recovered(&mut self) {
        self.reported = false;
    }

    pub(crate) fn note(&mut self, error: &dyn Display, what: &'static str) {
        if self.reported {
            debug!(%error, "{what}");
        } else {
            warn!(%error, "{what}");
            self.reported = true;
        }
    }
}
