//! Sealing: AEAD over a record, in place, with a key and a counter per direction. The cipher provider is a trait, so
//! that a browser or an embedded board can supply its own. The default is `aws-lc-rs`.

use aws_lc_rs::{aead, hkdf};
use bytes::BytesMut;
use shardkeep_types::Secret;

use crate::payload;

/// Bytes that sealing adds to a record.
pub const TAG: usize = 16;
pub const KEY: usize = 32;
pub const NONCE: usize = 12;
/// Number of records after which a sender must change its key (`docs/protocol.md`, section 12).
pub const MAX_RECORDS: u64 = 1 << 20;
const KEY_UPDATE: &[u8] = b"shardkeep v1 key update";

/// A cipher suite with its number on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Suite {
    Aes256Gcm = 1,
    ChaCha20Poly1305 = 2,
}

impl Suite {
    /// All suites, in order of preference.
    pub const ALL: [Self; 2] = [Self::Aes256Gcm, Self::ChaCha20Poly1305];

    pub fn from_number(number: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|suite| *suite as i32 == number)
    }

    pub fn number(self) -> i32 {
        self as i32
    }

    /// Server-side choice from the list in a `Hello`, `Attach` or `Resume`: the first known suite.
    pub fn choose(offered: &[i32]) -> Option<Self> {
        offered.iter().find_map(|number| Self::from_number(*number))
    }
}

impl From<Suite> for payload::Suite {
    fn from(suite: Suite) -> Self {
        match suite {
            Suite::Aes256Gcm => Self::Aes256Gcm,
            Suite::ChaCha20Poly1305 => Self::Chacha20Poly1305,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The record is altered, sealed with another key, out of order, or not sealed.
    #[error("a sealed record does not open")]
    Forged,
    #[error("a sealed record without content")]
    Empty,
    #[error("the record counter is used up")]
    Exhausted,
    #[error("the cipher provider failed")]
    Provider,
}

impl SealError {
    pub fn label(&self) -> &'static str {
        match self {
            Self::Forged => "seal_forged",
            Self::Empty => "seal_empty",
            Self::Exhausted => "seal_exhausted",
            Self::Provider => "seal_provider",
        }
    }
}

/// Implementation of the ciphers.
pub trait Provider {
    type Key: Send + Sync;

    fn key(suite: Suite, key: &[u8; KEY]) -> Result<Self::Key, SealError>;
    /// Encrypts in place and returns the tag.
    fn seal(
        key: &Self::Key,
        nonce: [u8; NONCE],
        aad: [u8; 2],
        in_out: &mut [u8],
    ) -> Result<[u8; TAG], SealError>;
    /// Decrypts in place; the last [`TAG`] bytes are the tag. Fails with [`SealError::Forged`].
    fn open(key: &Self::Key, nonce: [u8; NONCE], aad: [u8; 2], in_out: &mut [u8]) -> Result<(), SealError>;
    /// HKDF-Expand with SHA-256 (RFC 5869).
    fn expand(key: &[u8; KEY], info: &[u8]) -> Result<Secret<[u8; KEY]>, SealError>;
}

/// The default provider.
#[derive(Debug, Clone, Copy)]
pub struct AwsLc;

impl Provider for AwsLc {
    type Key = aead::LessSafeKey;

    fn key(suite: Suite, key: &[u8; KEY]) -> Result<Self::Key, SealError> {
        let algorithm = match suite {
            Suite::Aes256Gcm => &aead::AES_256_GCM,
            Suite::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
        };
        aead::UnboundKey::new(algorithm, key).map(aead::LessSafeKey::new).map_err(|_| SealError::Provider)
    }

    fn seal(
        key: &Self::Key,
        nonce: [u8; NONCE],
        aad: [u8; 2],
        in_out: &mut [u8],
    ) -> Result<[u8; TAG], SealError> {
        let nonce = aead::Nonce::assume_unique_for_key(nonce);
        let tag = key
            .seal_in_place_separate_tag(nonce, aead::Aad::from(aad), in_out)
            .map_err(|_| SealError::Provider)?;
        tag.as_ref().try_into().map_err(|_| SealError::Provider)
    }

    fn open(key: &Self::Key, nonce: [u8; NONCE], aad: [u8; 2], in_out: &mut [u8]) -> Result<(), SealError> {
        let nonce = aead::Nonce::assume_unique_for_key(nonce);
        key.open_in_place(nonce, aead::Aad::from(aad), in_out).map(|_| ()).map_err(|_| SealError::Forged)
    }

    fn expand(key: &[u8; KEY], info: &[u8]) -> Result<Secret<[u8; KEY]>, SealError> {
        let mut next = [0; KEY];
        hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, key)
            .expand(&[info], hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(&mut next))
            .map_err(|_| SealError::Provider)?;
        Ok(Secret::new(next))
    }
}

