//! The end of open connections when the daemon drains.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// Clients in the handshake finish it, and every client has a while to select a world.
#[derive(Clone)]
pub(crate) struct Drain {
    started: CancellationToken,
    time_limit: Duration,
}

impl Drain {
    pub(crate) fn new(started: CancellationToken, time_limit: Duration) -> Self {
        Self { started, time_limit }
    }

    pub(crate) fn started(&self) -> &CancellationToken {
        &self.started
    }

    /// Waits until the time limit after the start of the drain.
    pub(crate) async fn expired(&self) {
        self.started.cancelled().await;
        tokio::time::sleep(self.time_limit).await;
    }
}
