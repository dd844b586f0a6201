//! Datagrams: sealed messages that the network may lose or reorder (`docs/protocol.md`, section 18). They have a
//! separate key, carry an explicit sequence number, and each can be opened once.
//!
//! ```text
//! u64 sequence | ciphertext | 16-byte tag
//! ```
//!
//! The sequence number selects the key: each key serves [`DATAGRAMS_PER_KEY`] numbers. A sender that wants the next
//! key continues at the next multiple.

use bytes::{Bytes, BytesMut};
use shardkeep_types::Secret;

use crate::seal::{AwsLc, KEY, NONCE, Provider, SealError, Suite, TAG};

/// Bytes of the sequence in front of a datagram.
pub const SEQUENCE: usize = 8;
/// Bytes that sealing adds to the messages of a datagram.
pub const OVERHEAD: usize = SEQUENCE + TAG;
/// Sequence numbers per key.
pub const DATAGRAMS_PER_KEY: u64 = 1 << 20;
/// Number of keys that a receiver may skip at once, when all datagrams of the keys between were lost.
const MAX_KEYS_AHEAD: u64 = 4;
/// Number of sequence numbers below the highest one that are still accepted (as in RFC 4303, section 3.4.3).
pub const WINDOW: u64 = 64;
const KEY_UPDATE: &[u8] = b"shardkeep v1 key update";

struct KeyState<P: Provider> {
    suite: Suite,
    /// Number of the current key: sequence / [`DATAGRAMS_PER_KEY`].
    number: u64,
    secret: Secret<[u8; KEY]>,
    key: P::Key,
}

impl<P: Provider> KeyState<P> {
    fn new(suite: Suite, number: u64, secret: Secret<[u8; KEY]>) -> Result<Self, SealError> {
        let key = P::key(suite, secret.expose())?;
        Ok(Self { suite, number, secret, key })
    }

    fn next(&self) -> Result<Self, SealError> {
        Self::new(self.suite, self.number + 1, P::expand(self.secret.expose(), KEY_UPDATE)?)
    }
}

fn nonce(sequence: u64) -> [u8; NONCE] {
    let mut nonce = [0; NONCE];
    nonce[4..].copy_from_slice(&sequence.to_le_bytes());
    nonce
}

/// Associated data: the length of ciphertext and tag, as in a record.
fn associated_data(length: usize) -> Result<[u8; 2], SealError> {
    u16::try_from(length).map(u16::to_le_bytes).map_err(|_| SealError::Forged)
}

/// Seals outgoing datagrams.
pub struct DatagramSealer<P: Provider = AwsLc> {
    keyed: KeyState<P>,
    sequence: u64,
}

impl<P: Provider> DatagramSealer<P> {
    /// # Errors
    /// Errors of the provider.
    pub fn new(suite: Suite, key: Secret<[u8; KEY]>) -> Result<Self, SealError> {
        Ok(Self { keyed: KeyState::new(suite, 0, key)?, sequence: 0 })
    }

    /// Seals whole messages, at most 65,519 bytes, into one datagram.
    ///
    /// # Errors
    /// Fails without messages, and when the sequence numbers are used up.
    pub fn seal(&mut self, messages: &[u8]) -> Result<Bytes, SealError> {
        if messages.is_empty() {
            return Err(SealError::Empty);
        }
        if self.sequence / DATAGRAMS_PER_KEY != self.keyed.number {
            self.keyed = self.keyed.next()?;
        }
        let sequence = self.sequence;
        // Use each sequence number once, even if sealing fails.
        self.sequence = sequence.checked_add(1).ok_or(SealError::Exhausted)?;
        let mut datagram = BytesMut::with_capacity(OVERHEAD + messages.len());
        datagram.extend_from_slice(&sequence.to_le_bytes());
        datagram.extend_from_slice(messages);
        let aad = associated_data(messages.len() + TAG)?;
        let tag = P::seal(&self.keyed.key, nonce(sequence), aad, &mut datagram[SEQUENCE..])?;
        datagram.extend_from_slice(&tag);
        Ok(datagram.freeze())
    }

    /// Seals the next datagram with the next key, if the current key has been used.
    pub fn update(&mut self) {
        if !self.sequence.is_multiple_of(DATAGRAMS_PER_KEY) {
            self.sequence = (self.sequence / DATAGRAMS_PER_KEY + 1).saturating_mul(DATAGRAMS_PER_KEY);
        }
    }
}

/// Opens the peer's datagrams, each at most once.
pub struct DatagramOpener<P: Provider = AwsLc> {
    keyed: KeyState<P>,
    /// Highest opened sequence number + 1.
    next: u64,
    /// Bit `n` is set if the sequence number `next − 1 − n` was opened.
    seen: u64,
}

/// The content of a datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenedDatagram {
    pub sequence: u64,
    /// Whole messages.
    pub messages: Bytes,
}

impl<P: Provider> DatagramOpener<P> {
    /// # Errors
    /// Errors of the provider.
    pub fn new(suite: Suite, key: Secret<[u8; KEY]>) -> Result<Self, SealError> {
        Ok(Self { keyed: KeyState::new(suite, 0, key)?, next: 0, seen: 0 })
    }

