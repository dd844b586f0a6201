//! Randomness and the clock, the two things that `auth` leaves to its callers.

use shardkeep_auth::Key;
pub(crate) use shardkeep_daemon::unix_millis;

use crate::LoginError;

pub(crate) fn bytes<const N: usize>() -> Result<[u8; N], LoginError> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| LoginError::Internal("no randomness"))?;
    Ok(bytes)
}

pub(crate) fn key() -> Result<Key, LoginError> {
    Ok(Key::new(bytes()?))
}
