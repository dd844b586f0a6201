//! Randomness from the system, for nonces, for weights and for jitter.

use std::time::Duration;

use aws_lc_rs::rand;
use shardkeep_types::Secret;

use crate::ClientError;

pub(crate) fn bytes<const N: usize>() -> Result<[u8; N], ClientError> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| ClientError::Random)?;
    Ok(bytes)
}

pub(crate) fn secret<const N: usize>() -> Result<Secret<[u8; N]>, ClientError> {
    bytes().map(Secret::new)
}

/// A number below `limit` (at least 1), for choices that need not be unpredictable.
pub(crate) fn below(limit: u64) -> u64 {
    bytes().map_or(0, u64::from_le_bytes) % limit.max(1)
}

/// Between half of `pause` and all of it, so that clients that were cut off together do not return together.
pub(crate) fn jitter(pause: Duration) -> Duration {
    let nanos = u64::try_from(pause.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(nanos / 2 + below(nanos / 2 + 1))
}
