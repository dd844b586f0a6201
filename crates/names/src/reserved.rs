//! Names that players may not use, such as those of operators. The comparison treats names that look alike as equal.

use crate::character::confusable_key;

/// Marks an entry that also reserves every longer name.
const PREFIX: char = '*';

/// The entry of `reserved` that reserves this name. An entry reserves the names with the same [`confusable_key`]; an entry
/// that ends in `*` also reserves the names that begin with it.
pub fn reserved_by<'a>(reserved: &'a [String], name: &str) -> Option<&'a str> {
    let key = confusable_key(name);
    let reserves = |entry: &&'a str| match entry.strip_suffix(PREFIX) {
        Some(prefix) => key.starts_with(&confusable_key(prefix)),
        None => key == confusable_key(entry),
    };
    reserved.iter().map(String::as_str).find(reserves)
}

/// Whether an entry reserves a name at all. One without a letter would reserve every name or none.
pub fn is_valid_entry(entry: &str) -> bool {
    let name = entry.strip_suffix(PREFIX).unwrap_or(entry);
    !name.contains(PREFIX) && name.chars().any(char::is_alphabetic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_names_include_names_that_look_alike() {
        let reserved = ["admin*".to_owned(), "system".to_owned()];
        for name in ["Admin", "ADMIN", "Adrnin", "Admln", "\u{430}dmin", "Administrator"] {
            assert_eq!(reserved_by(&reserved, name), Some("admin*"), "{name}");
        }
        assert_eq!(reserved_by(&reserved, "System"), Some("system"));
        for name in ["Adam", "Systemic", "Badmin"] {
            assert_eq!(reserved_by(&reserved, name), None, "{name}");
        }
    }

    #[test]
    fn entry_without_a_letter_is_invalid() {
        assert!(is_valid_entry("admin*") && is_valid_entry("gm"));
        assert!(["", "*", "a*b*", "1"].iter().all(|entry| !is_valid_entry(entry)));
    }
}
