//! Random bytes and the clock, which `auth` takes as arguments.

use shardkeep_auth::Key;
pub(crate) use shardkeep_daemon::unix_millis;

use crate::error::LoginError;

pub(crate) fn bytes<const N: usize>() -> Result<[u8; N], LoginError> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| LoginError::Internal("the system gave no random bytes"))?;
    Ok(bytes)
}

pub(crate) fn key() -> Result<Key, LoginError> {
    Ok(Key::new(bytes()?))
}