/// Key and counter of one direction. The expanded key (schedule and tables, half a kilobyte) is created when a
/// record needs it and may be dropped while the connection is idle.
struct KeyState<P: Provider> {
    suite: Suite,
    secret: Secret<[u8; KEY]>,
    key: Option<P::Key>,
    counter: u64,
}

impl<P: Provider> KeyState<P> {
    fn new(suite: Suite, secret: Secret<[u8; KEY]>) -> Result<Self, SealError> {
        let key = Some(P::key(suite, secret.expose())?);
        Ok(Self { suite, secret, key, counter: 0 })
    }

    /// Returns the nonce of the next record, and the key.
    fn next(&mut self) -> Result<([u8; NONCE], &P::Key), SealError> {
        let nonce = self.nonce()?;
        let key = match self.key.take() {
            Some(key) => key,
            None => P::key(self.suite, self.secret.expose())?,
        };
        Ok((nonce, self.key.insert(key)))
    }

    /// Returns a nonce that is used once. The counter increases before the nonce is used, and it never wraps.
    fn nonce(&mut self) -> Result<[u8; NONCE], SealError> {
        let next = self.counter.checked_add(1).ok_or(SealError::Exhausted)?;
        let mut nonce = [0; NONCE];
        nonce[4..].copy_from_slice(&self.counter.to_le_bytes());
        self.counter = next;
        Ok(nonce)
    }

    fn update(&mut self) -> Result<(), SealError> {
        *self = Self::new(self.suite, P::expand(self.secret.expose(), KEY_UPDATE)?)?;
        Ok(())
    }
}

fn associated_data(length: usize) -> [u8; 2] {
    // `record::Writer` and `record::Decoder` limit the length, so the fallback is never used.
    u16::try_from(length).unwrap_or(u16::MAX).to_le_bytes()
}

/// Seals the records of one side.
pub struct Sealer<P: Provider = AwsLc>(KeyState<P>);

impl<P: Provider> Sealer<P> {
    pub fn new(suite: Suite, key: Secret<[u8; KEY]>) -> Result<Self, SealError> {
        KeyState::new(suite, key).map(Self)
    }

    /// Encrypts the messages of a record in place and returns the tag that follows them. See
    /// [`crate::record::Writer::seal`].
    pub fn seal(&mut self, plaintext: &mut [u8]) -> Result<[u8; TAG], SealError> {
        if plaintext.is_empty() {
            return Err(SealError::Empty);
        }
        let (nonce, key) = self.0.next()?;
        P::seal(key, nonce, associated_data(plaintext.len() + TAG), plaintext)
    }

    /// Switches to the next key. Call it right after the record whose last message is `KeyUpdate`.
    pub fn update(&mut self) -> Result<(), SealError> {
        self.0.update()
    }

    /// Drops the expanded key to save memory. The next record creates it again.
    pub fn rest(&mut self) {
        self.0.key = None;
    }

    /// Number of records sealed with the current key. At [`MAX_RECORDS`] − 1 the next record must carry `KeyUpdate`.
    pub fn records(&self) -> u64 {
        self.0.counter
    }

    /// Whether the next record must end with a `KeyUpdate`.
    pub fn update_due(&self) -> bool {
        self.0.counter + 1 >= MAX_RECORDS
    }
}

/// Opens the records of the peer.
pub struct Opener<P: Provider = AwsLc>(KeyState<P>);

impl<P: Provider> Opener<P> {
    pub fn new(suite: Suite, key: Secret<[u8; KEY]>) -> Result<Self, SealError> {
        KeyState::new(suite, key).map(Self)
    }

    /// Decrypts the body of a sealed record in place. The body then holds the messages.
    pub fn open(&mut self, body: &mut BytesMut) -> Result<(), SealError> {
        let plaintext = self.open_slice(body)?.len();
        body.truncate(plaintext);
        Ok(())
    }

    /// Like [`Self::open`], for a body in a buffer of the caller. Returns the messages.
    pub fn open_slice<'a>(&mut self, body: &'a mut [u8]) -> Result<&'a [u8], SealError> {
        let length = body.len();
        let plaintext = length.checked_sub(TAG).ok_or(SealError::Forged)?;
        let (nonce, key) = self.0.next()?;
        P::open(key, nonce, associated_data(length), body)?;
        if plaintext == 0 {
            return Err(SealError::Empty);
        }
        Ok(&body[..plaintext])
    }

    /// Drops the expanded key to save memory. The next record creates it again.
    pub fn rest(&mut self) {
        self.0.key = None;
    }

    /// Switches to the next key. Call it after a record whose last message is `KeyUpdate`.
    pub fn update(&mut self) -> Result<(), SealError> {
        self.0.update()
    }
}

