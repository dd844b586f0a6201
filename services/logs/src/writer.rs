//! The task that writes. It takes batches from the queue and puts each record into the file of its day. While the disk
//! is full, a batch waits here and the queue fills behind it.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::{Archive, Clock, Config, Day, metrics, record::Record, storage::Storage};

/// Records of one transaction.
const BATCH: usize = 2_000;
/// Pause between attempts while the files cannot be written.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Called with the cause when the files cannot be written, and with `None` when they can be again.
type Report = Box<dyn Fn(Option<String>) + Send + Sync>;

pub struct Writer {
    storage: Storage,
    clock: Clock,
    /// When it is full, the receiver drops further records, counts them and tells the sender.
    queue: mpsc::Receiver<Record>,
    flush: Duration,
    report: Report,
}

impl Writer {
    /// The writer, and the sending end of its queue.
    pub fn new(archive: Archive, config: &Config, clock: Clock) -> (Self, mpsc::Sender<Record>) {
        let (sender, queue) = mpsc::channel(config.queue);
        let writer = Self {
            storage: Storage::new(archive, config),
            clock,
            queue,
            flush: config.flush,
            report: Box::new(|_| {}),
        };
        (writer, sender)
    }

    /// Calls `report` with the cause when the files cannot be written, and with `None` when they can be again.
    #[must_use]
    pub fn on_outage(mut self, report: impl Fn(Option<String>) + Send + Sync + 'static) -> Self {
        self.report = Box::new(report);
        self
    }

    /// Writes until `stop` is cancelled or every sender is dropped, and then the rest of the queue. When `give_up` is
    /// cancelled, records that cannot be written are lost.
    pub async fn run(mut self, stop: CancellationToken, give_up: CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH);
        while !stop.is_cancelled() {
            match stop.run_until_cancelled(self.queue.recv_many(&mut batch, BATCH)).await {
                Some(0) | None => break,
                Some(count) => {
                    self.write(&mut batch, &give_up).await;
                    if count < BATCH {
                        // One transaction for many records costs less than one for each.
                        stop.run_until_cancelled(tokio::time::sleep(self.flush)).await;
                    }
                }
            }
        }
        self.queue.close();
        while self.queue.recv_many(&mut batch, BATCH).await > 0 {
            self.write(&mut batch, &give_up).await;
        }
        self.storage.close().await;
    }

    async fn write(&mut self, batch: &mut Vec<Record>, give_up: &CancellationToken) {
        metrics::waiting(self.queue.len());
        let today = Day::of((self.clock)());
        self.storage.maintain(today, Instant::now()).await;
        let mut by_day: BTreeMap<Day, Vec<Record>> = BTreeMap::new();
        for record in batch.drain(..) {
            by_day.entry(file_day(&record, today)).or_default().push(record);
        }
        for (day, records) in by_day {
            let began = Instant::now();
            match self.write_when_possible(day, &records, give_up).await {
                Ok(()) => metrics::written(records.len(), began.elapsed()),
                Err(error) => {
                    error!(%error, %day, records = records.len(), "records lost");
                    metrics::lost("store", records.len());
                }
            }
        }
    }

    /// Retries while the files cannot be written, for example because the disk is full.
    async fn write_when_possible(
        &mut self,
        day: Day,
        records: &[Record],
        give_up: &CancellationToken,
    ) -> Result<(), sqlx::Error> {
        let mut began = None;
        loop {
            let error = match self.storage.write(day, records).await {
                Err(error) if is_temporary(&error) => error,
                outcome => {
                    if let Some(began) = began.map(|began: Instant| began.elapsed()) {
                        info!(outage = ?began, "log files can be written again");
                        (self.report)(None);
                    }
                    return outcome;
                }
            };
            if began.is_none() {
                error!(%error, %day, "log files cannot be written; records wait in memory");
                (self.report)(Some(format!("log files cannot be written: {error}")));
                began = Some(Instant::now());
            }
            if give_up.run_until_cancelled(tokio::time::sleep(RETRY_INTERVAL)).await.is_none() {
                return Err(error);
            }
        }
    }
}

/// Whether a later attempt may succeed: result codes of a full disk, a failed or read-only file system, and a lock.
fn is_temporary(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code()?.parse::<u32>().ok());
    // SQLITE_BUSY, SQLITE_LOCKED, SQLITE_READONLY, SQLITE_IOERR, SQLITE_FULL, SQLITE_CANTOPEN
    code.is_some_and(|code| matches!(code & 0xff, 5 | 6 | 8 | 10 | 13 | 14))
}

/// The day of the record, if that is today or yesterday. A record that claims another day is kept under today.
fn file_day(record: &Record, today: Day) -> Day {
    let record_day = Day::from_micros(record.micros);
    if record_day == today.before(1) { record_day } else { today }
}
