//! How the stores of replicas are told apart: each has a mark, made with it and copied with it.

use std::{fmt, str::FromStr};

/// One store, as the instance that owns it tells the others: `accounts/shared/5f0c…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreMark {
    /// What it holds: `accounts`, `game`.
    pub schema: String,
    /// Whether several processes may have it open (PostgreSQL) or one alone (a SQLite file).
    pub shared: bool,
    /// Drawn when the store was made. A copy has the same.
    pub id: String,
}

impl StoreMark {
    /// Whether one replica may serve from this store while another serves from that one. Of files that one process
    /// has alone, two are two stores, also where one is a copy of the other.
    pub fn goes_with(&self, other: &Self) -> bool {
        self.schema != other.schema || (self.shared && other.shared && self.id == other.id)
    }
}

impl fmt::Display for StoreMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { schema, shared, id } = self;
        write!(f, "{schema}/{}/{id}", if *shared { "shared" } else { "alone" })
    }
}

/// The text is not a mark of a store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the mark of a store")]
pub struct NotAStoreMark(String);

impl FromStr for StoreMark {
    type Err = NotAStoreMark;

    fn from_str(text: &str) -> Result<Self, NotAStoreMark> {
        let wrong = || NotAStoreMark(text.to_owned());
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

    fn mark(text: &str) -> StoreMark {
        text.parse().unwrap()
    }

    #[test]
    fn a_mark_goes_through_text() {
        for text in ["accounts/shared/5f0c", "game/alone/77"] {
            assert_eq!(mark(text).to_string(), text);
        }
        for text in ["", "accounts", "accounts/5f0c", "accounts/lonely/5f0c"] {
            assert!(text.parse::<StoreMark>().is_err(), "{text}");
        }
    }

    #[test]
    fn replicas_share_one_store_or_none() {
        let ours = mark("accounts/shared/1");
        assert!(ours.goes_with(&ours));
        assert!(ours.goes_with(&mark("central/alone/2")), "another store altogether");
        assert!(!ours.goes_with(&mark("accounts/shared/2")));
        assert!(!ours.goes_with(&mark("accounts/alone/1")), "moved to PostgreSQL, with the mark");
        let file = mark("accounts/alone/1");
        assert!(!file.goes_with(&file), "a copy of the file");
    }
}
