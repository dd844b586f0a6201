//! SHA-256, HMAC and HKDF (RFC 5869) over aws-lc-rs, and the types of their results. A port to another provider replaces
//! this file, `bignum` and `hybrid`.

use aws_lc_rs::{constant_time, digest, hmac};
use shardkeep_types::Secret;

/// 32 bytes of key material.
pub type Key = Secret<[u8; 32]>;

/// A message authentication code. It can only be compared in constant time.
#[derive(Clone)]
pub struct Mac([u8; 32]);

impl Mac {
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether `got` is this code, in a time that does not depend on the first difference.
    #[must_use]
    pub fn matches(&self, got: &[u8]) -> bool {
        constant_time::verify_slices_are_equal(&self.0, got).is_ok()
    }

    /// [`Self::matches`] for a code that was truncated to 16 bytes.
    #[must_use]
    pub(crate) fn first_half_matches(&self, got: &[u8]) -> bool {
        constant_time::verify_slices_are_equal(&self.0[..16], got).is_ok()
    }
}

impl std::fmt::Debug for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mac(***)")
    }
}

/// Running hash of the bytes that both sides sent: the preface (see [`crate::ChannelBinding`]), then complete messages with
/// their headers.
#[derive(Clone)]
pub struct Transcript(digest::Context);

impl Transcript {
    pub fn new(preface: &[u8]) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(preface);
        Self(context)
    }

    pub fn add(&mut self, message: &[u8]) {
        self.0.update(message);
    }

    /// The hash of all bytes added so far. More may be added later.
    pub fn hash(&self) -> [u8; 32] {
        digest_bytes(&self.0.clone().finish())
    }
}

pub(crate) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part);
    }
    digest_bytes(&context.finish())
}

pub(crate) fn mac(key: &Key, parts: &[&[u8]]) -> Mac {
    MacKey::new(key.expose()).mac(parts)
}

/// A prepared HMAC key, for several codes.
pub(crate) struct MacKey(hmac::Key);

impl MacKey {
    fn new(key: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// The pseudorandom key of HKDF-Expand.
    pub(crate) fn prk(prk: &Key) -> Self {
        Self::new(prk.expose())
    }

    pub(crate) fn mac(&self, parts: &[&[u8]]) -> Mac {
        Mac(self.sign(parts))
    }

    /// HKDF-Expand to `N` bytes. The protocol never needs more than one block of SHA-256.
    pub(crate) fn expand<const N: usize>(&self, info: &str) -> Secret<[u8; N]> {
        const { assert!(N <= 32, "one block of HKDF-Expand") };
        let block = Secret::new(self.sign(&[info.as_bytes(), &[1]]));
        let mut output = [0; N];
        output.copy_from_slice(&block.expose()[..N]);
        Secret::new(output)
    }

    fn sign(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            context.update(part);
        }
        let mut output = [0; 32];
        output.copy_from_slice(context.sign().as_ref());
        output
    }
}

/// HKDF-Extract.
pub(crate) fn extract(salt: &[u8; 32], ikm: &Key) -> Key {
    extract_parts(salt, &[ikm.expose()])
}

/// HKDF-Extract of several secrets, concatenated.
pub(crate) fn extract_parts(salt: &[u8; 32], ikm: &[&[u8]]) -> Key {
    Secret::new(MacKey::new(salt).sign(ikm))
}

/// HKDF-Expand with a key that is used once.
pub(crate) fn expand<const N: usize>(prk: &Key, info: &str) -> Secret<[u8; N]> {
    MacKey::prk(prk).expand(info)
}

fn digest_bytes(digest: &digest::Digest) -> [u8; 32] {
    let mut output = [0; 32];
    output.copy_from_slice(digest.as_ref());
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 5869, test case 3 with its salt (empty means 32 zero bytes): extract and the first block of expand.
    #[test]
    fn hkdf_matches_rfc_5869() {
        let prk = extract_parts(&[0; 32], &[&[0x0b; 22]]);
        assert_eq!(
            hex::encode(prk.expose()),
            "19ef24a32c717b167f33a91d6f648bdf96596776afdb6377ac434c1c293ccb04"
        );
        let okm = expand::<32>(&prk, "");
        assert_eq!(
            hex::encode(okm.expose()),
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d"
        );
    }

    #[test]
    fn mac_matches_only_itself() {
        let mac = mac(&Secret::new([1; 32]), &[b"client"]);
        assert!(mac.matches(mac.as_bytes()));
        assert!(!mac.matches(&mac.as_bytes()[..31]));
        assert!(!mac.matches(&[0; 32]));
        assert_eq!(format!("{mac:?}"), "Mac(***)");
    }
}
