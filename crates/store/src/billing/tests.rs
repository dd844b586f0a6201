//! The rules of play time, on both engines.

use shardkeep_testkit::Postgres;
use shardkeep_types::{AccountId, Epoch, SessionId, WorldId};

use super::*;
use crate::{Schema, sql};

const HOUR: u64 = 3_600_000;
const MINUTE: u64 = 60_000;

macro_rules! on_both_engines {
    ($($scenario:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test]
            async fn $scenario() {
                let folder = tempfile::tempdir().unwrap();
                let url = format!("sqlite:{}", folder.path().join("billing.db").display());
                super::$scenario(&super::open(&url).await).await;
            })+
        }
        mod postgres {
            $(#[tokio::test]
            async fn $scenario() {
                let server = super::Postgres::start().await;
                super::$scenario(&super::open(&server.url()).await).await;
            })+
        }
    };
}

on_both_engines! {
    clock_is_monotonic_and_counts_once,
    credit_is_idempotent_and_charged_once,
    moved_session_is_not_counted_twice,
    low_balance_is_warned_once,
    concurrent_reports_charge_once,
    stale_gateway_does_not_end_clock,
    stale_gateway_does_not_advance_clock,
    concurrent_gateway_reports_keep_highest_epoch,
}

async fn open(url: &str) -> Billing {
    Billing::new(Database::open(url, Schema::Billing).await.unwrap())
}

fn clock(session: u8, account: u64, started_ms: u64, played_ms: u64) -> ClockReport {
    ClockReport {
        session: SessionId([session; 16]),
        account: AccountId(account),
        world: WorldId(1),
        started_ms,
        played_ms,
        ended: false,
        epoch: Epoch(1),
    }
}

async fn time_left(billing: &Billing, account: u64) -> (Option<u64>, u64) {
    assert_eq!(billing.check_conservation().await.unwrap(), Vec::<String>::new());
    let standing = billing.show(AccountId(account)).await.unwrap();
    (standing.left_ms, standing.played_ms)
}

async fn clock_is_monotonic_and_counts_once(billing: &Billing) {
    assert_eq!(time_left(billing, 1).await, (None, 0));
    billing.report(&[clock(1, 1, 0, 500), clock(2, 2, 0, 100), clock(1, 1, 0, 700)]).await.unwrap();
    billing.report(&[clock(1, 1, 0, 600)]).await.unwrap();
    let ended = ClockReport { ended: true, ..clock(1, 1, 0, 900) };
    billing.report(std::slice::from_ref(&ended)).await.unwrap();
    billing.report(&[ended, clock(1, 1, 0, 650)]).await.unwrap();
    assert_eq!(time_left(billing, 1).await, (None, 900));
    assert_eq!(time_left(billing, 2).await, (None, 100));
    billing.report(&[]).await.unwrap();
}

async fn credit_is_idempotent_and_charged_once(billing: &Billing) {
    billing.report(&[clock(1, 1, 0, 5_000)]).await.unwrap();
    let credit = |hours, key| billing.credit(AccountId(1), hours, key, "paid");
    assert_eq!(credit(1, "a").await.unwrap(), HOUR);
    assert_eq!(credit(1, "a").await.unwrap(), HOUR, "a repeat is answered");
    assert_eq!(credit(2, "a").await.unwrap_err().label(), "key_conflict");
    assert_eq!(billing.credit(AccountId(2), 1, "a", "").await.unwrap_err().label(), "key_conflict");
    assert_eq!(credit(0, "b").await.unwrap_err().label(), "invalid");
    // Time played on the free plan stays free.
    billing.report(&[clock(1, 1, 0, 5_000 + MINUTE)]).await.unwrap();
    billing.report(&[clock(1, 1, 0, 5_000 + MINUTE)]).await.unwrap();
    assert_eq!(time_left(billing, 1).await, (Some(HOUR - MINUTE), 5_000 + MINUTE));
    billing.report(&[clock(1, 1, 0, 3 * HOUR)]).await.unwrap();
    assert_eq!(time_left(billing, 1).await, (Some(0), 3 * HOUR), "nobody owes time");
    assert_eq!(credit(2, "b").await.unwrap(), 2 * HOUR);
    let all = [2, 1, 3, 1].map(AccountId);
    assert_eq!(Vec::from_iter(billing.time_left(&all).await.unwrap()), [(AccountId(1), 2 * HOUR)]);
    assert!(billing.time_left(&[]).await.unwrap().is_empty());
}

async fn moved_session_is_not_counted_twice(billing: &Billing) {
    billing.credit(AccountId(1), 1, "a", "").await.unwrap();
    billing.report(&[clock(1, 1, 0, 10_000)]).await.unwrap();
    billing.report(&[clock(1, 1, 12_000, 1_000)]).await.unwrap();
    // The session's former gateway stalled, and still counts.
    billing.report(&[clock(1, 1, 0, 60_000)]).await.unwrap();
    assert_eq!(time_left(billing, 1).await, (Some(HOUR - 13_000), 13_000));
}

