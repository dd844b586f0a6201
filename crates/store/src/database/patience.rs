//! Waiting for a database that is not there yet: daemons start in any order, and a database may start last.

use std::time::{Duration, Instant};

use super::{Database, Schema};
use crate::Error;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How often the same cause is told again.
const REMIND: Duration = Duration::from_secs(30);

impl Database {
    /// Like [`Database::open`], and waits for as long as the database is away. Says at once what keeps it.
    ///
    /// # Errors
    /// Those of [`Database::open`] that waiting does not mend.
    pub async fn open_patiently(url: &str, schema: Schema) -> Result<Self, Error> {
        let mut pause = FIRST_PAUSE;
        let mut told: Option<(String, Instant)> = None;
        loop {
            let error = match Self::open(url, schema).await {
                Err(error) if error.is_away() => error,
                outcome => return outcome,
            };
            let why = with_causes(&error);
            let known = told.as_ref().is_some_and(|(known, at)| *known == why && at.elapsed() < REMIND);
            if !known {
                tracing::warn!(error = why, "waiting for the database");
                told = Some((why, Instant::now()));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
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
    async fn a_database_that_starts_late_is_waited_for() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let nowhere = format!("postgres://postgres@{free}/postgres");
        let error = Database::open(&nowhere, Schema::Gm).await.unwrap_err();
        let told = with_causes(&error);
        assert!(told.starts_with(&format!("the database at {free} does not answer: ")), "{told}");
        assert!(told.contains("refused"), "{told}");
        let waiting = Database::open_patiently(&nowhere, Schema::Gm);
        assert!(tokio::time::timeout(Duration::from_millis(300), waiting).await.is_err());

        let server = Postgres::start().await;
        Database::open_patiently(&server.url(), Schema::Gm).await.unwrap();
    }
}
