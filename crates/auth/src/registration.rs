//! Registration (protocol section 7): the client seals salt and verifier to the region's public key, which it was
//! built with. An attacker in between learns nothing that allows guessing the password, and the sealed reply proves
//! that the region created the account.
//!
//! ```
//! use shardkeep_auth::registration::{RegionKey, seal};
//! # let (preface, random, fresh) = ([0; 12], shardkeep_types::Secret::new([1; 32]), shardkeep_types::Secret::new([2; 32]));
//! let region = RegionKey::new(&random).unwrap();
//! let request = seal(region.public(), &preface, &fresh, b"alice").unwrap();
//! let (opened, reply) = region.open(&preface, &request.key, &request.sealed).unwrap();
//! assert_eq!(opened, b"alice");
//! assert_eq!(request.reply.open(&reply.seal(b"done").unwrap()).unwrap(), b"done");
//! ```

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    agreement::{self, PrivateKey, UnparsedPublicKey, X25519},
};

use crate::crypto::{Key, expand, extract, sha256};

/// Sealed to another key, altered, or not a point of the curve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not sealed to this key")]
pub struct SealError;

/// The region's key pair (X25519, RFC 7748).
pub struct RegionKey {
    private: PrivateKey,
    public: [u8; 32],
}

impl RegionKey {
    /// # Errors
    /// Fails only without memory: any 32 bytes are a private key.
    pub fn new(secret: &Key) -> Result<Self, SealError> {
        let private = PrivateKey::from_private_key(&X25519, secret.expose()).map_err(|_| SealError)?;
        let public = public_of(&private)?;
        Ok(Self { private, public })
    }

    /// The public key that clients pin.
    pub fn public(&self) -> &[u8; 32] {
        &self.public
    }

    /// Opens a request sealed by [`seal`]. Also returns the key for the reply. `preface` is the beginning of the
    /// connection's transcripts ([`ChannelBinding`](crate::ChannelBinding)).
    ///
    /// # Errors
    /// Fails if the request was sealed to another key or for another preface, or was altered.
    pub fn open(&self, preface: &[u8], key: &[u8], sealed: &[u8]) -> Result<(Vec<u8>, ReplyKey), SealError> {
        let client = <[u8; 32]>::try_from(key).map_err(|_| SealError)?;
        let keys = Keys::derive(preface, &client, &self.public, &agree(&self.private, &client)?);
        Ok((open(&keys.request, sealed)?, keys.reply))
    }
}

impl std::fmt::Debug for RegionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RegionKey(***)")
    }
}

/// A sealed request, and the key that opens its reply.
#[derive(Debug)]
pub struct Request {
    /// `Register.key`
    pub key: [u8; 32],
    /// `Register.sealed`
    pub sealed: Vec<u8>,
    pub reply: ReplyKey,
}

/// Seals to a region's public key. `fresh` is 32 random bytes that are used once.
///
/// # Errors
/// Fails if `region` is not a public key.
pub fn seal(region: &[u8; 32], preface: &[u8], fresh: &Key, plaintext: &[u8]) -> Result<Request, SealError> {
    let private = PrivateKey::from_private_key(&X25519, fresh.expose()).map_err(|_| SealError)?;
    let key = public_of(&private)?;
    let keys = Keys::derive(preface, &key, region, &agree(&private, region)?);
    Ok(Request { key, sealed: encrypt(&keys.request, plaintext)?, reply: keys.reply })
}

/// Key that seals and opens one reply.
#[derive(Debug)]
pub struct ReplyKey(Key);

impl ReplyKey {
    /// # Errors
    /// Fails only without memory. Takes `self` by value, because the key is used once.
    pub fn seal(self, plaintext: &[u8]) -> Result<Vec<u8>, SealError> {
        encrypt(&self.0, plaintext)
    }

    /// # Errors
    /// Fails if the region did not seal it.
    pub fn open(&self, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        open(&self.0, sealed)
    }
}

struct Keys {
    request: Key,
    reply: ReplyKey,
}

impl Keys {
    fn derive(preface: &[u8], client: &[u8; 32], region: &[u8; 32], shared: &Key) -> Self {
        let secret = extract(&sha256(&[b"shardkeep v1 register", preface, client, region]), shared);
        Self {
            request: expand(&secret, "shardkeep v1 register request"),
            reply: ReplyKey(expand(&secret, "shardkeep v1 register reply")),
        }
    }
}

fn public_of(private: &PrivateKey) -> Result<[u8; 32], SealError> {
    let public = private.compute_public_key().map_err(|_| SealError)?;
    public.as_ref().try_into().map_err(|_| SealError)
}

fn agree(private: &PrivateKey, public: &[u8; 32]) -> Result<Key, SealError> {
    let public = UnparsedPublicKey::new(&X25519, public);
    agreement::agree(private, public, SealError, |shared| {
        Ok(Key::new(shared.try_into().map_err(|_| SealError)?))
    })
}

/// Each key seals one message, so the nonce is always 0.
fn encrypt(key: &Key, plaintext: &[u8]) -> Result<Vec<u8>, SealError> {
    let mut sealed = plaintext.to_vec();
    let nonce = Nonce::assume_unique_for_key([0; 12]);
    cipher(key)?.seal_in_place_append_tag(nonce, Aad::empty(), &mut sealed).map_err(|_| SealError)?;
    Ok(sealed)
}

fn open(key: &Key, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
    let mut opened = sealed.to_vec();
    let nonce = Nonce::assume_unique_for_key([0; 12]);
    let plaintext = cipher(key)?.open_in_place(nonce, Aad::empty(), &mut opened).map_err(|_| SealError)?;
    Ok(plaintext.to_vec())
}

fn cipher(key: &Key) -> Result<LessSafeKey, SealError> {
    UnboundKey::new(&AES_256_GCM, key.expose()).map(LessSafeKey::new).map_err(|_| SealError)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_opens_only_for_pinned_region() {
        let key = |byte| Key::new([byte; 32]);
        let (region, other) = (RegionKey::new(&key(1)).unwrap(), RegionKey::new(&key(2)).unwrap());
        let request = seal(region.public(), &[7; 12], &key(3), b"alice").unwrap();
        let refused = |result: Result<(Vec<u8>, ReplyKey), SealError>| result.is_err();
        assert!(refused(other.open(&[7; 12], &request.key, &request.sealed)));
        assert!(refused(region.open(&[8; 12], &request.key, &request.sealed)), "another deployment's");
        let mut altered = request.sealed.clone();
        altered[0] ^= 1;
        assert!(refused(region.open(&[7; 12], &request.key, &altered)));
        for nonsense in [&[0u8; 0][..], &[0; 31][..], &[0; 32][..], &[0xff; 33][..]] {
            assert!(refused(region.open(&[7; 12], nonsense, &request.sealed)), "{nonsense:?}");
        }
        assert!(refused(region.open(&[7; 12], &request.key, &[])));
        let (_, reply) = region.open(&[7; 12], &request.key, &request.sealed).unwrap();
        let answer = reply.seal(b"7").unwrap();
        assert_eq!(request.reply.open(&answer).unwrap(), b"7");
        assert_eq!(request.reply.open(&request.sealed), Err(SealError), "its own words are no answer");
    }
}