async fn low_balance_is_warned_once(billing: &Billing) {
    billing.credit(AccountId(1), 1, "a", "").await.unwrap();
    billing.credit(AccountId(2), 1, "b", "").await.unwrap();
    let nearly = |session, account| clock(session, account, 0, HOUR - 5 * MINUTE);
    billing.report(&[nearly(1, 1), ClockReport { ended: true, ..nearly(2, 2) }]).await.unwrap();
    let due = billing.low_balances(10 * MINUTE, 3 * MINUTE).await.unwrap();
    assert_eq!(due.iter().map(|due| due.account.0).collect::<Vec<_>>(), [1], "who has ended does not play");
    assert!(due[0].left_ms <= 5 * MINUTE && due[0].left_ms > 4 * MINUTE, "{due:?}");
    assert!(billing.low_balances(MINUTE, 3 * MINUTE).await.unwrap().is_empty());
    assert!(billing.claim_warning(AccountId(1), 10 * MINUTE).await.unwrap());
    assert!(!billing.claim_warning(AccountId(1), 10 * MINUTE).await.unwrap());
    assert!(billing.claim_warning(AccountId(1), MINUTE).await.unwrap());
    assert!(!billing.claim_warning(AccountId(1), 10 * MINUTE).await.unwrap());
    billing.release_warning(AccountId(1), 10 * MINUTE).await.unwrap();
    assert!(!billing.claim_warning(AccountId(1), 10 * MINUTE).await.unwrap(), "the more urgent one stands");
    billing.release_warning(AccountId(1), MINUTE).await.unwrap();
    assert!(
        billing.claim_warning(AccountId(1), MINUTE).await.unwrap(),
        "who was not reached is warned again"
    );
    billing.credit(AccountId(1), 1, "c", "").await.unwrap();
    assert!(billing.claim_warning(AccountId(1), 10 * MINUTE).await.unwrap());
    // Time passes between reports; a session without reports for long does not count as playing.
    billing.database.execute(sql("UPDATE clocks SET seen_ms = seen_ms - 120000")).await.unwrap();
    billing.report(&[clock(1, 1, 0, 2 * HOUR - MINUTE)]).await.unwrap();
    billing.database.execute(sql("UPDATE clocks SET seen_ms = seen_ms - 120000")).await.unwrap();
    assert_eq!(billing.low_balances(MINUTE, 3 * MINUTE).await.unwrap()[0].left_ms, 0);
    assert!(billing.low_balances(MINUTE, MINUTE).await.unwrap().is_empty());
}

async fn concurrent_reports_charge_once(billing: &Billing) {
    billing.credit(AccountId(1), 1, "a", "").await.unwrap();
    let reports = [clock(1, 1, 0, MINUTE)];
    let all = tokio::join!(billing.report(&reports), billing.report(&reports), billing.report(&reports));
    all.0.and(all.1).and(all.2).unwrap();
    assert_eq!(time_left(billing, 1).await, (Some(HOUR - MINUTE), MINUTE));
}

/// Whether the account plays and has less than ten minutes left, so that it would be warned or disconnected.
async fn has_low_balance(billing: &Billing, account: u64) -> bool {
    let due = billing.low_balances(10 * MINUTE, 3 * MINUTE).await.unwrap();
    due.iter().any(|due| due.account == AccountId(account))
}

async fn stale_gateway_does_not_end_clock(billing: &Billing) {
    for (session, epochs) in [(1, [1, 2]), (2, [2, 1])] {
        let account = u64::from(session);
        billing.credit(AccountId(account), 1, &account.to_string(), "").await.unwrap();
        for epoch in epochs {
            // The gateway of epoch 1 stalled, and its copy of the session waits for a client in vain.
            let report = clock(session, account, 0, HOUR - 5 * MINUTE);
            billing
                .report(&[ClockReport { ended: epoch == 1, epoch: Epoch(epoch), ..report }])
                .await
                .unwrap();
        }
        assert!(
            has_low_balance(billing, account).await,
            "it goes on at the gateway of epoch 2; order {epochs:?}"
        );
        let end = |epoch| ClockReport {
            ended: true,
            epoch: Epoch(epoch),
            ..clock(session, account, 0, HOUR - 4 * MINUTE)
        };
        billing.report(&[end(2)]).await.unwrap();
        assert!(!has_low_balance(billing, account).await);
        let goes_on = ClockReport { ended: false, ..end(2) };
        billing.report(&[goes_on]).await.unwrap();
        assert!(!has_low_balance(billing, account).await, "an older report of the same gateway");
        // Both in one call: the session has returned to the gateway where its clock ended.
        billing.report(&[end(2), ClockReport { ended: false, ..end(3) }]).await.unwrap();
        assert!(has_low_balance(billing, account).await);
    }
}

async fn stale_gateway_does_not_advance_clock(billing: &Billing) {
    billing.credit(AccountId(1), 1, "a", "").await.unwrap();
    let at = |epoch, played_ms| ClockReport { epoch: Epoch(epoch), ..clock(1, 1, 0, played_ms) };
    billing.report(&[at(1, MINUTE)]).await.unwrap();
    billing.report(&[ClockReport { ended: true, ..at(2, 2 * MINUTE) }]).await.unwrap();
    billing.report(&[at(1, 9 * MINUTE)]).await.unwrap();
    assert_eq!(time_left(billing, 1).await, (Some(HOUR - 2 * MINUTE), 2 * MINUTE));
}

async fn concurrent_gateway_reports_keep_highest_epoch(billing: &Billing) {
    let (live, stale) = (Epoch(2), Epoch(1));
    for session in 1..=20 {
        let live = [ClockReport { epoch: live, ..clock(session, 1, 0, MINUTE) }];
        let stale = [ClockReport { ended: true, epoch: stale, ..clock(session, 1, 0, 2 * MINUTE) }];
        let (live, stale) = tokio::join!(billing.report(&live), billing.report(&stale));
        live.and(stale).unwrap();
    }
    let ended = billing.database.fetch_all(sql("SELECT session FROM clocks WHERE ended = 1 OR epoch <> 2"));
    assert!(ended.await.unwrap().is_empty());
}
