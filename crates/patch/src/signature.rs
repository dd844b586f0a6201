//! Signature of a manifest: Ed25519 (RFC 8032) over all its bytes. The public key precedes the manifest, so that a
//! client can report which key it does not trust.

use std::fmt;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use shardkeep_wire::cursor::Cursor;

use crate::{Manifest, ManifestError, manifest};

pub const MAGIC: [u8; 4] = *b"SKPS";
pub const VERSION: u8 = 1;
/// Bytes before the manifest.
pub const HEADER: usize = MAGIC.len() + 1 + 32 + 8 + 64;
/// Maximum length of a signed manifest.
pub const MAX: usize = HEADER + manifest::MAX_BYTES;
/// Prefix of the signed bytes. It prevents that another signature by the same key is used for a manifest.
const CONTEXT: &[u8] = b"shardkeep v1 patch manifest\0";

/// The public key, which clients are shipped with.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl std::str::FromStr for PublicKey {
    type Err = SignedError;

    /// 64 hexadecimal digits.
    fn from_str(text: &str) -> Result<Self, SignedError> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text.trim(), &mut bytes).map_err(|_| SignedError::Key)?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

/// The private key, which stays with the publisher.
pub struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    /// Derives the key pair from 32 secret random bytes.
    ///
    /// # Errors
    /// Fails if the provider refuses the bytes.
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self, SignedError> {
        Ed25519KeyPair::from_seed_unchecked(seed).map(Self).map_err(|_| SignedError::Key)
    }

    pub fn public(&self) -> PublicKey {
        let bytes: Result<[u8; 32], _> = self.0.public_key().as_ref().try_into();
        PublicKey(bytes.expect("an Ed25519 public key has 32 bytes"))
    }

    /// A signed manifest. `now_ms` is the time in milliseconds since the Unix epoch, by which clients notice a server that
    /// offers an old release.
    pub fn sign(&self, manifest: &Manifest, now_ms: u64) -> Vec<u8> {
        let manifest = manifest.encode();
        let signature = self.0.sign(&signed_bytes(now_ms, &manifest));
        let mut out = Vec::with_capacity(HEADER + manifest.len());
        out.extend_from_slice(&MAGIC);
        out.push(VERSION);
        out.extend_from_slice(self.public().as_bytes());
        out.extend_from_slice(&now_ms.to_le_bytes());
        out.extend_from_slice(signature.as_ref());
        out.extend_from_slice(&manifest);
        out
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignedError {
    #[error("not a signed manifest")]
    WrongMagic,
    #[error("version {0} of signed manifests is not known here")]
    Version(u8),
    #[error("a signed manifest of {0} bytes, at most {MAX} are allowed")]
    TooLarge(usize),
    #[error("not a key")]
    Key,
    #[error("signed by {0}, which is not trusted here")]
    UntrustedKey(PublicKey),
    #[error("the signature does not match: the manifest was altered")]
    Altered,
    #[error("the signed manifest is damaged: {0}")]
    Manifest(#[from] ManifestError),
}

impl SignedError {
    pub fn label(&self) -> &'static str {
        match self {
            Self::WrongMagic => "signed_foreign",
            Self::Version(_) => "signed_version",
            Self::TooLarge(_) => "signed_too_large",
            Self::Key => "signed_key",
            Self::UntrustedKey(_) => "signed_untrusted_key",
            Self::Altered => "signed_altered",
            Self::Manifest(error) => error.label(),
        }
    }
}

/// A parsed signed manifest whose signature is not verified yet.
#[derive(Debug, Clone, Copy)]
pub struct SignedManifest<'a> {
    key: PublicKey,
    signed_ms: u64,
    signature: [u8; 64],
    manifest: &'a [u8],
}

