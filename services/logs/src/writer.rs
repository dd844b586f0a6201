//! The one task that writes: takes batches from the queue, each into the file of its day, and opens and closes days
//! as they come and go.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use sqlx::{Connection, SqliteConnection};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{Archive, Clock, Config, Day, day::timestamp, metrics, record::Record};

/// Records of one transaction.
const BATCH: usize = 2_000;

pub struct Writer {
    archive: Archive,
    clock: Clock,
    /// Full: the receiver drops further records, counts them and tells the sender.
    queue: mpsc::Receiver<Record>,
    flush: Duration,
    retention_days: u32,
    open: BTreeMap<Day, SqliteConnection>,
    today: Option<Day>,
}

impl Writer {
    /// The writer, and the sending end of its queue.
    pub fn new(archive: Archive, config: &Config, clock: Clock) -> (Self, mpsc::Sender<Record>) {
        let (sender, queue) = mpsc::channel(config.queue);
        let retention_days = config.retention_days;
        let writer = Self {
            archive,
            clock,
            queue,
            flush: config.flush,
            retention_days,
            open: BTreeMap::new(),
            today: None,
        };
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
                        // Gathers: one transaction for many records, not one for each.
                        stop.run_until_cancelled(tokio::time::sleep(self.flush)).await;
                    }
                }
            }
        }
        self.queue.close();
        while self.queue.recv_many(&mut batch, BATCH).await > 0 {
            self.write(&mut batch).await;
        }
        for (_, connection) in std::mem::take(&mut self.open) {
            let _ = connection.close().await;
        }
    }

    async fn write(&mut self, batch: &mut Vec<Record>) {
        metrics::waiting(self.queue.len());
        let today = Day::of((self.clock)());
        self.roll_over(today).await;
        let mut by_day: BTreeMap<Day, Vec<Record>> = BTreeMap::new();
        for record in batch.drain(..) {
            by_day.entry(file_day(&record, today)).or_default().push(record);
        }
        for (day, records) in by_day {
            let began = Instant::now();
            match self.write_day(day, &records).await {
                Ok(()) => metrics::written(records.len(), began.elapsed()),
                Err(error) => {
                    error!(%error, %day, records = records.len(), "records lost");
                    metrics::lost("store", records.len());
                }
            }
        }
    }

    /// Tries again once with a new connection: the file may have been moved away.
    async fn write_day(&mut self, day: Day, records: &[Record]) -> Result<(), sqlx::Error> {
        let mut connection = match self.open.remove(&day) {
            Some(connection) => connection,
            None => self.archive.write(day).await?,
        };
        if let Err(error) = insert(&mut connection, records).await {
            warn!(%error, %day, "writing failed, trying again");
            connection = self.archive.write(day).await?;
            insert(&mut connection, records).await?;
        }
        self.open.insert(day, connection);
        Ok(())
    }

    /// When a new day has begun: folds the days that get no more records, and removes those beyond retention.
    async fn roll_over(&mut self, today: Day) {
        if self.today == Some(today) {
            return;
        }
        self.today = Some(today);
        info!(%today, "a new day");
        let current = self.open.split_off(&today.before(1));
        for (_, connection) in std::mem::replace(&mut self.open, current) {
            Archive::finish(connection).await;
        }
        match self.archive.remove_before(today.before(self.retention_days - 1)) {
            Ok(kept) => metrics::days_kept(kept),
            Err(error) => warn!(%error, "old days could not be removed"),
        }
    }
}

/// The day of the record, if that is today or yesterday; what claims another time is kept under today.
fn file_day(record: &Record, today: Day) -> Day {
    let record_day = Day::from_micros(record.micros);
    if record_day == today.before(1) { record_day } else { today }
}

const INSERT: &str = "INSERT INTO log \
    (time, daemon, instance, level, target, message, event, account, character, session, attributes) \
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

async fn insert(connection: &mut SqliteConnection, records: &[Record]) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin().await?;
    for record in records {
        sqlx::query(INSERT)
            .bind(timestamp(record.micros))
            .bind(&record.daemon)
            .bind(&record.instance)
            .bind(&record.level)
            .bind(&record.target)
            .bind(&record.message)
            .bind(&record.event)
            .bind(&record.account)
            .bind(&record.character)
            .bind(&record.session)
            .bind(&record.attributes)
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await
}
