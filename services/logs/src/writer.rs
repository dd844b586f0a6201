//! The task that writes: it takes batches from the queue and puts each record into the file of its day.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::{Archive, Clock, Config, Day, metrics, record::Record, storage::Storage};

/// Records of one transaction.
const BATCH: usize = 2_000;

pub struct Writer {
    storage: Storage,
    clock: Clock,
    /// When it is full, the receiver drops further records, counts them and tells the sender.
    queue: mpsc::Receiver<Record>,
    flush: Duration,
}

impl Writer {
    /// The writer, and the sending end of its queue.
    pub fn new(archive: Archive, config: &Config, clock: Clock) -> (Self, mpsc::Sender<Record>) {
        let (sender, queue) = mpsc::channel(config.queue);
        let writer = Self { storage: Storage::new(archive, config), clock, queue, flush: config.flush };
        (writer, sender)
    }

    /// Writes until `stop` is cancelled or every sender is gone, then what is left in the queue.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH);
        while !stop.is_cancelled() {
            match stop.run_until_cancelled(self.queue.recv_many(&mut batch, BATCH)).await {
                Some(0) | None => break,
                Some(count) => {
                    self.write(&mut batch).await;
                    if count < BATCH {
                        // Waits for more: one transaction then holds many records.
                        stop.run_until_cancelled(tokio::time::sleep(self.flush)).await;
                    }
                }
            }
        }
        self.queue.close();
        while self.queue.recv_many(&mut batch, BATCH).await > 0 {
            self.write(&mut batch).await;
        }
        self.storage.close().await;
    }

    async fn write(&mut self, batch: &mut Vec<Record>) {
        metrics::waiting(self.queue.len());
        let today = Day::of((self.clock)());
        self.storage.maintain(today, Instant::now()).await;
        let mut by_day: BTreeMap<Day, Vec<Record>> = BTreeMap::new();
        for record in batch.drain(..) {
            by_day.entry(file_day(&record, today)).or_default().push(record);
        }
        for (day, records) in by_day {
            let began = Instant::now();
            match self.storage.write(day, &records).await {
                Ok(()) => metrics::written(records.len(), began.elapsed()),
                Err(error) => {
                    error!(%error, %day, records = records.len(), "records lost");
                    metrics::lost("store", records.len());
                }
            }
        }
    }
}

/// The day of the record, if that is today or yesterday. A record that claims another day is kept under today.
fn file_day(record: &Record, today: Day) -> Day {
    let record_day = Day::from_micros(record.micros);
    if record_day == today.before(1) { record_day } else { today }
}
