//! Hashes of operators' passwords: argon2id with the parameters that OWASP recommends (19 MiB, 2 passes). Only a few
//! hashes are computed at once, so many attempts cannot use up memory.

use std::sync::{Arc, OnceLock};

use argon2::{
    Argon2,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use shardkeep_names::prepare_password;
use shardkeep_types::Secret;
use tokio::sync::Semaphore;

/// Shortest accepted password.
pub(crate) const MIN_CHARS: usize = 10;
/// Hashes computed at once, and attempts that may wait for one. Further attempts get [`PasswordError::Busy`].
const MAX_CONCURRENT: usize = 2;
const MAX_WAITING: usize = 16;

/// Computes and checks hashes on threads outside of the async runtime.
#[derive(Clone)]
pub(crate) struct Passwords {
    running: Arc<Semaphore>,
    admitted: Arc<Semaphore>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum PasswordError {
    #[error("a password must have at least {MIN_CHARS} characters")]
    Short,
    #[error(transparent)]
    Invalid(#[from] shardkeep_names::PasswordError),
    #[error("too many operators sign in at once; try again in a few seconds")]
    Busy,
    #[error("the password could not be hashed: {0}")]
    Hash(String),
}

impl Passwords {
    pub(crate) fn new() -> Self {
        Self {
            running: Arc::new(Semaphore::new(MAX_CONCURRENT)),
            admitted: Arc::new(Semaphore::new(MAX_CONCURRENT + MAX_WAITING)),
        }
    }

    /// Hashes a new password, in PHC string format.
    pub(crate) async fn hash(&self, password: Secret<String>) -> Result<String, PasswordError> {
        let password = Secret::new(prepare_password(password.expose())?);
        if password.expose().chars().count() < MIN_CHARS {
            return Err(PasswordError::Short);
        }
        self.run(move || hash(password.expose())).await?
    }

    /// Whether the password matches the hash. Without a hash (the operator is unknown or has no password), or with a
    /// password that cannot be set, the result is false after the same amount of work.
    pub(crate) async fn verify(
        &self,
        password: Secret<String>,
        hash: Option<String>,
    ) -> Result<bool, PasswordError> {
        let prepared = prepare_password(password.expose());
        let possible = prepared.is_ok() && hash.is_some();
        let password = Secret::new(prepared.unwrap_or_default());
        self.run(move || {
            let hash = hash.as_deref().or_else(|| dummy_hash().as_deref()).map(PasswordHash::new);
            let Some(Ok(hash)) = hash else { return false };
            Argon2::default().verify_password(password.expose().as_bytes(), &hash).is_ok() && possible
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PasswordError> {
        let _admitted = self.admitted.try_acquire().map_err(|_| PasswordError::Busy)?;
        let _running = self.running.acquire().await.map_err(|_| PasswordError::Busy)?;
        tokio::task::spawn_blocking(work).await.map_err(|error| PasswordError::Hash(error.to_string()))
    }
}

fn hash(password: &str) -> Result<String, PasswordError> {
    let hashed = Argon2::default().hash_password(password.as_bytes());
    hashed.map(|hash| hash.to_string()).map_err(|error| PasswordError::Hash(error.to_string()))
}

/// A hash for comparisons whose result is ignored.
fn dummy_hash() -> &'static Option<String> {
    static HASH: OnceLock<Option<String>> = OnceLock::new();
    HASH.get_or_init(|| hash("not the password of any operator").ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret<String> {
        Secret::new(text.to_owned())
    }

    #[tokio::test]
    async fn verify_accepts_only_the_correct_password() {
        let passwords = Passwords::new();
        let hash = passwords.hash(secret("correct horse")).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert!(passwords.verify(secret("correct horse"), Some(hash.clone())).await.unwrap());
        assert!(!passwords.verify(secret("correct house"), Some(hash)).await.unwrap());
        assert!(!passwords.verify(secret("not the password of any operator"), None).await.unwrap());
        assert!(!passwords.verify(secret("x"), Some("no hash".into())).await.unwrap());
    }

    #[tokio::test]
    async fn password_of_wrong_length_or_with_controls_is_refused() {
        let passwords = Passwords::new();
        assert!(matches!(passwords.hash(secret("short")).await, Err(PasswordError::Short)));
        for wrong in ["x".repeat(129), "correct\u{7}horse".into()] {
            assert!(matches!(passwords.hash(secret(&wrong)).await, Err(PasswordError::Invalid(_))));
        }
    }

    #[tokio::test]
    async fn composed_and_decomposed_passwords_are_equal() {
        let passwords = Passwords::new();
        let hash = passwords.hash(secret("p\u{e9}ch\u{e9} melba")).await.unwrap();
        assert!(passwords.verify(secret("pe\u{301}che\u{301} melba"), Some(hash)).await.unwrap());
    }
}
