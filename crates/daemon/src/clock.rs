//! The machine's clock.

use std::time::SystemTime;

/// Milliseconds since the Unix epoch. It may go back: what must not is measured by [`std::time::Instant`].
pub fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
