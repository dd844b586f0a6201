//! The optional key share of a login: X25519 and ML-KEM-768 (FIPS 203) side by side, in the layout of TLS's
//! X25519MLKEM768 (draft-ietf-tls-ecdhe-mlkem). An attacker who records a login today, and later has a quantum computer and
//! the verifier, still cannot read it. The secret stays secret if one of the two algorithms is broken.
//!
//! X25519 takes its private key as an argument, as everything in this crate does. ML-KEM draws its randomness from
//! aws-lc-rs, which has no other interface.
//!
//! ```
//! use shardkeep_auth::hybrid::{Offer, answer};
//! use shardkeep_types::Secret;
//! # fn main() -> Result<(), shardkeep_auth::hybrid::ShareError> {
//! let offer = Offer::new(&Secret::new([1; 32]))?;
//! let (reply, servers) = answer(offer.public(), &Secret::new([2; 32]))?;
//! assert_eq!(offer.accept(&reply)?, servers);
//! # Ok(()) }
//! ```

use aws_lc_rs::{
    agreement::{PrivateKey, UnparsedPublicKey, X25519, agree},
    kem::{DecapsulationKey, EncapsulationKey, ML_KEM_768, SharedSecret},
};
use shardkeep_types::Secret;

use crate::Key;

const X25519_BYTES: usize = 32;
const ENCAPSULATION_KEY_BYTES: usize = 1_184;
const CIPHERTEXT_BYTES: usize = 1_088;
/// Bytes of `Hello.key_share`: an encapsulation key ‖ an X25519 public key.
pub const OFFER: usize = ENCAPSULATION_KEY_BYTES + X25519_BYTES;
/// Bytes of `Challenge.key_share`: a ciphertext ‖ an X25519 public key.
pub const ANSWER: usize = CIPHERTEXT_BYTES + X25519_BYTES;

/// The secret of ML-KEM ‖ the secret of X25519.
pub type HybridSecret = Secret<[u8; 64]>;

/// The other side sent an invalid key share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a bad key share")]
pub struct ShareError;

/// The client's key share, until the server answers.
pub struct Offer {
    kem: DecapsulationKey,
    agreement: PrivateKey,
    public: Vec<u8>,
}

impl std::fmt::Debug for Offer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Offer").finish_non_exhaustive()
    }
}

impl Offer {
    /// `private`: the private key of X25519.
    ///
    /// # Errors
    /// Fails only without memory or randomness.
    pub fn new(private: &Key) -> Result<Self, ShareError> {
        let kem = DecapsulationKey::generate(&ML_KEM_768).map_err(|_| ShareError)?;
        let public = kem.encapsulation_key().and_then(|key| Ok(key.key_bytes()?.as_ref().to_vec()));
        Self::with_kem(kem, public.map_err(|_| ShareError)?, private)
    }

    fn with_kem(kem: DecapsulationKey, mut public: Vec<u8>, private: &Key) -> Result<Self, ShareError> {
        let agreement = private_key(private)?;
        public.extend_from_slice(&public_bytes(&agreement)?);
        Ok(Self { kem, agreement, public })
    }

    /// `Hello.key_share`.
    pub fn public(&self) -> &[u8] {
        &self.public
    }

    /// `share` is `Challenge.key_share`.
    ///
    /// # Errors
    /// Fails if the share has another length, or X25519 gives zero.
    pub fn accept(self, share: &[u8]) -> Result<HybridSecret, ShareError> {
        let (ciphertext, public) = halves(share, ANSWER)?;
        let kem = self.kem.decapsulate(ciphertext.into()).map_err(|_| ShareError)?;
        combine(&kem, &self.agreement, public)
    }
}

/// The server's key share and the secret. `private`: the server's private key of X25519.
///
/// # Errors
/// Fails if the offer has another length or no valid encapsulation key (FIPS 203, section 7.2), or X25519 gives zero.
pub fn answer(offer: &[u8], private: &Key) -> Result<(Vec<u8>, HybridSecret), ShareError> {
    let (key, public) = halves(offer, OFFER)?;
    let key = EncapsulationKey::new(&ML_KEM_768, key).map_err(|_| ShareError)?;
    let (ciphertext, kem) = key.encapsulate().map_err(|_| ShareError)?;
    let agreement = private_key(private)?;
    let share = [ciphertext.as_ref(), &public_bytes(&agreement)?].concat();
    Ok((share, combine(&kem, &agreement, public)?))
}

