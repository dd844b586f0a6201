//! Random tokens that authenticate browsers and programs. The store keeps only their SHA-256. A token has 256 random
//! bits and cannot be guessed, so a fast hash is enough.

use aws_lc_rs::{
    constant_time::verify_slices_are_equal,
    digest::{SHA256, digest},
    rand,
};
use shardkeep_store::operators::TokenHash;
use shardkeep_types::Secret;

/// 32 random bytes in hexadecimal.
#[derive(Debug, Clone)]
pub(crate) struct Token(Secret<String>);

#[derive(Debug, thiserror::Error)]
#[error("the operating system provides no random numbers")]
pub(crate) struct NoRandomness;

impl Token {
    pub(crate) fn new() -> Result<Self, NoRandomness> {
        let mut bytes = [0; 32];
        rand::fill(&mut bytes).map_err(|_| NoRandomness)?;
        Ok(Self(Secret::new(hex::encode(bytes))))
    }

    /// Parses a token that a client sent. Returns `None` if the text has another form.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let token = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        token.then(|| Self(Secret::new(text.to_ascii_lowercase())))
    }

    pub(crate) fn expose(&self) -> &str {
        self.0.expose()
    }

    pub(crate) fn hash(&self) -> TokenHash {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, self.expose().as_bytes()).as_ref());
        hash
    }
}

/// Compares in a time that does not depend on where the texts differ.
pub(crate) fn constant_time_eq(one: &str, other: &str) -> bool {
    verify_slices_are_equal(one.as_bytes(), other.as_bytes()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_unique_and_round_trip_through_text() {
        let (one, other) = (Token::new().unwrap(), Token::new().unwrap());
        assert!(!constant_time_eq(one.expose(), other.expose()));
        assert_eq!(Token::parse(one.expose()).unwrap().hash(), one.hash());
        assert!(Token::parse("short").is_none());
        assert!(Token::parse(&"g".repeat(64)).is_none());
        assert!(!format!("{one:?}").contains(one.expose()));
    }
}
