//! Polls the store for generations that rose, whichever replica raised them.

use std::{sync::Arc, time::Duration, time::Instant};

use shardkeep_store::{
    Database,
    accounts::revocations::{self, RevocationPage},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    accounts::revocations::{
        hub::Revocations,
        window::{PollResult, Window},
    },
    outage::Outage,
};

const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// Revocations read at a time.
const PAGE: u32 = 10_000;

/// Polls until `stop`. While the store does not answer nothing is lost: polling continues from the same point.
pub(crate) async fn follow(
    database: Database,
    revocations: Arc<Revocations>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut window = None;
    let mut outage = Outage::default();
    while stop.run_until_cancelled(tokio::time::sleep(POLL_INTERVAL)).await.is_some() {
        match poll(&database, &revocations, &mut window).await {
            Ok(()) => outage.recovered(),
            Err(error) => {
                outage.note(&error, "cannot read revocations; they follow when the account store answers");
            }
        }
    }
    Ok(())
}

async fn poll(
    database: &Database,
    revocations: &Revocations,
    window: &mut Option<Window>,
) -> Result<(), shardkeep_store::Error> {
    let asked = Instant::now();
    let Some(window) = window else {
        let now_ms = revocations::now(database).await?;
        *window = Some(Window::new(asked, Instant::now(), now_ms));
        return Ok(());
    };
    let excluded_process = revocations.excluded_process(window, asked);
    let RevocationPage { now_ms, found } =
        revocations::since(database, window.begin_ms(), excluded_process, PAGE).await?;
    let answered = Instant::now();
    let full_at_ms = found.last().filter(|_| found.len() == PAGE as usize).map(|newest| newest.at_ms);
    if let Some(back) = window.record_poll(&PollResult { asked, answered, now_ms, full_at_ms }) {
        warn!(seconds = back.as_secs_f64(), "the clock of the account store's database was set back");
    }
    revocations.publish(found, answered);
    Ok(())
}
