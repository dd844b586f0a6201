//! Random numbers of daemons and tools: the generator of aws-lc, which the TLS connections use too.

use aws_lc_rs::rand;

/// The operating system gave no random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gives no random bytes")]
pub struct NoRandomness;

/// Fit for keys and tokens.
///
/// # Errors
/// The operating system gives no random bytes.
pub fn random_bytes<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(bytes)
}

/// For jitter and names. Without random bytes it is 0.
pub fn random_u64() -> u64 {
    random_bytes().map_or(0, u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_bytes_differ() {
        assert_ne!(random_bytes::<16>(), random_bytes::<16>());
        assert_ne!(random_u64(), random_u64());
    }
}
