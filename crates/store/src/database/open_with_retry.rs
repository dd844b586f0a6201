//! Opens a database that may start after the daemon.

use std::time::{Duration, Instant};

use super::{handle::Database, migrate::Schema};
use crate::Error;

const INITIAL_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(2);
/// How often the log repeats the same cause.
const REPEAT_LOG_AFTER: Duration = Duration::from_secs(30);

impl Database {
    /// Like [`Database::open`], and retries while the database is unavailable. The log states the cause at once.
    ///
    /// # Errors
    /// Those of [`Database::open`] that a retry cannot cure.
    pub async fn open_with_retry(url: &str, schema: Schema) -> Result<Self, Error> {
        let mut backoff = INITIAL_BACKOFF;
        let mut last_logged: Option<(String, Instant)> = None;
        loop {
            let error = match Self::open(url, schema).await {
                Err(error) if error.is_unavailable() => error,
                outcome => return outcome,
            };
            let reason = error.with_causes();
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

#[cfg(test)]
mod tests {
    use shardkeep_testkit::Postgres;

    use super::*;

    #[tokio::test]
    async fn open_with_retry_waits_for_late_database() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let nowhere = format!("postgres://postgres@{free}/postgres");
        let error = Database::open(&nowhere, Schema::Gm).await.unwrap_err();
        let last_logged = error.with_causes();
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
