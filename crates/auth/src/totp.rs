//! The second factor: time-based one-time passwords (RFC 6238) as authenticator apps implement them: HMAC-SHA-1, six
//! digits, steps of 30 seconds. The time is an argument. The caller stores which steps were used.

use std::{fmt::Write as _, ops::RangeInclusive};

use aws_lc_rs::{constant_time::verify_slices_are_equal, hmac};

/// RFC 4226, section 4: at least 128 bits, 160 recommended.
pub const SECRET_BYTES: usize = 20;
const STEP_MS: u64 = 30_000;
const DIGITS: usize = 6;

/// The time step of a time in milliseconds since the Unix epoch.
pub fn step_at(unix_ms: u64) -> u64 {
    unix_ms / STEP_MS
}

/// The code of a time step.
pub fn code(secret: &[u8], step: u64) -> String {
    // HMAC does not require that SHA-1 is collision-resistant, and apps support nothing else.
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret);
    let tag = hmac::sign(&key, &step.to_be_bytes());
    let tag = tag.as_ref();
    // RFC 4226, section 5.3: dynamic truncation.
    let at = usize::from(tag[tag.len() - 1] & 0xf);
    let number = u32::from_be_bytes([tag[at] & 0x7f, tag[at + 1], tag[at + 2], tag[at + 3]]);
    format!("{:06}", number % 1_000_000)
}

/// The step of the typed code: the current step, the previous or the next one, to allow for clock differences and
/// slow typing. Spaces are ignored.
pub fn matching_step(secret: &[u8], typed: &str, unix_ms: u64) -> Option<u64> {
    find(&without_spaces(typed), unix_ms, |step| code(secret, step))
}

/// Like [`matching_step`] for two concatenated consecutive codes; the second belongs to one of those steps. They are
/// a million times harder to guess than one code, so wrong pairs need no limit.
pub fn steps_of_code_pair(secret: &[u8], typed: &str, unix_ms: u64) -> Option<RangeInclusive<u64>> {
    let two = |last: u64| code(secret, last.saturating_sub(1)) + &code(secret, last);
    let last = find(&without_spaces(typed), unix_ms, two)?;
    Some(last.checked_sub(1)?..=last)
}

/// Whether the typed text has the length of two codes.
pub fn is_code_pair(typed: &str) -> bool {
    without_spaces(typed).len() == 2 * DIGITS
}

fn find(typed: &str, unix_ms: u64, expected_code: impl Fn(u64) -> String) -> Option<u64> {
    let now = step_at(unix_ms);
    let mut found = None;
    for step in [now.saturating_sub(1), now, now + 1] {
        if verify_slices_are_equal(expected_code(step).as_bytes(), typed.as_bytes()).is_ok() {
            found = Some(step);
        }
    }
    found
}

fn without_spaces(typed: &str) -> String {
    typed.chars().filter(|c| !c.is_ascii_whitespace()).collect()
}

/// The URI for a QR code that authenticator apps read. `issuer` and `account` become its label.
pub fn uri(issuer: &str, account: &str, secret: &[u8]) -> String {
    let (issuer, account) = (percent(issuer), percent(account));
    format!(
        "otpauth://totp/{issuer}:{account}?secret={}&issuer={issuer}&algorithm=SHA1&digits=6&period=30",
        base32(secret)
    )
}

fn percent(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String does not fail.
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

/// RFC 4648 without padding, as apps require.
fn base32(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let mut text = String::with_capacity(bytes.len().div_ceil(5) * 8);
    let (mut bits, mut bit_count) = (0u32, 0);
    for byte in bytes {
        bits = bits << 8 | u32::from(*byte);
        bit_count += 8;
        while bit_count >= 5 {
            bit_count -= 5;
            text.push(char::from(LETTERS[(bits >> bit_count & 31) as usize]));
        }
    }
    if bit_count > 0 {
        text.push(char::from(LETTERS[(bits << (5 - bit_count) & 31) as usize]));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &[u8] = b"12345678901234567890";

    /// RFC 6238, appendix B, SHA-1: the last six of its eight digits.
    #[test]
    fn codes_match_rfc_6238() {
        let rows = [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_111_111_111, "050471"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
            (20_000_000_000, "353130"),
        ];
        for (seconds, expected) in rows {
            assert_eq!(code(SECRET, step_at(seconds * 1_000)), expected, "at {seconds} s");
        }
    }

    #[test]
    fn code_is_valid_one_step_before_and_after() {
        let now = 1_111_111_111_000;
        assert_eq!(matching_step(SECRET, "050 471", now), Some(step_at(now)));
        assert_eq!(matching_step(SECRET, "050471", now + 30_000), Some(step_at(now)));
        assert_eq!(matching_step(SECRET, "050471", now - 30_000), Some(step_at(now)));
        assert_eq!(matching_step(SECRET, "050471", now + 60_000), None);
        for wrong in ["", "050472", "50471", "0504711", "05047a", "０５０４７１"] {
            assert_eq!(matching_step(SECRET, wrong, now), None, "{wrong:?}");
        }
    }

    #[test]
    fn code_pair_matches_consecutive_steps() {
        let now = 1_111_111_111_000;
        let at = step_at(now);
        let [before, this, next] = [at - 1, at, at + 1].map(|step| code(SECRET, step));
        assert_eq!((before.as_str(), this.as_str()), ("081804", "050471"));
        assert_eq!(steps_of_code_pair(SECRET, "081804 050471", now), Some(at - 1..=at));
        assert_eq!(steps_of_code_pair(SECRET, &format!("{this}{next}"), now), Some(at..=at + 1));
        assert_eq!(steps_of_code_pair(SECRET, "081804050471", now + 30_000), Some(at - 1..=at));
        assert_eq!(steps_of_code_pair(SECRET, "081804050471", now + 60_000), None);
        for wrong in ["", "050471", "050471081804", "050471050471", "081804050472", "08180405047１"] {
            assert_eq!(steps_of_code_pair(SECRET, wrong, now), None, "{wrong:?}");
        }
        // Step 0 has no previous step.
        assert_eq!(steps_of_code_pair(SECRET, &code(SECRET, 0).repeat(2), 0), None);
        assert!(is_code_pair("081 804 050 471") && !is_code_pair("081804"));
    }

    /// RFC 4648, section 10, and a secret in the form of apps.
    #[test]
    fn otpauth_uri_is_well_formed() {
        for (bytes, text) in [("f", "MY"), ("fo", "MZXQ"), ("foo", "MZXW6"), ("fooba", "MZXW6YTB")] {
            assert_eq!(base32(bytes.as_bytes()), text);
        }
        assert_eq!(
            uri("My Game", "alice", SECRET),
            "otpauth://totp/My%20Game:alice?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=My%20Game&algorithm=SHA1\
             &digits=6&period=30"
        );
    }
}
