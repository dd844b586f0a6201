//! Which worlds operators have closed to players, as the store says; all replicas see a change within half a second.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use shardkeep_store::{Database, accounts::closed_worlds};
use shardkeep_types::WorldId;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

const LOOK: Duration = Duration::from_millis(500);

/// Closed worlds, and what players are told.
pub(crate) type Closed = Arc<BTreeMap<WorldId, String>>;

/// Keeps the view up to date until told to stop. While the store is away it stays as it was.
pub(crate) async fn follow(
    database: Database,
    view: watch::Sender<Closed>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut away = false;
    loop {
        match closed_worlds::list(&database).await {
            Ok(closed) => {
                away = false;
                let now: BTreeMap<_, _> = closed.into_iter().map(|it| (it.world, it.note)).collect();
                view.send_if_modified(|before| {
                    let changed = **before != now;
                    if changed {
                        *before = Arc::new(now);
                    }
                    changed
                });
            }
            Err(error) if away => debug!(%error, "closed worlds can not be read"),
            Err(error) => {
                warn!(%error, "closed worlds can not be read; they stay as they were");
                away = true;
            }
        }
        if stop.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_none() {
            return Ok(());
        }
    }
}
