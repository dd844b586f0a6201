//! Accepts connections in a loop that survives failures.

use std::{io, time::Duration};

use tracing::warn;

/// Pause after a failed accept, for example when no file descriptor is left. It keeps the loop from spinning.
const PAUSE: Duration = Duration::from_millis(50);

/// The next connection of a listener. Failures are logged, and repeated after a pause.
pub async fn accept<T, F>(next: impl Fn() -> F) -> T
where
    F: Future<Output = io::Result<T>>,
{
    loop {
        match next().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
