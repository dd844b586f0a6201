//! Warns players before their prepaid time runs out, and disconnects them when it has. Each check decides from the
//! database, so a restart forgets nothing and replicas do not warn twice. A warning that reached no session is
//! repeated at the next check.

use std::{future::Future, time::Duration};

use shardkeep_store::{Error, billing::Billing};
use shardkeep_types::AccountId;

use crate::metrics::{KICKS, RUNNING_OUT, WARNINGS};

const MINUTE_MS: u64 = 60_000;
/// A player gets a warning when less than each of these is left, the most urgent first.
const WARNINGS_MS: [u64; 2] = [MINUTE_MS, 10 * MINUTE_MS];

/// Sends warnings and disconnects to players.
pub(crate) trait PlayerNotifier: Send + Sync {
    /// Returns the number of sessions that received the text.
    fn announce(&self, account: AccountId, text: String) -> impl Future<Output = u32> + Send;
    /// Returns the number of sessions that were disconnected.
    fn kick(&self, account: AccountId) -> impl Future<Output = u32> + Send;
}

/// One check of all accounts that run out of time.
pub(crate) async fn enforce(
    ledger: &Billing,
    players: &impl PlayerNotifier,
    report_timeout: Duration,
) -> Result<(), Error> {
    let report_timeout_ms = u64::try_from(report_timeout.as_millis()).unwrap_or(u64::MAX);
    let due = ledger.low_balances(WARNINGS_MS[1], report_timeout_ms).await?;
    metrics::gauge!(RUNNING_OUT).set(due.len() as f64);
    for due in due {
        if due.left_ms == 0 {
            let ended = players.kick(due.account).await;
            if ended > 0 {
                metrics::counter!(KICKS).increment(ended.into());
                shardkeep_daemon::event!("play_time_over", account = due.account.0);
            }
            continue;
        }
        let Some(&below) = WARNINGS_MS.iter().find(|below| due.left_ms < **below) else { continue };
        if !ledger.claim_warning(due.account, below).await? {
            continue;
        }
        if players.announce(due.account, warning(below)).await == 0 {
            ledger.release_warning(due.account, below).await?;
            continue;
        }
        metrics::counter!(WARNINGS).increment(1);
    }
    Ok(())
}

fn warning(below_ms: u64) -> String {
    match below_ms / MINUTE_MS {
        1 => "Your play time ends in less than a minute.".to_owned(),
        minutes => format!("Your play time ends in less than {minutes} minutes."),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use parking_lot::Mutex;
    use shardkeep_store::{Database, Schema, billing::ClockReport};
    use shardkeep_types::{Epoch, SessionId, WorldId};

    use super::*;

    const HOUR_MS: u64 = 60 * MINUTE_MS;

    /// Records calls; every second announcement reaches no session.
    #[derive(Default)]
    struct RecordingPlayers(Mutex<Vec<String>>, AtomicU32);

    impl PlayerNotifier for RecordingPlayers {
        async fn announce(&self, account: AccountId, text: String) -> u32 {
            let reached = self.1.fetch_add(1, Ordering::Relaxed) % 2;
            if reached == 1 {
                self.0.lock().push(format!("{account}: {text}"));
            }
            reached
        }

        async fn kick(&self, account: AccountId) -> u32 {
            self.0.lock().push(format!("{account}: kicked"));
            1
        }
    }

    #[tokio::test]
    async fn player_is_warned_until_reached_then_kicked() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("billing.db").display());
        let ledger = Billing::new(Database::open(&url, Schema::Billing).await.unwrap());
        ledger.credit(AccountId(7), 1, "a", "").await.unwrap();
        let recorder = RecordingPlayers::default();
        for left_ms in
            [HOUR_MS, 11 * MINUTE_MS, 9 * MINUTE_MS, 8 * MINUTE_MS, MINUTE_MS / 2, MINUTE_MS / 3, 0]
        {
            let report = ClockReport {
                session: SessionId([1; 16]),
                account: AccountId(7),
                world: WorldId(1),
                started_ms: 0,
                played_ms: HOUR_MS - left_ms,
                ended: false,
                epoch: Epoch(1),
            };
            ledger.report(&[report]).await.unwrap();
            enforce(&ledger, &recorder, Duration::from_secs(60)).await.unwrap();
        }
        let expected = [
            "7: Your play time ends in less than 10 minutes.",
            "7: Your play time ends in less than a minute.",
            "7: kicked",
        ];
        assert_eq!(*recorder.0.lock(), expected);
    }
}
