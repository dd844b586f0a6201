//! The optional key share of a login: X25519 and ML-KEM-768 (FIPS 203) side by side, in the layout of TLS's
//! X25519MLKEM768 (draft-ietf-tls-ecdhe-mlkem). Whoever records a login today and has a quantum computer one day, and
//! the password's verifier too, still cannot read it; and neither half alone has to hold.
//!
//! ```
//! use shardkeep_auth::hybrid::{Offer, answer};
//! use shardkeep_types::Secret;
//! # fn main() -> Result<(), shardkeep_auth::hybrid::ShareError> {
//! let offer = Offer::new(&Secret::new([1; 96]))?;
//! let (reply, servers) = answer(offer.public(), &Secret::new([2; 64]))?;
//! assert_eq!(offer.accept(&reply)?, servers);
//! # Ok(()) }
//! ```

mod mlkem;

use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use shardkeep_types::Secret;

const X25519_BYTES: usize = 32;
/// `Hello.key_share`: an encapsulation key ‖ a public key of X25519.
pub const OFFER: usize = mlkem::ENCAPSULATION_KEY + X25519_BYTES;
/// `Challenge.key_share`: a ciphertext ‖ a public key of X25519.
pub const ANSWER: usize = mlkem::CIPHERTEXT + X25519_BYTES;

/// ML-KEM's shared secret ‖ X25519's.
pub type HybridSecret = Secret<[u8; 64]>;

/// The other side's share is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a bad key share")]
pub struct ShareError;

/// The client's half, waiting for the server's.
pub struct Offer {
    kem: mlkem::DecapsulationKey,
    agreement: PrivateKey,
    public: Vec<u8>,
}

impl std::fmt::Debug for Offer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Offer").finish_non_exhaustive()
    }
}

impl Offer {
    /// `random`: the seed of ML-KEM (`d ‖ z`, 64 bytes) ‖ the private key of X25519.
    ///
    /// # Errors
    /// Only for lack of memory.
    pub fn new(random: &Secret<[u8; 96]>) -> Result<Self, ShareError> {
        let (seed, private) = random.expose().split_at(mlkem::KEY_SEED);
        let (kem, mut public) = mlkem::DecapsulationKey::new(seed.try_into().map_err(|_| ShareError)?)?;
        let agreement = PrivateKey::from_private_key(&X25519, private).map_err(|_| ShareError)?;
        public.extend_from_slice(agreement.compute_public_key().map_err(|_| ShareError)?.as_ref());
        Ok(Self { kem, agreement, public })
    }

    /// `Hello.key_share`.
    pub fn public(&self) -> &[u8] {
        &self.public
    }

    /// `share` is `Challenge.key_share`.
    ///
    /// # Errors
    /// When it has another size, or X25519 gives zero.
    pub fn accept(self, share: &[u8]) -> Result<HybridSecret, ShareError> {
        let (ciphertext, public) = halves(share, ANSWER)?;
        combine(&self.kem.decapsulate(ciphertext)?, &self.agreement, public)
    }
}

/// The server's half: what it sends, and the secret. `random`: the 32 bytes of ML-KEM's encapsulation ‖ the private
/// key of X25519.
///
/// # Errors
/// When the offer has another size or is not an encapsulation key, or X25519 gives zero.
pub fn answer(offer: &[u8], random: &Secret<[u8; 64]>) -> Result<(Vec<u8>, HybridSecret), ShareError> {
    let (key, public) = halves(offer, OFFER)?;
    let (seed, private) = random.expose().split_at(mlkem::ENCAPSULATION_SEED);
    let (mut share, kem) = mlkem::encapsulate(key, seed.try_into().map_err(|_| ShareError)?)?;
    let agreement = PrivateKey::from_private_key(&X25519, private).map_err(|_| ShareError)?;
    share.extend_from_slice(agreement.compute_public_key().map_err(|_| ShareError)?.as_ref());
    Ok((share, combine(&kem, &agreement, public)?))
}

fn halves(share: &[u8], length: usize) -> Result<(&[u8], &[u8]), ShareError> {
    if share.len() == length { Ok(share.split_at(length - X25519_BYTES)) } else { Err(ShareError) }
}

fn combine(kem: &Secret<[u8; 32]>, own: &PrivateKey, theirs: &[u8]) -> Result<HybridSecret, ShareError> {
    let mut both = [0; 64];
    both[..32].copy_from_slice(kem.expose());
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
        Offer::new(&Secret::new([3; 96])).unwrap()
    }

    fn answered() -> (Vec<u8>, HybridSecret) {
        answer(offer().public(), &Secret::new([4; 64])).unwrap()
    }

    #[test]
    fn key_shares_agree_and_have_documented_sizes() {
        let (share, servers) = answered();
        assert_eq!((offer().public().len(), share.len()), (1_216, 1_120));
        assert_eq!(offer().accept(&share), Ok(servers));
    }

    #[test]
    fn altered_half_changes_the_secret() {
        let (share, servers) = answered();
        for at in [0, mlkem::CIPHERTEXT] {
            let mut altered = share.clone();
            altered[at] ^= 1;
            assert_ne!(offer().accept(&altered), Ok(servers.clone()));
        }
    }

    #[test]
    fn malformed_key_share_is_refused() {
        let random = Secret::new([4; 64]);
        for length in [0, OFFER - 1, OFFER + 1] {
            assert_eq!(answer(&vec![1; length], &random), Err(ShareError));
        }
        assert_eq!(answer(&[0xff; OFFER], &random), Err(ShareError), "coefficients beyond the modulus");
        let mut small_order = offer().public().to_vec();
        small_order[mlkem::ENCAPSULATION_KEY..].fill(0);
        assert_eq!(answer(&small_order, &random), Err(ShareError));
        assert_eq!(offer().accept(&[0; 7]), Err(ShareError));
        assert_eq!(offer().accept(&[0; ANSWER]), Err(ShareError));
    }
}
