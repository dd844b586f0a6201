//! An authenticator app: what a player of a test has of a second factor.

use std::time::{SystemTime, UNIX_EPOCH};

use shardkeep_auth::totp;

/// Codes are made for a clock: of this one two are used, the present one and the next, which the server takes for the
/// half minute before and after, however slow the machine is.
pub struct Authenticator {
    secret: Vec<u8>,
    step: u64,
}

impl Authenticator {
    pub fn new(secret: Vec<u8>) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_ms = u64::try_from(since.as_millis()).unwrap_or_default();
        Self { secret, step: totp::step_at(now_ms) }
    }

    /// Of the address in a QR code; `None`: there is no secret in it.
    pub fn scan(uri: &str) -> Option<Self> {
        let (_, rest) = uri.trim().split_once("?secret=")?;
        let letters = rest.split('&').next()?;
        let values = letters.bytes().map(|letter| match letter {
            b'A'..=b'Z' => Some(u64::from(letter - b'A')),
            b'2'..=b'7' => Some(u64::from(letter - b'2' + 26)),
            _ => None,
        });
        let values: Vec<u64> = values.collect::<Option<_>>()?;
        // RFC 4648: eight letters are five bytes, and a secret is a multiple of that.
        let groups =
            values.chunks_exact(8).map(|group| group.iter().fold(0, |bits, value| bits << 5 | value));
        Some(Self::new(groups.flat_map(|bits: u64| bits.to_be_bytes()[3..].to_vec()).collect()))
    }

    pub fn first(&self) -> String {
        totp::code(&self.secret, self.step)
    }

    pub fn second(&self) -> String {
        totp::code(&self.secret, self.step + 1)
    }

    /// Both, as a player types them.
    pub fn two(&self) -> String {
        format!("{} {}", self.first(), self.second())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authenticator_reads_otpauth_uri() {
        let secret = b"12345678901234567890";
        let scanned = Authenticator::scan(&totp::uri("Game", "alice", secret)).unwrap();
        assert_eq!(scanned.secret, secret);
        assert!(Authenticator::scan("otpauth://totp/x").is_none());
    }
}
