//! The client against servers made here from `wire` and `auth`, over real sockets: what it says, and what it does
//! when connections, gateways and logs are lost.

mod dns;
mod game;
mod gateway;
mod login;
mod raw;
mod resume;
mod server;

use std::time::Duration;

use tokio::time::timeout;

/// Longest duration of a test.
const TEST_TIMEOUT: Duration = Duration::from_secs(20);

/// Waits for a future that must be done soon.
async fn with_timeout<F: Future>(future: F) -> F::Output {
    timeout(TEST_TIMEOUT, future).await.expect("it happens")
}
