//! Client puzzles (protocol section 7): work that a login server under load requires before its own. The server
//! stores nothing: a puzzle carries a MAC over the client's address, the time and the client's `Hello`. All replicas
//! derive the same key, which changes every ten minutes.
//!
//! ```
//! use shardkeep_auth::puzzle::{PuzzleIssuer, solve, split};
//! use shardkeep_types::Secret;
//! # let (seed, address, hello, now_ms) = (Secret::new([7; 32]), [0; 16], b"the payload of Hello", 1_700_000_000_000);
//! let maker = PuzzleIssuer::new(seed);
//! let token = maker.make(&address, hello, now_ms, 8);
//! // The client:
//! let answer = solve(&token, 8).unwrap();
//! // The server, possibly another replica, on another connection:
//! let lives = std::time::Duration::from_secs(30);
//! assert_eq!(maker.check(&address, hello, &answer, now_ms + 500, lives), Ok(token));
//! ```

use std::time::Duration;

use crate::crypto::{Key, Mac, mac, sha256};

/// `u64` milliseconds since the Unix epoch ‖ `u8` bits ‖ 16 bytes of MAC.
pub const TOKEN: usize = 25;
/// The token ‖ `u64` solution.
pub const ANSWER: usize = TOKEN + 8;
/// Most zero bits that a server may require and a client accepts.
pub const MAX_BITS: u32 = 24;

/// A puzzle; opaque to the client.
pub type Token = [u8; TOKEN];
pub type Answer = [u8; ANSWER];

/// Lifetime of a key.
const EPOCH_MS: u64 = 600_000;
/// Largest tolerated lead of the issuing replica's clock.
const SKEW_MS: u64 = 5_000;
/// Bytes before a solution at the end of `Hello`: the tag of field 15, and the length.
const FIELD: [u8; 2] = [15 << 3 | 2, ANSWER as u8];

/// Reason for refusing a solution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PuzzleError {
    #[error("the puzzle is too old, or from the future")]
    Stale,
    #[error("the answer does not solve the puzzle")]
    Unsolved,
    #[error("the puzzle was not made here for this address and this Hello")]
    WrongMac,
}

impl PuzzleError {
    /// Metric label.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Stale => "stale",
            Self::Unsolved => "unsolved",
            Self::WrongMac => "foreign",
        }
    }
}

/// Issues and checks puzzles. All replicas have the same seed.
#[derive(Debug, Clone)]
pub struct PuzzleIssuer {
    seed: Key,
}

impl PuzzleIssuer {
    pub fn new(seed: Key) -> Self {
        Self { seed }
    }

    /// `address` is the client's (IPv4 mapped into IPv6), `hello` the payload of `Hello` without a solution, `bits`
    /// at most [`MAX_BITS`].
    pub fn make(&self, address: &[u8; 16], hello: &[u8], now_ms: u64, bits: u32) -> Token {
        let bits = u8::try_from(bits.min(MAX_BITS)).unwrap_or_default();
        let mut token = [0; TOKEN];
        token[..8].copy_from_slice(&now_ms.to_le_bytes());
        token[8] = bits;
        token[9..].copy_from_slice(&self.seal(address, hello, now_ms, bits).as_bytes()[..16]);
        token
    }

    /// Returns the solved token. The caller records it as used.
    ///
    /// # Errors
    /// Checks the cheapest condition first: a solution without work costs one hash.
    pub fn check(
        &self,
        address: &[u8; 16],
        hello: &[u8],
        answer: &Answer,
        now_ms: u64,
        lifetime: Duration,
    ) -> Result<Token, PuzzleError> {
        let token: Token = *answer.first_chunk().unwrap_or(&[0; TOKEN]);
        let (issued_ms, bits) = (u64::from_le_bytes(*token.first_chunk().unwrap_or(&[0; 8])), token[8]);
        let lifetime = u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX);
        if issued_ms > now_ms.saturating_add(SKEW_MS) || now_ms.saturating_sub(issued_ms) > lifetime {
            return Err(PuzzleError::Stale);
        }
        if leading_zero_bits(answer) < u32::from(bits) {
            return Err(PuzzleError::Unsolved);
        }
        let expected = self.seal(address, hello, issued_ms, bits);
        if !expected.first_half_matches(&token[9..]) {
            return Err(PuzzleError::WrongMac);
        }
        Ok(token)
    }

    fn seal(&self, address: &[u8; 16], hello: &[u8], issued_ms: u64, bits: u8) -> Mac {
        let epoch = (issued_ms / EPOCH_MS).to_le_bytes();
        let key = Key::new(*mac(&self.seed, &[b"shardkeep v1 puzzle key", &epoch]).as_bytes());
        mac(&key, &[address, &issued_ms.to_le_bytes(), &[bits], &sha256(&[hello])])
    }
}

