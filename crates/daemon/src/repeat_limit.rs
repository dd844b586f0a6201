//! Limits repeated warnings: a client that causes one warning per request must not fill the disk.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use metrics::{counter, describe_counter};
use parking_lot::Mutex;
use shardkeep_types::TokenBucket;
use tokio_util::sync::CancellationToken;
use tracing::{Event, Level, Subscriber, callsite::Identifier, warn};
use tracing_subscriber::layer::{Context, Layer};

/// Warnings and errors of one place in the code that pass at once, and the time until another one passes.
const BURST: u32 = 20;
const INTERVAL: Duration = Duration::from_secs(1);
/// How often the number of suppressed records is logged.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);
const SUPPRESSED: &str = "shardkeep_log_suppressed_records_total";

/// Suppresses warnings and errors that one place in the code repeats. Clones share their counts.
///
/// Bound: one entry per place in the code that logs.
#[derive(Clone, Default)]
pub(crate) struct RepeatLimit(Arc<Mutex<HashMap<Identifier, Place>>>);

struct Place {
    target: &'static str,
    line: u32,
    bucket: TokenBucket,
    suppressed: u64,
}

impl RepeatLimit {
    fn passes(&self, event: &Event<'_>, now: Instant) -> bool {
        let metadata = event.metadata();
        let mut places = self.0.lock();
        let place = places.entry(metadata.callsite()).or_insert_with(|| Place {
            target: metadata.target(),
            line: metadata.line().unwrap_or(0),
            bucket: TokenBucket::default(),
            suppressed: 0,
        });
        let passes = place.bucket.take_every(INTERVAL, BURST, now).is_ok();
        place.suppressed += u64::from(!passes);
        passes
    }

    /// Logs and counts what was suppressed since the last call.
    fn report(&self) {
        let mut suppressed = Vec::new();
        for place in self.0.lock().values_mut().filter(|place| place.suppressed > 0) {
            suppressed.push((place.target, place.line, std::mem::take(&mut place.suppressed)));
        }
        for (target, line, count) in suppressed {
            counter!(SUPPRESSED).increment(count);
            warn!(
                source = target,
                line, count, "log records were suppressed, because this place repeats them"
            );
        }
    }
}

/// Reports once a minute, until the daemon has finished.
pub(crate) async fn report(limit: RepeatLimit, finished: CancellationToken) -> anyhow::Result<()> {
    describe_counter!(
        SUPPRESSED,
        "Warnings and errors suppressed because one place in the code repeated them"
    );
    while finished.run_until_cancelled(tokio::time::sleep(REPORT_INTERVAL)).await.is_some() {
        limit.report();
    }
    limit.report();
    Ok(())
}

impl<S: Subscriber> Layer<S> for RepeatLimit {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        *event.metadata().level() > Level::WARN || self.passes(event, Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use tracing::info;
    use tracing_subscriber::{layer::SubscriberExt, registry};

    use super::*;

    /// Counts the events that pass.
    #[derive(Clone, Default)]
    struct Passed(Arc<Mutex<Vec<Level>>>);

    impl<S: Subscriber> Layer<S> for Passed {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            self.0.lock().push(*event.metadata().level());
        }
    }

    #[test]
    fn repeated_warning_is_suppressed_and_reported() {
        let (limit, passed) = (RepeatLimit::default(), Passed::default());
        tracing::subscriber::with_default(registry().with(limit.clone()).with(passed.clone()), || {
            for _ in 0..1_000 {
                warn!("a client failed");
                info!("progress");
            }
            warn!("another warning");
            let warnings = passed.0.lock().iter().filter(|level| **level == Level::WARN).count();
            // A slow machine refills the bucket once a second.
            assert!((21..=30).contains(&warnings), "{warnings}");
            assert_eq!(passed.0.lock().len() - warnings, 1_000, "only warnings are limited");
            limit.report();
            assert_eq!(passed.0.lock().iter().filter(|level| **level == Level::WARN).count(), warnings + 1);
            limit.report();
            assert_eq!(passed.0.lock().iter().filter(|level| **level == Level::WARN).count(), warnings + 1);
        });
    }
}
