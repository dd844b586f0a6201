//! Randomness and the clock, the two things that `auth` leaves to its callers.

use std::time::SystemTime;

use shardkeep_auth::Key;

use crate::LoginError;

pub(crate) fn bytes<const N: usize>() -> Result<[u8; N], LoginError> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| LoginError::Internal("no randomness"))?;
    Ok(bytes)
}

pub(crate) fn key() -> Result<Key, LoginError> {
    Ok(Key::new(bytes()?))
}

/// Milliseconds since the Unix epoch.
pub(crate) fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
