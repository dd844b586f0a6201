//! Names of characters: the profile Nickname (RFC 8266), letters only, and one script (UTS 39, Highly Restrictive). Two
//! names that look alike have the same [`confusable_key`], and a world keeps the keys of its characters unique.

use std::fmt;

use precis_core::profile::PrecisFastInvocation;
use precis_profiles::Nickname;
use unicode_normalization::{UnicodeNormalization, char::is_combining_mark};
use unicode_security::{RestrictionLevel, RestrictionLevelDetection, skeleton};

const MIN_CHARACTERS: usize = 3;
const MAX_CHARACTERS: usize = 16;
/// Bytes of UTF-8. The store and the zone protocol have room for as many.
const MAX_BYTES: usize = 64;

/// A valid name, in the form that players see.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CharacterName(String);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("a name must have {MIN_CHARACTERS} to {MAX_CHARACTERS} letters")]
    Length,
    #[error("a name must consist of letters, without spaces, digits or signs")]
    Character,
    #[error("a name must not mix letters of several scripts, such as Latin and Cyrillic")]
    MixedScripts,
}

impl CharacterName {
    /// # Errors
    /// The name is too short or too long, has a character that is not a letter, or mixes scripts.
    pub fn new(typed: &str) -> Result<Self, NameError> {
        if typed.len() > 4 * MAX_BYTES {
            return Err(NameError::Length);
        }
        if typed.trim().is_empty() {
            return Err(NameError::Length);
        }
        let name = Nickname::enforce(typed).map_err(|_| NameError::Character)?;
        if !name.chars().all(|c| c.is_alphabetic() || is_combining_mark(c))
            || name.starts_with(is_combining_mark)
        {
            return Err(NameError::Character);
        }
        if !(MIN_CHARACTERS..=MAX_CHARACTERS).contains(&name.chars().count()) || name.len() > MAX_BYTES {
            return Err(NameError::Length);
        }
        match (&*name).detect_restriction_level() {
            RestrictionLevel::ASCIIOnly
            | RestrictionLevel::SingleScript
            | RestrictionLevel::HighlyRestrictive => Ok(Self(name.into_owned())),
            _ => Err(NameError::MixedScripts),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CharacterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The form in which two spellings of one name are equal: normalised, and without regard to case (RFC 8266, section 2.3).
/// Use it to look up a name that a player typed.
pub fn fold(typed: &str) -> String {
    typed.trim().nfkc().collect::<String>().to_lowercase().nfkc().collect()
}

/// A form in which names that look alike are equal (UTS 39 skeleton of the folded name). Names ignore case, and `I` looks
/// like `l`; `i` and `l` are therefore equal too. Never show a key to people.
pub fn confusable_key(name: &str) -> String {
    skeleton(&fold(name)).collect::<String>().to_lowercase().replace('i', "l")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_many_scripts_are_valid() {
        for name in
            ["Ann", "Zoë", "Łukasz", "Дмитрий", "Ελένη", "さくら", "山田太郎", "김철수", "שרהלי", "अमित"]
        {
            assert_eq!(
                CharacterName::new(name).map(|name| name.to_string()),
                Ok(name.nfkc().collect()),
                "{name}"
            );
        }
    }

    #[test]
    fn spaces_around_a_name_are_removed() {
        assert_eq!(CharacterName::new("  Ann ").unwrap().as_str(), "Ann");
    }

    #[test]
    fn composed_and_decomposed_names_are_equal() {
        let (composed, decomposed) =
            (CharacterName::new("Zo\u{eb}").unwrap(), CharacterName::new("Zoe\u{308}").unwrap());
        assert_eq!(composed, decomposed);
        assert_eq!(fold("ZO\u{cb}"), fold("zoe\u{308}"));
    }

    #[test]
    fn name_of_wrong_length_is_refused() {
        for wrong in ["", "  ", "Al", "Seventeenletterss", &"山".repeat(17), &"x".repeat(300)] {
            assert_eq!(CharacterName::new(wrong), Err(NameError::Length), "{wrong:?}");
        }
    }

    #[test]
    fn name_with_other_characters_than_letters_is_refused() {
        for wrong in [
            "Ann1",
            "An n",
            "../x",
            "Ann\n",
            "Ann\u{202e}",
            "A\u{200b}nn",
            "\u{308}Ann",
            "Ann♥",
            "\u{2066}Ann\u{2069}",
        ] {
            assert_eq!(CharacterName::new(wrong), Err(NameError::Character), "{wrong:?}");
        }
    }

    #[test]
    fn name_that_mixes_scripts_is_refused() {
        for wrong in ["\u{410}dmin", "Ann\u{430}", "Ρaul", "Анna"] {
            assert_eq!(CharacterName::new(wrong), Err(NameError::MixedScripts), "{wrong:?}");
        }
    }

    #[test]
    fn names_that_look_alike_have_the_same_key() {
        for (one, other) in [
            ("Ilya", "llya"),
            ("ilya", "ILYA"),
            ("corn", "com"),
            ("\u{441}\u{43e}\u{440}\u{430}", "copa"),
            ("Zo\u{eb}", "ZOE\u{308}"),
        ] {
            assert_eq!(confusable_key(one), confusable_key(other), "{one} {other}");
        }
        assert_ne!(confusable_key("Ann"), confusable_key("Ben"));
    }

    proptest::proptest! {
        #[test]
        fn valid_name_stays_the_same_when_parsed_again(typed in "\\PC{0,20}") {
            if let Ok(name) = CharacterName::new(&typed) {
                proptest::prop_assert_eq!(CharacterName::new(name.as_str()), Ok(name.clone()));
                proptest::prop_assert_eq!(fold(name.as_str()), fold(&fold(name.as_str())));
            }
        }
    }
}
