//! Account names. A name is normalised once, before anything is hashed: `" Alice "` and `alice` are the same account.

use std::{fmt, str::FromStr};

/// A normalised account name: 3 to 32 bytes of `a`–`z`, `0`–`9`, `.`, `_`, `-`, beginning with a letter or digit.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountName(String);

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("an account name must have 3 to 32 characters of a-z 0-9 . _ - and begin with a letter or digit")]
pub struct NameError;

impl AccountName {
    pub const MIN: usize = 3;
    pub const MAX: usize = 32;

    /// # Errors
    /// Fails if the normalised text is not a valid name.
    pub fn normalise(typed: &str) -> Result<Self, NameError> {
        let name = typed.trim_matches(' ').to_ascii_lowercase();
        let bytes = name.as_bytes();
        let letter = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let fits = (Self::MIN..=Self::MAX).contains(&bytes.len())
            && bytes.first().is_some_and(letter)
            && bytes.iter().all(|byte| letter(byte) || b"._-".contains(byte));
        fits.then_some(Self(name)).ok_or(NameError)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AccountName {
    type Err = NameError;

    fn from_str(typed: &str) -> Result<Self, NameError> {
        Self::normalise(typed)
    }
}

impl fmt::Display for AccountName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_normalised() {
        for typed in ["alice", "  Alice ", "ALICE"] {
            assert_eq!(AccountName::normalise(typed).unwrap().as_str(), "alice");
        }
        assert_eq!(AccountName::normalise("7.of_9-x").unwrap().as_str(), "7.of_9-x");
    }

    #[test]
    fn invalid_account_name_is_refused() {
        let long = "a".repeat(33);
        for typed in [
            "", "al", " a b c ", ".dot", "-dash", "ünal", "Ａlice", "a\tbc", "\talice", "a:b", "abc\0", &long,
        ] {
            assert_eq!(AccountName::normalise(typed), Err(NameError), "{typed:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn normalise_is_idempotent(typed in "\\PC{0,40}") {
            if let Ok(name) = AccountName::normalise(&typed) {
                proptest::prop_assert_eq!(AccountName::normalise(name.as_str()), Ok(name));
            }
        }
    }
}
