//! Session clocks: metered for every account, charged on prepaid plans.

use std::collections::{BTreeMap, BTreeSet};

use shardkeep_types::{AccountId, Epoch, SessionId, WorldId};

use super::Billing;
use crate::{Error, Rows, Tx, sql, transact};

/// The state of a session's clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClockReport {
    pub session: SessionId,
    pub account: AccountId,
    pub world: WorldId,
    /// Milliseconds since the Unix epoch.
    pub started_ms: u64,
    /// Milliseconds played since then.
    pub played_ms: u64,
    pub ended: bool,
    /// Epoch of the session at the reporting gateway.
    pub epoch: Epoch,
}

/// Part of a session, from one start of its clock to the next.
type Key = (SessionId, u64);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Clock {
    account: u64,
    world: u32,
    played_ms: u64,
    charged_ms: u64,
    ended: bool,
    epoch: u64,
    changed: bool,
}

impl Billing {
    /// Records reports. Each counts once, however often it is repeated, and a clock never goes back. A gateway that
    /// has lost a session to another without noticing cannot end or advance its clock.
    pub async fn report(&self, reports: &[ClockReport]) -> Result<(), Error> {
        if reports.is_empty() {
            return Ok(());
        }
        transact!(self.database, |tx| report_in(&mut tx, reports))
    }
}

async fn report_in(tx: &mut Tx, reports: &[ClockReport]) -> Result<(), Error> {
    // Locks the plans first, so that concurrent reports of one account charge each time only once.
    let mut plans = lock_plans(tx, reports).await?;
    let mut clocks = read_clocks(tx, reports).await?;
    let mut spent = BTreeSet::new();
    for report in reports {
        let limit = limit_to_next_stretch(&clocks, report);
        let clock = clocks.entry((report.session, report.started_ms)).or_insert_with(|| Clock {
            account: report.account.0,
            world: report.world.0,
            played_ms: 0,
            charged_ms: 0,
            ended: false,
            epoch: 0,
            changed: false,
        });
        if report.epoch.0 < clock.epoch {
            continue;
        }
        let played_ms = report.played_ms.min(limit).max(clock.played_ms);
        if let Some(left) = plans.get_mut(&clock.account) {
            let charge = (played_ms - clock.played_ms).min(*left);
            *left -= charge;
            clock.charged_ms += charge;
            if charge > 0 {
                spent.insert(clock.account);
            }
        }
        clock.played_ms = played_ms;
        // The gateway with the higher epoch decides whether the session has ended.
        clock.ended = report.ended || (clock.ended && report.epoch.0 == clock.epoch);
        clock.epoch = report.epoch.0;
        clock.changed = true;
    }
    clocks.retain(|_, clock| clock.changed);
    write_clocks(tx, &clocks).await?;
    write_charges(tx, &clocks).await?;
    plans.retain(|account, _| spent.contains(account));
    write_plans(tx, &plans).await
}

/// A clock ends where the session's next one begins, so a stalled gateway cannot advance it further.
fn limit_to_next_stretch(clocks: &BTreeMap<Key, Clock>, report: &ClockReport) -> u64 {
    let after = (report.session, report.started_ms + 1)..=(report.session, u64::MAX);
    clocks.range(after).next().map_or(u64::MAX, |((_, next), _)| next - report.started_ms)
}