impl<P: Provider> std::fmt::Debug for Sealer<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer")
            .field("suite", &self.0.suite)
            .field("counter", &self.0.counter)
            .finish_non_exhaustive()
    }
}

impl<P: Provider> std::fmt::Debug for Opener<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opener")
            .field("suite", &self.0.suite)
            .field("counter", &self.0.counter)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::{Decoder, Side, Writer};

    fn pair(suite: Suite) -> (Sealer, Opener) {
        let key = || Secret::new([7; KEY]);
        (Sealer::new(suite, key()).unwrap(), Opener::new(suite, key()).unwrap())
    }

    fn sealed(sealer: &mut Sealer, messages: &[u8]) -> BytesMut {
        let mut out = BytesMut::new();
        let mut writer = Writer::begin(&mut out, Side::Client);
        writer.push_encoded(messages).unwrap();
        writer.seal(sealer).unwrap();
        Decoder::new(Side::Client).next(&mut out).unwrap().unwrap()
    }

    #[test]
    fn sealed_records_open_once_and_in_order() {
        let (mut sealer, mut opener) = pair(Suite::Aes256Gcm);
        let first = sealed(&mut sealer, b"first");
        let second = sealed(&mut sealer, b"second");
        assert_eq!(opener.open(&mut second.clone()), Err(SealError::Forged));

        let (_, mut opener) = pair(Suite::Aes256Gcm);
        opener.open(&mut first.clone()).unwrap();
        assert_eq!(opener.open(&mut first.clone()), Err(SealError::Forged));
    }

    #[test]
    fn key_update_must_happen_on_both_sides() {
        let (mut sealer, mut opener) = pair(Suite::ChaCha20Poly1305);
        opener.open(&mut sealed(&mut sealer, b"old key")).unwrap();
        sealer.update().unwrap();
        assert_eq!(sealer.records(), 0);
        opener.update().unwrap();
        let mut record = sealed(&mut sealer, b"new key");
        opener.open(&mut record).unwrap();
        assert_eq!(&record[..], b"new key");
        sealer.update().unwrap();
        assert_eq!(opener.open(&mut sealed(&mut sealer, b"lost")), Err(SealError::Forged));
    }

    #[test]
    fn exhausted_counter_refuses_to_seal() {
        let (mut sealer, _) = pair(Suite::Aes256Gcm);
        sealer.0.counter = MAX_RECORDS - 2;
        assert!(!sealer.update_due());
        sealer.seal(&mut [1]).unwrap();
        assert!(sealer.update_due());
        sealer.0.counter = u64::MAX;
        assert_eq!(sealer.seal(&mut [1]), Err(SealError::Exhausted));
    }

    #[test]
    fn rest_keeps_key_and_counter() {
        let (mut sealer, mut opener) = pair(Suite::Aes256Gcm);
        for byte in 0..4u8 {
            let mut record = BytesMut::from(&[byte][..]);
            let tag = sealer.seal(&mut record).unwrap();
            record.extend_from_slice(&tag);
            assert_eq!(opener.open_slice(&mut record).unwrap(), [byte]);
            sealer.rest();
            opener.rest();
        }
    }

    #[test]
    fn empty_record_is_refused() {
        let (mut sealer, mut opener) = pair(Suite::Aes256Gcm);
        assert_eq!(sealer.seal(&mut []), Err(SealError::Empty));
        let (nonce, key) = sealer.0.next().unwrap();
        let tag = AwsLc::seal(key, nonce, 16u16.to_le_bytes(), &mut []).unwrap();
        assert_eq!(opener.open(&mut BytesMut::from(&tag[..])), Err(SealError::Empty));
        assert_eq!(opener.open(&mut BytesMut::from(&[0; 15][..])), Err(SealError::Forged));
    }

    #[test]
    fn suite_choose_takes_first_known() {
        assert_eq!(Suite::choose(&[9, 2, 1]), Some(Suite::ChaCha20Poly1305));
        assert_eq!(Suite::choose(&[0, -1]), None);
    }

    proptest! {
        #[test]
        fn flipped_bit_is_detected(
            messages in proptest::collection::vec(any::<u8>(), 1..200),
            chacha: bool,
            flip: proptest::sample::Index,
        ) {
            let suite = if chacha { Suite::ChaCha20Poly1305 } else { Suite::Aes256Gcm };
            let (mut sealer, mut opener) = pair(suite);
            let record = sealed(&mut sealer, &messages);

            let mut altered = record.clone();
            let bit = flip.index(altered.len() * 8);
            altered[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(pair(suite).1.open(&mut altered), Err(SealError::Forged));
            let mut short = record.clone();
            short.truncate(flip.index(record.len()));
            prop_assert!(pair(suite).1.open(&mut short).is_err());

            let mut whole = record;
            opener.open(&mut whole).unwrap();
            prop_assert_eq!(&whole[..], &messages[..]);
        }
    }
}
