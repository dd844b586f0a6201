//! Waits for a condition of another process, which sends no event.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, interval};

/// Longest wait for a condition that should hold at once, on a busy machine.
pub const TIMEOUT: Duration = Duration::from_secs(60);
const PROBE_INTERVAL: Duration = Duration::from_millis(50);

/// Probes again and again until `probe` returns a value.
///
/// # Errors
/// The error of the probe, or that a minute has passed; the message holds the description.
pub async fn wait_until<T>(
    description: &str,
    mut probe: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + TIMEOUT;
    let mut probes = interval(PROBE_INTERVAL);
    loop {
        probes.tick().await;
        if let Some(found) = probe().await? {
            return Ok(found);
        }
        if Instant::now() > deadline {
            bail!("not within {TIMEOUT:?}: {description}");
        }
    }
}