    /// Opens a datagram. `None` means that it was opened before, or is older than the window.
    ///
    /// # Errors
    /// Fails if the peer did not seal these bytes. The state is then unchanged.
    pub fn open(&mut self, datagram: &[u8]) -> Result<Option<OpenedDatagram>, SealError> {
        let (sequence, body) = datagram.split_first_chunk::<SEQUENCE>().ok_or(SealError::Forged)?;
        let sequence = u64::from_le_bytes(*sequence);
        if body.len() < TAG {
            return Err(SealError::Forged);
        }
        let number = sequence / DATAGRAMS_PER_KEY;
        if number < self.keyed.number || !self.is_new(sequence) {
            return Ok(None);
        }
        if number > self.keyed.number + MAX_KEYS_AHEAD {
            return Err(SealError::Forged);
        }
        let mut newer = None;
        while newer.as_ref().unwrap_or(&self.keyed).number < number {
            newer = Some(newer.as_ref().unwrap_or(&self.keyed).next()?);
        }
        let mut messages = BytesMut::from(body);
        let aad = associated_data(body.len())?;
        P::open(&newer.as_ref().unwrap_or(&self.keyed).key, nonce(sequence), aad, &mut messages)?;
        messages.truncate(body.len() - TAG);
        if messages.is_empty() {
            return Err(SealError::Empty);
        }
        if let Some(newer) = newer {
            self.keyed = newer;
        }
        self.mark(sequence);
        Ok(Some(OpenedDatagram { sequence, messages: messages.freeze() }))
    }

    fn is_new(&self, sequence: u64) -> bool {
        if sequence >= self.next {
            // A sealer never uses the highest possible sequence number.
            return sequence != u64::MAX;
        }
        let behind = self.next - 1 - sequence;
        behind < WINDOW && self.seen >> behind & 1 == 0
    }

    fn mark(&mut self, sequence: u64) {
        if sequence >= self.next {
            let ahead = sequence - self.next + 1;
            self.seen = if ahead < WINDOW { self.seen << ahead } else { 0 } | 1;
            self.next = sequence + 1;
        } else {
            self.seen |= 1 << (self.next - 1 - sequence);
        }
    }
}

impl<P: Provider> std::fmt::Debug for DatagramSealer<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DatagramSealer").field("sequence", &self.sequence).finish_non_exhaustive()
    }
}

impl<P: Provider> std::fmt::Debug for DatagramOpener<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DatagramOpener").field("next", &self.next).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pair() -> (DatagramSealer, DatagramOpener) {
        let key = || Secret::new([7; KEY]);
        let suite = Suite::ChaCha20Poly1305;
        (DatagramSealer::new(suite, key()).unwrap(), DatagramOpener::new(suite, key()).unwrap())
    }

    fn opened(opener: &mut DatagramOpener, datagram: &[u8]) -> Option<u64> {
        opener.open(datagram).unwrap().map(|opened| opened.sequence)
    }

    #[test]
    fn datagram_key_follows_sequence() {
        let (mut sealer, mut opener) = pair();
        let first = sealer.seal(b"first").unwrap();
        sealer.update();
        sealer.update();
        let second = sealer.seal(b"second").unwrap();
        assert_eq!(second[..SEQUENCE], DATAGRAMS_PER_KEY.to_le_bytes());
        assert_eq!(opened(&mut opener, &second), Some(DATAGRAMS_PER_KEY));
        assert_eq!(opened(&mut opener, &first), None, "its key is gone");
        for _ in 0..MAX_KEYS_AHEAD + 1 {
            sealer.seal(b"lost").unwrap();
            sealer.update();
        }
        assert_eq!(opener.open(&sealer.seal(b"too far").unwrap()), Err(SealError::Forged));
    }

    #[test]
    fn forged_datagram_leaves_opener_unchanged() {
        let (mut sealer, mut opener) = pair();
        let good = sealer.seal(b"good").unwrap();
        let mut forged = good.to_vec();
        forged[..SEQUENCE].copy_from_slice(&(2 * DATAGRAMS_PER_KEY).to_le_bytes());
        assert_eq!(opener.open(&forged), Err(SealError::Forged));
        assert_eq!(opener.open(&good[..OVERHEAD - 1]), Err(SealError::Forged));
        assert_eq!(opener.open(b""), Err(SealError::Forged));
        assert_eq!(opener.open(&[0xff; 40]), Ok(None), "the highest sequence is never sent");
        assert_eq!(opened(&mut opener, &good), Some(0));
        assert_eq!(sealer.seal(b""), Err(SealError::Empty));
    }

    proptest! {
        /// Each datagram opens at most once, in any order of arrival, and those within the window do open.
        #[test]
        fn datagram_opens_at_most_once_within_window(order in proptest::collection::vec(0usize..150, 1..300)) {
            let (mut sealer, mut opener) = pair();
            let sent: Vec<Bytes> = (0..150).map(|_| sealer.seal(b"x").unwrap()).collect();
            let (mut highest, mut seen) = (None, std::collections::HashSet::new());
            for at in order {
                let in_time = highest.is_none_or(|highest| at + WINDOW as usize > highest);
                let expected = (in_time && seen.insert(at)).then_some(at as u64);
                prop_assert_eq!(opened(&mut opener, &sent[at]), expected);
                highest = highest.max(Some(at));
            }
        }

        #[test]
        fn random_bytes_do_not_open_as_datagram(noise in proptest::collection::vec(any::<u8>(), 0..200)) {
            let (_, mut opener) = pair();
            prop_assert!(matches!(opener.open(&noise), Ok(None) | Err(_)));
        }
    }
}
