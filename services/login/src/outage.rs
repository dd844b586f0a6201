//! Logs a repeating failure: the first time as a warning, then at debug level.

use std::fmt::Display;

use tracing::{debug, warn};

#[derive(Debug, Default)]
pub(crate) struct Outage {
    reported: bool,
}

impl Outage {
    /// The call succeeded: the next failure is a warning again.
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
