//! Identities of stores, by which replicas detect that they use different stores. An identity is created with the
//! store and copied with it.

use std::{fmt, str::FromStr};

/// The identity of a store, as the instance that uses it announces it: `accounts/shared/5f0c…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreIdentity {
    /// Content of the store: `accounts` or `game`.
    pub schema: String,
    /// Whether several processes can open the store (PostgreSQL) or only one (an SQLite file).
    pub shared: bool,
    /// Random, made with the store. A copy of the store has the same id.
    pub id: String,
}

impl StoreIdentity {
    /// Whether two replicas may serve from `self` and `other` at the same time. Two SQLite files never are one
    /// store, even if one is a copy of the other.
    pub fn is_compatible_with(&self, other: &Self) -> bool {
        self.schema != other.schema || (self.shared && other.shared && self.id == other.id)
    }
}

impl fmt::Display for StoreIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { schema, shared, id } = self;
        write!(f, "{schema}/{}/{id}", if *shared { "shared" } else { "alone" })
    }
}

/// The text is not a store identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the mark of a store")]
pub struct InvalidStoreIdentity(String);

impl FromStr for StoreIdentity {
    type Err = InvalidStoreIdentity;

    fn from_str(text: &str) -> Result<Self, InvalidStoreIdentity> {
        let wrong = || InvalidStoreIdentity(text.to_owned());
        let (schema, rest) = text.split_once('/').ok_or_else(wrong)?;
        let shared = match rest.split_once('/') {
            Some(("shared", _)) => true,
            Some(("alone", _)) => false,
            _ => return Err(wrong()),
        };
        let id = rest.split_once('/').map(|(_, id)| id.to_owned()).ok_or_else(wrong)?;
        Ok(Self { schema: schema.to_owned(), shared, id })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(text: &str) -> StoreIdentity {
        text.parse().unwrap()
    }

    #[test]
    fn store_identity_text_round_trips() {
        for text in ["accounts/shared/5f0c", "game/alone/77"] {
            assert_eq!(identity(text).to_string(), text);
        }
        for text in ["", "accounts", "accounts/5f0c", "accounts/lonely/5f0c"] {
            assert!(text.parse::<StoreIdentity>().is_err(), "{text}");
        }
    }

    #[test]
    fn only_the_same_shared_store_is_compatible() {
        let own = identity("accounts/shared/1");
        assert!(own.is_compatible_with(&own));
        assert!(own.is_compatible_with(&identity("central/alone/2")), "another store altogether");
        assert!(!own.is_compatible_with(&identity("accounts/shared/2")));
        assert!(!own.is_compatible_with(&identity("accounts/alone/1")), "moved to PostgreSQL, with the mark");
        let file = identity("accounts/alone/1");
        assert!(!file.is_compatible_with(&file), "a copy of the file");
    }
}