impl<'a> SignedManifest<'a> {
    /// # Errors
    /// Fails if the bytes are not a signed manifest.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, SignedError> {
        if bytes.len() > MAX {
            return Err(SignedError::TooLarge(bytes.len()));
        }
        let mut cursor = Cursor::new(bytes);
        if cursor.array() != Ok(MAGIC) {
            return Err(SignedError::WrongMagic);
        }
        let version = cursor.u8().map_err(|_| SignedError::WrongMagic)?;
        if version != VERSION {
            return Err(SignedError::Version(version));
        }
        let key = PublicKey(cursor.array().map_err(|_| SignedError::WrongMagic)?);
        let signed_ms = cursor.u64().map_err(|_| SignedError::WrongMagic)?;
        let signature = cursor.array().map_err(|_| SignedError::WrongMagic)?;
        Ok(Self { key, signed_ms, signature, manifest: cursor.rest() })
    }

    /// The key that the manifest names as its signer.
    pub fn key(&self) -> PublicKey {
        self.key
    }

    /// When it was signed, in milliseconds since the Unix epoch. Trust it only after the verification.
    pub fn signed_ms(&self) -> u64 {
        self.signed_ms
    }

    /// The manifest, if one of these keys vouches for it. Nothing of it is read before.
    ///
    /// # Errors
    /// Fails if it is signed by another key, altered, or damaged.
    pub fn verify_trusted(&self, keys: &[PublicKey]) -> Result<Manifest, SignedError> {
        if !keys.contains(&self.key) {
            return Err(SignedError::UntrustedKey(self.key));
        }
        self.verify_self_signed()
    }

    /// Returns the manifest if the key that it names signed it, whichever that is.
    ///
    /// # Errors
    /// Fails if it is altered or damaged.
    pub fn verify_self_signed(&self) -> Result<Manifest, SignedError> {
        UnparsedPublicKey::new(&ED25519, self.key.as_bytes())
            .verify(&signed_bytes(self.signed_ms, self.manifest), &self.signature)
            .map_err(|_| SignedError::Altered)?;
        Ok(Manifest::decode(self.manifest)?)
    }
}

fn signed_bytes(signed_ms: u64, manifest: &[u8]) -> Vec<u8> {
    [CONTEXT, &signed_ms.to_le_bytes(), manifest].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::manifest::tests::sample;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&[seed; 32]).unwrap()
    }

    #[test]
    fn manifest_of_untrusted_key_is_refused() {
        let (ours, theirs) = (key(1), key(2));
        let bytes = ours.sign(&sample(), 1);
        let signed = SignedManifest::parse(&bytes).unwrap();
        assert_eq!(signed.key(), ours.public());
        assert_eq!(signed.verify_trusted(&[theirs.public(), ours.public()]), Ok(sample()));
        assert_eq!(signed.verify_trusted(&[theirs.public()]), Err(SignedError::UntrustedKey(ours.public())));
        assert_eq!(signed.verify_trusted(&[]), Err(SignedError::UntrustedKey(ours.public())));
        // Their manifest under our name.
        let mut forged = theirs.sign(&sample(), 1);
        forged[5..37].copy_from_slice(ours.public().as_bytes());
        assert_eq!(
            SignedManifest::parse(&forged).unwrap().verify_trusted(&[ours.public()]),
            Err(SignedError::Altered)
        );
    }

    #[test]
    fn public_key_round_trips_as_text() {
        let public = key(3).public();
        assert_eq!(public.to_string().parse(), Ok(public));
        assert_eq!(" zz".parse::<PublicKey>(), Err(SignedError::Key));
        assert_eq!("zz".repeat(32).parse::<PublicKey>(), Err(SignedError::Key));
        assert_eq!("é".repeat(32).parse::<PublicKey>(), Err(SignedError::Key));
    }

    #[test]
    fn invalid_signed_manifest_gives_specific_error() {
        let parse = |bytes: &[u8]| SignedManifest::parse(bytes).map(|signed| signed.key()).unwrap_err();
        assert_eq!(parse(b"SKPM"), SignedError::WrongMagic);
        assert_eq!(parse(b"SKPS\x02"), SignedError::Version(2));
        assert_eq!(parse(b"SKPS\x01short"), SignedError::WrongMagic);
        assert_eq!(parse(&vec![0; MAX + 1]), SignedError::TooLarge(MAX + 1));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn flipped_bit_is_detected(at: proptest::sample::Index, bit in 0u8..8) {
            let ours = key(1);
            let mut bytes = ours.sign(&sample(), 1);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(SignedManifest::parse(&bytes).and_then(|it| it.verify_trusted(&[ours.public()])).is_err());
        }
    }
}