async fn lock_plans(tx: &mut Tx, reports: &[ClockReport]) -> Result<BTreeMap<u64, u64>, Error> {
    let accounts: BTreeSet<u64> = reports.iter().map(|report| report.account.0).collect();
    let query = sql("SELECT account, left_ms FROM plans WHERE account IN (SELECT r.account FROM {rows})
         ORDER BY account {for_update}");
    let mut plans = BTreeMap::new();
    for mut row in tx.fetch_all(query.rows(Rows::new().ints("account", accounts))).await? {
        plans.insert(row.take()?, row.take()?);
    }
    Ok(plans)
}

async fn read_clocks(tx: &mut Tx, reports: &[ClockReport]) -> Result<BTreeMap<Key, Clock>, Error> {
    let sessions: BTreeSet<SessionId> = reports.iter().map(|report| report.session).collect();
    let rows = Rows::new().blobs("session", sessions.iter().map(SessionId::as_bytes));
    let query = sql("SELECT session, started_ms, account, world, played_ms, charged_ms, ended, epoch
         FROM clocks
         WHERE session IN (SELECT r.session FROM {rows})");
    let mut clocks = BTreeMap::new();
    for mut row in tx.fetch_all(query.rows(rows)).await? {
        let session: Vec<u8> = row.take()?;
        let session = SessionId::try_from(&session[..]).map_err(|error| Error::Corrupt(error.to_string()))?;
        let key = (session, row.take()?);
        let clock = Clock {
            account: row.take()?,
            world: row.take()?,
            played_ms: row.take()?,
            charged_ms: row.take()?,
            ended: row.take()?,
            epoch: row.take()?,
            changed: false,
        };
        clocks.insert(key, clock);
    }
    Ok(clocks)
}

/// Of two concurrent reports on an account without a plan, the one with the higher epoch stays; with equal epochs,
/// the longer one.
async fn write_clocks(tx: &mut Tx, clocks: &BTreeMap<Key, Clock>) -> Result<(), Error> {
    let query =
        sql("INSERT INTO clocks (session, started_ms, account, world, played_ms, charged_ms, ended, epoch, seen_ms)
         SELECT r.session, r.started_ms, r.account, r.world, r.played_ms, r.charged_ms, r.ended, r.epoch, {now_ms}
         FROM {rows} WHERE true
         ON CONFLICT (session, started_ms) DO UPDATE SET
             played_ms = CASE WHEN clocks.played_ms > excluded.played_ms THEN clocks.played_ms
                 ELSE excluded.played_ms END,
             charged_ms = CASE WHEN clocks.charged_ms > excluded.charged_ms THEN clocks.charged_ms
                 ELSE excluded.charged_ms END,
             ended = CASE WHEN clocks.epoch = excluded.epoch AND clocks.ended > excluded.ended THEN clocks.ended
                 ELSE excluded.ended END,
             epoch = excluded.epoch,
             seen_ms = excluded.seen_ms
         WHERE clocks.epoch <= excluded.epoch");
    let rows = Rows::new()
        .blobs("session", clocks.keys().map(|(session, _)| session.as_bytes()))
        .ints("started_ms", clocks.keys().map(|(_, started)| *started))
        .ints("account", clocks.values().map(|clock| clock.account))
        .ints("world", clocks.values().map(|clock| clock.world))
        .ints("played_ms", clocks.values().map(|clock| clock.played_ms))
        .ints("charged_ms", clocks.values().map(|clock| clock.charged_ms))
        .ints("ended", clocks.values().map(|clock| clock.ended))
        .ints("epoch", clocks.values().map(|clock| clock.epoch));
    tx.execute(query.rows(rows)).await?;
    Ok(())
}

async fn write_charges(tx: &mut Tx, clocks: &BTreeMap<Key, Clock>) -> Result<(), Error> {
    let charged = || clocks.iter().filter(|(_, clock)| clock.charged_ms > 0);
    if charged().next().is_none() {
        return Ok(());
    }
    let query = sql("INSERT INTO time_ledger (key, at_ms, reason, source, target, amount_ms)
         SELECT r.key, {now_ms}, 'played', r.source, r.target, r.amount_ms FROM {rows} WHERE true
         ON CONFLICT (key) DO UPDATE SET at_ms = excluded.at_ms, amount_ms = excluded.amount_ms");
    let rows = Rows::new()
        .texts("key", charged().map(|((session, started), _)| format!("session:{session}:{started}")))
        .texts("source", charged().map(|(_, clock)| format!("a:{}", clock.account)))
        .texts("target", charged().map(|(_, clock)| format!("played:{}", clock.account)))
        .ints("amount_ms", charged().map(|(_, clock)| clock.charged_ms));
    tx.execute(query.rows(rows)).await?;
    Ok(())
}

async fn write_plans(tx: &mut Tx, plans: &BTreeMap<u64, u64>) -> Result<(), Error> {
    if plans.is_empty() {
        return Ok(());
    }
    let query = sql("UPDATE plans SET left_ms = r.left_ms FROM {rows} WHERE plans.account = r.account");
    let rows = Rows::new().ints("account", plans.keys().copied()).ints("left_ms", plans.values().copied());
    tx.execute(query.rows(rows)).await?;
    Ok(())
}
