//! Waiting for a database that is not there yet: daemons start in any order, and a database may start last.

use std::time::{Duration, Instant};

use super::{Database, Schema};
use crate::Error;

const INITIAL_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(2);
/// How often the same cause is told again.
const REPEAT_LOG_AFTER: Duration = Duration::from_secs(30);

impl Database {
    /// Like [`Database::open`], and waits for as long as the database is away. Says at once what keeps it.
    ///
    /// # Errors
    /// Those of [`Database::open`] that waiting does not mend.
    pub async fn open_with_retry(url: &str, schema: Schema) -> Result<Self, Error> {
        let mut backoff = INITIAL_BACKOFF;
        let mut last_logged: Option<(String, Instant)> = None;
        loop {
            let error = match Self::open(url, schema).await {
                Err(error) if error.is_unavailable() => error,
                outcome => return outcome,
            };
            let reason = with_causes(&error);
            let logged = last_logged
                .as_ref()
                .is_some_and(|(logged, at)| *logged == reason && at.elapsed() < REPEAT_LOG_AFTER);
            if !logged {
                tracing::warn!(error = reason, "waiting for the database");
                last_logged = Some((reason, Instant::now()));
            }
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(MAX_BACKOFF);
        }
    }
}

/// The error and what caused it, in one line: not every log shows causes by itself.
fn with_causes(error: &Error) -> String {
    let first = std::error::Error::source(error);
    let causes = std::iter::successors(first, |cause| cause.source());
    causes.fold(error.to_string(), |line, cause| format!("{line}: {cause}"))
}

#[cfg(test)]
mod tests {
    use shardkeep_testkit::Postgres;

    use super::*;

    #[tokio::test]
    async fn open_with_retry_waits_for_late_database() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let nowhere = format!("postgres://postgres@{free}/postgres");
        let error = Database::open(&nowhere, Schema::Gm).await.unwrap_err();
        let last_logged = with_causes(&error);
        assert!(
            last_logged.starts_with(&format!("the database at {free} does not answer: ")),
            "{last_logged}"
        );
        assert!(last_logged.contains("refused"), "{last_logged}");
        let waiting = Database::open_with_retry(&nowhere, Schema::Gm);
        assert!(tokio::time::timeout(Duration::from_millis(300), waiting).await.is_err());

        let server = Postgres::start().await;
        Database::open_with_retry(&server.url(), Schema::Gm).await.unwrap();
    }
}
