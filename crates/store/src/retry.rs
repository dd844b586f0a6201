//! Again, when another transaction was in the way.

use crate::Error;

/// A transaction that met another one has not happened; the sixth time in a row somebody should hear of it.
const ATTEMPTS: u32 = 6;

/// Counts the attempts of one transaction; see [`transact!`](crate::transact).
#[derive(Debug, Default)]
pub struct Retry(u32);

impl Retry {
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether to run the transaction again after this error.
    pub fn again(&mut self, error: Option<&Error>) -> bool {
        self.0 += 1;
        matches!(error, Some(Error::Contention(_))) && self.0 < ATTEMPTS
    }
}

/// Runs `$body`, a future that borrows the transaction `$tx`, and commits it; again if another transaction was in
/// the way. `$body` and the whole yield a `Result` whose error type has `From<Error>` and
/// `fn store(&self) -> Option<&Error>`, as [`Error`] has itself.
#[macro_export]
macro_rules! transact {
    ($database:expr, |$tx:ident| $body:expr) => {{
        let mut retry = $crate::Retry::new();
        loop {
            let mut $tx = match $database.begin().await {
                Ok(tx) => tx,
                Err(error) if retry.again(Some(&error)) => continue,
                Err(error) => break Err(error.into()),
            };
            let outcome = match $body.await {
                Ok(value) => $tx.commit().await.map(|()| value).map_err(Into::into),
                Err(error) => {
                    drop($tx);
                    Err(error)
                }
            };
            match outcome {
                Err(error) if retry.again(error.store()) => {}
                other => break other,
            }
        }
    }};
}
