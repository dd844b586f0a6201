//! How the stores of replicas are told apart: each has a mark, made with it and copied with it.

use std::{fmt, str::FromStr};

/// One store, as the instance that owns it tells the others: `accounts/shared/5f0c…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreIdentity {
    /// What it holds: `accounts`, `game`.
    pub schema: String,
    /// Whether several processes may have it open (PostgreSQL) or one alone (a SQLite file).
    pub shared: bool,
    /// Drawn when the store was made. A copy has the same.
    pub id: String,
}

impl StoreIdentity {
    /// Whether one replica may serve from this store while another serves from that one. Of files that one process
    /// has alone, two are two stores, also where one is a copy of the other.
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

/// The text is not a mark of a store.
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
