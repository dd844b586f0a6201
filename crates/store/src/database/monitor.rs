//! Watches one database for a daemon, which is not ready while the database is unavailable. The monitor probes a database
//! that the daemon has not written to for a while.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::handle::Database;
use crate::{Error, sql};

/// An idle database is probed this often, so that a full disk shows before the next player needs it.
const IDLE_PROBE_INTERVAL: Duration = Duration::from_secs(10);
/// An unavailable database is probed this often, so that the daemon becomes ready soon after the repair.
const RECOVERY_PROBE_INTERVAL: Duration = Duration::from_secs(1);
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the log repeats the cause of an outage.
const REPEAT_LOG_AFTER: Duration = Duration::from_secs(60);

impl Database {
    /// Watches the database until `stop` resolves. Calls `report` with the cause of each outage, and with `None` at its
    /// end. The log states both. The result is never an error; its type suits the caller's task.
    pub async fn monitor<E>(
        self,
        stop: impl Future<Output = ()>,
        report: impl Fn(Option<String>),
    ) -> Result<(), E> {
        tokio::select! {
            () = stop => {}
            () = self.report_outages(&report) => {}
        }
        Ok(())
    }

    async fn report_outages(&self, report: &impl Fn(Option<String>)) {
        let mut health = self.health().subscribe();
        loop {
            let cause = self.wait_for_outage(&mut health).await;
            tracing::error!(store = self.schema().name(), cause, "the store is unavailable");
            report(Some(cause));
            let began = Instant::now();
            self.wait_for_recovery(&mut health, report).await;
            let outage = began.elapsed();
            tracing::info!(store = self.schema().name(), ?outage, "the store accepts writes again");
            report(None);
        }
    }

    async fn wait_for_outage(&self, health: &mut watch::Receiver<Option<String>>) -> String {
        loop {
            if let Some(cause) = health.borrow_and_update().clone() {
                return cause;
            }
            let idle = self.health().idle();
            tokio::select! {
                // `Health` holds the sender, so this never fails.
                _ = health.changed() => {}
                () = sleep(IDLE_PROBE_INTERVAL.saturating_sub(idle)) => self.probe().await,
            }
        }
    }

    async fn wait_for_recovery(
        &self,
        health: &mut watch::Receiver<Option<String>>,
        report: &impl Fn(Option<String>),
    ) {
        let mut logged_at = Instant::now();
        loop {
            tokio::select! {
                _ = health.changed() => {}
                () = sleep(RECOVERY_PROBE_INTERVAL) => self.probe().await,
            }
            let Some(cause) = health.borrow_and_update().clone() else { return };
            if logged_at.elapsed() >= REPEAT_LOG_AFTER {
                logged_at = Instant::now();
                tracing::error!(store = self.schema().name(), cause, "the store is still unavailable");
            }
            report(Some(cause));
        }
    }

    /// Writes one row. The health of the database records the outcome.
    async fn probe(&self) {
        let write =
            sql("INSERT INTO store_marks (schema_name, id, probed_ms) VALUES ($1, {random_id}, {now_ms}) \
             ON CONFLICT (schema_name) DO UPDATE SET probed_ms = excluded.probed_ms");
        let probe = self.execute(write.bind(self.schema().name()));
        if timeout(PROBE_TIMEOUT, probe).await.is_err() {
            let _ = self.health().record_read::<()>(Err(Error::Timeout));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use shardkeep_testkit::{Postgres, SmallDisk};
    use tokio::sync::mpsc;

    use super::*;
    use crate::Schema;

    /// The next report; fails the test if none comes in time.
    async fn next_report(reports: &mut mpsc::UnboundedReceiver<Option<String>>) -> Option<String> {
        timeout(Duration::from_secs(15), reports.recv()).await.expect("no report").expect("the monitor ended")
    }

    #[tokio::test]
    async fn monitor_reports_stopped_database_and_its_return() {
        let server = Postgres::dedicated().await;
        let database = Database::open(&server.url(), Schema::Gm).await.unwrap();
        let (sender, mut reports) = mpsc::unbounded_channel();
        let monitor = database.clone().monitor::<Error>(pending(), |cause| drop(sender.send(cause)));
        let outage = async {
            server.kill();
            let error = database.execute(sql("DELETE FROM operator_sessions")).await.unwrap_err();
            assert!(error.is_unavailable(), "{error}");
            assert!(next_report(&mut reports).await.is_some());
            server.restart();
            while next_report(&mut reports).await.is_some() {}
        };
        tokio::select! {
            _ = monitor => panic!("the monitor ended"),
            () = outage => {}
        }
    }

    #[tokio::test]
    async fn idle_database_on_full_disk_is_reported_by_probe() {
        let Some(disk) = SmallDisk::mount(4 << 20) else { return };
        let url = format!("sqlite:{}", disk.path().join("gm.db").display());
        let database = Database::open(&url, Schema::Gm).await.unwrap();
        let (sender, mut reports) = mpsc::unbounded_channel();
        let monitor = database.clone().monitor::<Error>(pending(), |cause| drop(sender.send(cause)));
        let outage = async {
            disk.fill();
            let cause = next_report(&mut reports).await.expect("a cause");
            assert!(cause.contains("full"), "{cause}");
            disk.free();
            while next_report(&mut reports).await.is_some() {}
        };
        tokio::select! {
            _ = monitor => panic!("the monitor ended"),
            () = outage => {}
        }
    }
}
