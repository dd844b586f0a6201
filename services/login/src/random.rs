//! Random bytes and the clock, which `auth` takes as arguments.

use shardkeep_auth::Key;
pub(crate) use shardkeep_daemon::unix_millis;
use shardkeep_daemon::{NoRandomness, random_bytes};

use crate::error::LoginError;

pub(crate) fn bytes<const N: usize>() -> Result<[u8; N], LoginError> {
    random_bytes().map_err(|NoRandomness| LoginError::Internal("the operating system gives no random bytes"))
}

pub(crate) fn key() -> Result<Key, LoginError> {
    Ok(Key::new(bytes()?))
}