/// Solves a puzzle with about `2^bits` hashes. `None`: `bits` exceeds the maximum.
pub fn solve(token: &[u8], bits: u32) -> Option<Answer> {
    if bits > MAX_BITS {
        return None;
    }
    let mut answer = [0; ANSWER];
    answer[..TOKEN].copy_from_slice(<&Token>::try_from(token).ok()?);
    (0u64..).find_map(|number| {
        answer[TOKEN..].copy_from_slice(&number.to_le_bytes());
        (leading_zero_bits(&answer) >= bits).then_some(answer)
    })
}

/// Splits the payload of `Hello` into the part before the solution and the solution. Does not read the rest, so the
/// payload may be invalid.
pub fn split(payload: &[u8]) -> (&[u8], Option<&Answer>) {
    match payload.split_last_chunk::<ANSWER>() {
        Some((front, answer)) if front.ends_with(&FIELD) => {
            (&front[..front.len() - FIELD.len()], Some(answer))
        }
        _ => (payload, None),
    }
}

/// Number of leading zero bits of the hash, which is one block of SHA-256.
fn leading_zero_bits(answer: &Answer) -> u32 {
    let hash = sha256(&[b"shardkeep v1 puzzle", answer]);
    u64::from_be_bytes(*hash.first_chunk().unwrap_or(&[0; 8])).leading_zeros()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIME: Duration = Duration::from_secs(30);
    const NOW: u64 = 1_700_000_000_000;
    const ADDRESS: [u8; 16] = [9; 16];

    fn maker() -> PuzzleIssuer {
        PuzzleIssuer::new(Key::new([1; 32]))
    }

    fn solved(bits: u32) -> Answer {
        solve(&maker().make(&ADDRESS, b"hello", NOW, bits), bits).unwrap()
    }

    #[test]
    fn answer_is_bound_to_address_hello_and_time() {
        let answer = solved(6);
        let check =
            |address: &[u8; 16], hello: &[u8], now| maker().check(address, hello, &answer, now, LIFETIME);
        assert!(check(&ADDRESS, b"hello", NOW).is_ok());
        assert!(check(&ADDRESS, b"hello", NOW + 30_000).is_ok());
        assert!(check(&ADDRESS, b"hello", NOW - 5_000).is_ok(), "a clock that is behind");
        assert_eq!(check(&ADDRESS, b"hello", NOW + 30_001), Err(PuzzleError::Stale));
        assert_eq!(check(&ADDRESS, b"hello", NOW - 5_001), Err(PuzzleError::Stale));
        assert_eq!(check(&[8; 16], b"hello", NOW), Err(PuzzleError::WrongMac));
        assert_eq!(check(&ADDRESS, b"other", NOW), Err(PuzzleError::WrongMac));
        let other = PuzzleIssuer::new(Key::new([2; 32]));
        assert_eq!(other.check(&ADDRESS, b"hello", &answer, NOW, LIFETIME), Err(PuzzleError::WrongMac));
    }

    #[test]
    fn altered_puzzle_is_refused() {
        let answer = solved(6);
        for (at, flip) in [(8, 1), (0, 1), (9, 1), (24, 128)] {
            let mut forged = answer;
            forged[at] ^= flip;
            // Solve it again, so that only the MAC is wrong.
            let forged = solve(&forged[..TOKEN], forged[8].into()).unwrap();
            let end = maker().check(&ADDRESS, b"hello", &forged, NOW + 10, LIFETIME);
            assert_eq!(end, Err(PuzzleError::WrongMac), "byte {at}");
        }
    }

    #[test]
    fn unsolved_answer_is_refused() {
        let token = maker().make(&ADDRESS, b"hello", NOW, 12);
        let answer = solve(&token, 12).unwrap();
        assert!(leading_zero_bits(&answer) >= 12);
        let mut unsolved = answer;
        // Find a number that does not solve it.
        while leading_zero_bits(&unsolved) >= 12 {
            unsolved[TOKEN] ^= 1;
            unsolved[TOKEN + 7] = unsolved[TOKEN + 7].wrapping_add(1);
        }
        assert_eq!(maker().check(&ADDRESS, b"hello", &unsolved, NOW, LIFETIME), Err(PuzzleError::Unsolved));
        assert!(solve(&token, MAX_BITS + 1).is_none());
        assert!(solve(&token[1..], 1).is_none());
    }

    #[test]
    fn split_finds_answer_at_end_of_hello() {
        let answer = solved(1);
        let payload = [b"whatever".as_slice(), &[0x7a, 33], &answer].concat();
        assert_eq!(split(&payload), (b"whatever".as_slice(), Some(&answer)));
        assert_eq!(split(&answer[..]), (&answer[..], None));
        assert_eq!(split(b""), (b"".as_slice(), None));
    }

    proptest::proptest! {
        #[test]
        fn random_answer_is_refused(
            answer in proptest::collection::vec(proptest::prelude::any::<u8>(), ANSWER),
            now: u64,
        ) {
            let answer: &Answer = answer.as_slice().try_into().unwrap();
            proptest::prop_assert!(maker().check(&ADDRESS, b"hello", answer, now, LIFETIME).is_err());
        }
    }
}
