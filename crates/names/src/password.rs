//! Passwords by the profile OpaqueString (RFC 8265, section 4.2): NFC, every space as U+0020, no control characters. The
//! same password then has the same bytes on every keyboard and system.

use precis_core::profile::{PrecisFastInvocation, stabilize};
use precis_profiles::OpaqueString;

/// Bytes of a prepared password.
const MAX_BYTES: usize = 128;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    #[error("a password must have 1 to {MAX_BYTES} bytes")]
    Length,
    #[error("a password must not contain control characters, unassigned or invisible characters")]
    Character,
}

/// The form of a password that is hashed.
///
/// # Errors
/// The password is empty, too long, or contains a character that the profile forbids.
pub fn prepare_password(typed: &str) -> Result<String, PasswordError> {
    if typed.is_empty() || typed.len() > 4 * MAX_BYTES {
        return Err(PasswordError::Length);
    }
    // A first pass may produce a character that the next one forbids (RFC 8264, section 7).
    let prepared =
        stabilize(typed, |text| OpaqueString::enforce(text)).map_err(|_| PasswordError::Character)?;
    if prepared.len() > MAX_BYTES { Err(PasswordError::Length) } else { Ok(prepared.into_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn composed_and_decomposed_passwords_are_equal() {
        let (composed, decomposed) = ("p\u{e9}ch\u{e9}", "pe\u{301}che\u{301}");
        assert_ne!(composed, decomposed);
        assert_eq!(prepare_password(composed), prepare_password(decomposed));
        // RFC 8265: other spaces become U+0020, and case and spaces are kept.
        assert_eq!(prepare_password("\u{3000}Foo  Bar ").unwrap(), " Foo  Bar ");
    }

    #[test]
    fn password_with_forbidden_character_is_refused() {
        for wrong in ["my cat is a \u{9}by", "a\0b", "a\u{85}b", "\u{387}"] {
            assert_eq!(prepare_password(wrong), Err(PasswordError::Character), "{wrong:?}");
        }
    }

    #[test]
    fn password_length_is_bounded() {
        assert_eq!(prepare_password(""), Err(PasswordError::Length));
        assert_eq!(prepare_password(&"p".repeat(129)), Err(PasswordError::Length));
        assert_eq!(prepare_password(&"p".repeat(128)).unwrap().len(), 128);
        // 128 bytes after normalisation, 192 before.
        assert_eq!(prepare_password(&"e\u{301}".repeat(64)).unwrap().len(), 128);
    }

    proptest::proptest! {
        #[test]
        fn preparing_a_password_is_idempotent(typed in "\\PC{0,40}") {
            if let Ok(prepared) = prepare_password(&typed) {
                proptest::prop_assert_eq!(prepare_password(&prepared), Ok(prepared));
            }
        }
    }
}
