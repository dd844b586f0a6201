//! Encryption of the second factors' secrets in the store. With a key in the settings, a copy of the store alone is not
//! enough to make codes.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use shardkeep_auth::Key;
use shardkeep_types::{AccountId, Secret};

use crate::{error::LoginError, random};

/// First byte of a stored secret.
const PLAIN: u8 = 0;
const SEALED: u8 = 1;

pub(crate) struct SecretCipher {
    key: Option<LessSafeKey>,
}

impl SecretCipher {
    /// `None`: secrets are stored in plain form.
    ///
    /// # Errors
    /// Memory is exhausted.
    pub(crate) fn new(key: Option<&Key>) -> Result<Self, LoginError> {
        let key = key.map(|key| UnboundKey::new(&AES_256_GCM, key.expose()).map(LessSafeKey::new));
        Ok(Self {
            key: key
                .transpose()
                .map_err(|_| LoginError::Internal("cannot create the cipher of second factors"))?,
        })
    }

    /// The account's id is authenticated too, so that a stored secret cannot be moved to another account.
    pub(crate) fn seal(&self, account: AccountId, secret: &[u8]) -> Result<Vec<u8>, LoginError> {
        let Some(key) = &self.key else { return Ok([&[PLAIN], secret].concat()) };
        let nonce: [u8; NONCE_LEN] = random::bytes()?;
        let mut sealed = secret.to_vec();
        key.seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(account.0.to_be_bytes()),
            &mut sealed,
        )
        .map_err(|_| LoginError::Internal("a second factor cannot be encrypted"))?;
        Ok([&[SEALED], &nonce[..], &sealed].concat())
    }

    pub(crate) fn open(&self, account: AccountId, stored: &[u8]) -> Result<Secret<Vec<u8>>, LoginError> {
        let damaged = LoginError::Internal(
            "a second factor cannot be decrypted; is login.second_factor_secret another key?",
        );
        match (stored.split_first(), &self.key) {
            (Some((&PLAIN, secret)), _) => Ok(Secret::new(secret.to_vec())),
            (Some((&SEALED, rest)), Some(key)) if rest.len() > NONCE_LEN => {
                let (nonce, sealed) = rest.split_at(NONCE_LEN);
                let nonce =
                    Nonce::try_assume_unique_for_key(nonce).map_err(|_| LoginError::Internal("a nonce"))?;
                let mut opened = sealed.to_vec();
                let aad = Aad::from(account.0.to_be_bytes());
                match key.open_in_place(nonce, aad, &mut opened) {
                    Ok(secret) => Ok(Secret::new(secret.to_vec())),
                    Err(_) => Err(damaged),
                }
            }
            _ => Err(damaged),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_secret_opens_only_for_its_account_and_key() {
        let account = AccountId(7);
        let (open, shut) =
            (SecretCipher::new(None).unwrap(), SecretCipher::new(Some(&Key::new([1; 32]))).unwrap());
        let other = SecretCipher::new(Some(&Key::new([2; 32]))).unwrap();
        let secret = b"12345678901234567890";
        let (plain, sealed) = (open.seal(account, secret).unwrap(), shut.seal(account, secret).unwrap());
        assert!(!sealed.windows(8).any(|part| part == &secret[..8]));
        assert_ne!(sealed, shut.seal(account, secret).unwrap(), "each seal has a new nonce");
        // Plain secrets stay readable after a key was set.
        for (secret_cipher, stored) in [(&open, &plain), (&shut, &plain), (&shut, &sealed)] {
            assert_eq!(secret_cipher.open(account, stored).unwrap().expose(), secret);
        }
        assert!(open.open(account, &sealed).is_err() && other.open(account, &sealed).is_err());
        assert!(shut.open(AccountId(8), &sealed).is_err());
        assert!(shut.open(account, &sealed[..10]).is_err() && shut.open(account, &[]).is_err());
    }
}
