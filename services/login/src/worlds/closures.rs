//! The worlds that operators have closed to players, as in the store. All replicas see a change within half a second.
//! Login refuses players, and tells the gateways that follow it, which disconnect the players inside.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use shardkeep_rpc::accounts as proto;
use shardkeep_store::{Database, Error, accounts::closed_worlds};
use shardkeep_types::{AccountId, WorldId};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::outage::Outage;

const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Closed worlds; `None` before the first read of the store.
pub(crate) type Closed = Option<Arc<Closures>>;

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Closures {
    pub(crate) worlds: BTreeMap<WorldId, Closure>,
    /// The accounts that may be in closed worlds.
    staff: BTreeSet<AccountId>,
}

#[derive(Debug, Clone)]
pub(crate) struct Closure {
    /// The text for players.
    pub(crate) note: String,
    ends_ms: u64,
    /// `ends_ms` on this machine's clock.
    ends: Instant,
}

/// Compares what the store says, because `ends` drifts with the clock of this machine.
impl PartialEq for Closure {
    fn eq(&self, other: &Self) -> bool {
        (&self.note, self.ends_ms) == (&other.note, other.ends_ms)
    }
}

impl Eq for Closure {}

impl Closures {
    #[cfg(test)]
    pub(crate) fn of(world: u32, note: &str) -> Self {
        let closure = Closure { note: note.into(), ends_ms: 0, ends: Instant::now() };
        Self { worlds: BTreeMap::from([(WorldId(world), closure)]), staff: BTreeSet::new() }
    }

    /// The message for gateways.
    pub(crate) fn to_proto(&self, now: Instant) -> proto::Closures {
        let world = |(world, closure): (&WorldId, &Closure)| proto::Closure {
            world: world.0,
            note: closure.note.clone(),
            ends_ms: closure.ends_ms,
            left_ms: u64::try_from(closure.ends.saturating_duration_since(now).as_millis())
                .unwrap_or(u64::MAX),
        };
        proto::Closures {
            worlds: self.worlds.iter().map(world).collect(),
            staff: self.staff.iter().map(|account| account.0).collect(),
        }
    }
}

/// Keeps the view up to date until `stop`. While the store does not answer, the view stays as it was.
pub(crate) async fn follow(
    database: Database,
    view: watch::Sender<Closed>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut outage = Outage::default();
    loop {
        match poll(&database).await {
            Ok(now) => {
                outage.recovered();
                view.send_if_modified(|before| {
                    let changed = before.as_deref() != Some(&now);
                    if changed {
                        *before = Some(Arc::new(now));
                    }
                    changed
                });
            }
            Err(error) => outage.note(&error, "cannot read which worlds are closed; they stay as they were"),
        }
        if stop.run_until_cancelled(tokio::time::sleep(POLL_INTERVAL)).await.is_none() {
            return Ok(());
        }
    }
}

async fn poll(database: &Database) -> Result<Closures, Error> {
    let (closed, now) = (closed_worlds::list(database).await?, Instant::now());
    let staff = if closed.is_empty() { Vec::new() } else { closed_worlds::staff(database).await? };
    let closure = |it: closed_worlds::Closed| {
        (it.world, Closure { note: it.note, ends_ms: it.ends_ms, ends: now + it.left })
    };
    Ok(Closures { worlds: closed.into_iter().map(closure).collect(), staff: staff.into_iter().collect() })
}