fn private_key(bytes: &Key) -> Result<PrivateKey, ShareError> {
    PrivateKey::from_private_key(&X25519, bytes.expose()).map_err(|_| ShareError)
}

fn public_bytes(key: &PrivateKey) -> Result<Vec<u8>, ShareError> {
    Ok(key.compute_public_key().map_err(|_| ShareError)?.as_ref().to_vec())
}

fn halves(share: &[u8], length: usize) -> Result<(&[u8], &[u8]), ShareError> {
    if share.len() == length { Ok(share.split_at(length - X25519_BYTES)) } else { Err(ShareError) }
}

fn combine(kem: &SharedSecret, own: &PrivateKey, theirs: &[u8]) -> Result<HybridSecret, ShareError> {
    let mut both = [0; 64];
    both[..32].copy_from_slice(kem.as_ref());
    agree(own, UnparsedPublicKey::new(&X25519, theirs), ShareError, |secret| {
        both[32..].copy_from_slice(secret);
        Ok(())
    })?;
    Ok(Secret::new(both))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer() -> Offer {
        Offer::new(&Secret::new([3; 32])).unwrap()
    }

    fn answered(offer: &Offer) -> (Vec<u8>, HybridSecret) {
        answer(offer.public(), &Secret::new([4; 32])).unwrap()
    }

    #[test]
    fn key_shares_agree_and_have_documented_sizes() {
        let offer = offer();
        let (share, servers) = answered(&offer);
        assert_eq!((offer.public().len(), share.len()), (OFFER, ANSWER));
        assert_eq!((OFFER, ANSWER), (1_216, 1_120));
        assert_eq!(offer.accept(&share), Ok(servers));
    }

    #[test]
    fn altered_half_changes_the_secret() {
        for at in [0, CIPHERTEXT_BYTES] {
            let offer = offer();
            let (mut share, servers) = answered(&offer);
            share[at] ^= 1;
            assert_ne!(offer.accept(&share), Ok(servers));
        }
    }

    /// The key share vectors of `docs/protocol.md`. Another implementation (PyPI's `kyber-py`) made the decapsulation key
    /// of their seed.
    #[test]
    fn accepted_key_share_matches_vectors() {
        let page = include_str!("../../../docs/protocol.md");
        let section = page.split("### Key shares").nth(1).unwrap().split("\n##").next().unwrap();
        let vector = |name: &str| {
            let found = section.lines().skip_while(|line| !line.starts_with(name));
            let hex = found.enumerate().take_while(|(at, line)| *at == 0 || line.starts_with(' '));
            let hex: String =
                hex.map(|(at, line)| if at == 0 { &line[name.len()..] } else { line }.trim()).collect();
            hex::decode(hex).unwrap()
        };
        let key = include_str!("../tests/data/mlkem768_decapsulation_key.hex").split_whitespace();
        let key = hex::decode(key.collect::<String>()).unwrap();
        let kem = DecapsulationKey::new(&ML_KEM_768, &key).unwrap();
        let encapsulation_key = key[1_152..][..ENCAPSULATION_KEY_BYTES].to_vec();
        let private = Secret::new(vector("client x25519").try_into().unwrap());
        let offer = Offer::with_kem(kem, encapsulation_key, &private).unwrap();
        assert_eq!(crate::crypto::sha256(&[offer.public()])[..], vector("offer sha256"));
        let secret = offer.accept(&vector("answer")).unwrap();
        assert_eq!(secret.expose()[..], vector("secret"));
    }

    #[test]
    fn malformed_key_share_is_refused() {
        let random = Secret::new([4; 32]);
        for length in [0, OFFER - 1, OFFER + 1] {
            assert_eq!(answer(&vec![1; length], &random), Err(ShareError));
        }
        assert_eq!(answer(&[0xff; OFFER], &random), Err(ShareError), "coefficients beyond the modulus");
        let mut small_order = offer().public().to_vec();
        small_order[ENCAPSULATION_KEY_BYTES..].fill(0);
        assert_eq!(answer(&small_order, &random), Err(ShareError));
        assert_eq!(offer().accept(&[0; 7]), Err(ShareError));
        assert_eq!(offer().accept(&[0; ANSWER]), Err(ShareError));
    }
}
