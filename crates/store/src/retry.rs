//! Repeats transactions after a conflict with another one.

use crate::{Database, Error, Query, Row};

/// A conflict rolls a transaction back, so a repeat is safe. The sixth conflict in a row is an error for the caller.
const ATTEMPTS: u32 = 6;

/// Counts the attempts of one transaction; see [`transact!`](crate::transact).
#[derive(Debug, Default)]
pub struct Retry(u32);

impl Retry {
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether to run the transaction again after this error.
    pub fn should_retry(&mut self, error: Option<&Error>) -> bool {
        self.0 += 1;
        matches!(error, Some(Error::Contention(_))) && self.0 < ATTEMPTS
    }
}

/// Runs a statement that is a transaction by itself, and repeats it after a conflict. Returns its rows.
pub(crate) async fn execute_with_retry(database: &Database, statement: &Query) -> Result<Vec<Row>, Error> {
    let mut retry = Retry::new();
    loop {
        match database.execute_returning(statement.clone()).await {
            Err(error) if retry.should_retry(Some(&error)) => {}
            outcome => return outcome,
        }
    }
}

/// Runs `$body`, a future that borrows the transaction `$tx`, and commits it; repeats both after a conflict. `$body`
/// and the macro yield a `Result` whose error type implements `From<Error>` and has a method `fn store(&self) ->
/// Option<&Error>` like that of [`Error`].
#[macro_export]
macro_rules! transact {
    ($database:expr, |$tx:ident| $body:expr) => {{
        let mut retry = $crate::Retry::new();
        loop {
            let mut $tx = match $database.begin().await {
                Ok(tx) => tx,
                Err(error) if retry.should_retry(Some(&error)) => continue,
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
                Err(error) if retry.should_retry(error.store()) => {}
                other => break other,
            }
        }
    }};
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use shardkeep_testkit::Postgres;
    use tokio::sync::Barrier;

    use crate::{Database, Error, Schema, Tx, sql};

    /// Locks the two rows in this order. The first attempt waits between them for the other transaction.
    async fn increment(
        tx: &mut Tx,
        names: [&str; 2],
        waited: &mut bool,
        barrier: &Barrier,
    ) -> Result<(), Error> {
        let increment = |name| sql("UPDATE sequences SET next = next + 1 WHERE name = $1").bind(name);
        tx.execute(increment(names[0])).await?;
        if !std::mem::replace(waited, true) {
            barrier.wait().await;
        }
        tx.execute(increment(names[1])).await?;
        Ok(())
    }

    #[tokio::test]
    async fn deadlock_victim_retries() {
        let server = Postgres::start().await;
        let database = Database::open(&server.url(), Schema::Game).await.unwrap();
        database.execute(sql("INSERT INTO sequences (name, next) VALUES ('a', 0), ('b', 0)")).await.unwrap();
        let barrier = Arc::new(Barrier::new(2));
        let run_transaction = |names| {
            let (database, barrier) = (database.clone(), Arc::clone(&barrier));
            async move {
                let mut waited = false;
                let done: Result<(), Error> =
                    transact!(database, |tx| increment(&mut tx, names, &mut waited, &barrier));
                done
            }
        };
        let (forward, backward) = tokio::join!(run_transaction(["a", "b"]), run_transaction(["b", "a"]));
        forward.and(backward).unwrap();
        let rows = database.fetch_all(sql("SELECT next FROM sequences")).await.unwrap();
        for mut row in rows {
            assert_eq!(row.take::<i64>().unwrap(), 2);
        }
    }
}
