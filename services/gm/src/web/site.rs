//! The state that all request handlers share.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::live_part::LiveStreams;
use crate::console::Console;

#[derive(Clone)]
pub(crate) struct Site {
    console: Arc<Console>,
    draining: CancellationToken,
    live_streams: LiveStreams,
}

impl Site {
    pub(crate) fn new(console: Arc<Console>, draining: CancellationToken) -> Self {
        Self { console, draining, live_streams: LiveStreams::default() }
    }

    pub(crate) fn console(&self) -> &Console {
        &self.console
    }

    /// Cancelled when the daemon drains. Streams end then, because they would never end by themselves.
    pub(crate) fn draining(&self) -> &CancellationToken {
        &self.draining
    }

    pub(crate) fn live_streams(&self) -> &LiveStreams {
        &self.live_streams
    }

    /// Browsers reach the console through a proxy that terminates TLS.
    pub(crate) fn is_behind_tls_proxy(&self) -> bool {
        self.console.config().behind_tls_proxy
    }
}
