//! The files that are open for writing, and their bounds in days and bytes.

use std::{collections::BTreeMap, io, time::Instant};

use sqlx::{Connection, SqliteConnection};
use tracing::{info, warn};

use crate::{Archive, Config, Day, metrics, record::Record, retention::Retention, row};

pub(crate) struct Storage {
    archive: Archive,
    open: BTreeMap<Day, SqliteConnection>,
    retention: Option<Retention>,
    retention_days: u32,
    max_bytes: u64,
    today: Option<Day>,
}

impl Storage {
    pub(crate) fn new(archive: Archive, config: &Config) -> Self {
        Self {
            archive,
            open: BTreeMap::new(),
            retention: None,
            retention_days: config.retention_days,
            max_bytes: config.max_bytes,
            today: None,
        }
    }

    /// Closes the days that get no more records, and removes the records beyond the bounds. Called before each batch.
    pub(crate) async fn maintain(&mut self, today: Day, now: Instant) {
        if self.today != Some(today) {
            self.today = Some(today);
            info!(%today, "a new day");
            let current = self.open.split_off(&today.before(1));
            for (_, connection) in std::mem::replace(&mut self.open, current) {
                Archive::finish(connection).await;
            }
        }
        if let Err(error) = self.apply_retention(today, now).await {
            warn!(%error, "old days cannot be removed");
        }
        if let Err(error) = self.apply_size_limit(today).await {
            warn!(%error, "the size of the log files cannot be limited");
        }
    }

    async fn apply_retention(&mut self, today: Day, now: Instant) -> io::Result<()> {
        let retention = match &mut self.retention {
            Some(retention) => retention,
            None => {
                let empty = self.archive.days()?.is_empty();
                let opened = Retention::open(self.archive.folder(), self.retention_days, empty, today)?;
                self.retention.insert(opened)
            }
        };
        let Some(oldest) = retention.oldest_day_to_keep(today, now) else { return Ok(()) };
        for day in self.archive.days()?.into_iter().take_while(|day| *day < oldest) {
            self.remove(day).await?;
        }
        Ok(())
    }

    /// Removes the oldest days, and then the oldest records of the last one, until the files fit.
    async fn apply_size_limit(&mut self, today: Day) -> Result<(), sqlx::Error> {
        let mut days = self.archive.days()?;
        let mut total: u64 = days.iter().map(|day| self.archive.bytes(*day)).sum();
        while total > self.max_bytes && days.len() > 1 {
            let day = days.remove(0);
            let bytes = self.archive.bytes(day);
            warn!(%day, bytes, limit = self.max_bytes, "the log files reached logs.max_bytes; the oldest day is removed");
            self.remove(day).await?;
            metrics::removed_for_space();
            total = total.saturating_sub(bytes);
        }
        metrics::storage(days.len(), total, self.max_bytes);
        if total > self.max_bytes && self.open.contains_key(&today) {
            self.trim(today).await?;
        }
        Ok(())
    }

    /// Removes the oldest tenth of a day's records when its rows take more than the limit. The file keeps its size, and
    /// further records use the space.
    async fn trim(&mut self, day: Day) -> Result<(), sqlx::Error> {
        let Some(connection) = self.open.get_mut(&day) else { return Ok(()) };
        let pages = "SELECT (SELECT page_count FROM pragma_page_count) - (SELECT freelist_count FROM pragma_freelist_count)";
        let pages: i64 = sqlx::query_scalar(pages).fetch_one(&mut *connection).await?;
        let page_bytes: i64 = sqlx::query_scalar("PRAGMA page_size").fetch_one(&mut *connection).await?;
        // A tenth of the limit is left for the index of full text and the write-ahead log.
        if u64::try_from(pages.saturating_mul(page_bytes)).unwrap_or(0)
            <= self.max_bytes - self.max_bytes / 10
        {
            return Ok(());
        }
        let oldest_tenth = "DELETE FROM log WHERE id <= (SELECT min(id) + (max(id) - min(id)) / 10 FROM log)";
        let removed = sqlx::query(oldest_tenth).execute(&mut *connection).await?.rows_affected();
        sqlx::raw_sql("PRAGMA wal_checkpoint(TRUNCATE)").execute(connection).await?;
        warn!(%day, removed, limit = self.max_bytes, "the log files reached logs.max_bytes; the oldest records are removed");
        metrics::removed_for_space();
        Ok(())
    }

    async fn remove(&mut self, day: Day) -> io::Result<()> {
        if let Some(connection) = self.open.remove(&day) {
            // The file goes with its last records.
            let _ = connection.close().await;
        }
        self.archive.remove(day)
    }

    /// Writes records into the file of a day. Tries once again with a new connection, because the file may have been moved.
    pub(crate) async fn write(&mut self, day: Day, records: &[Record]) -> Result<(), sqlx::Error> {
        let mut connection = match self.open.remove(&day) {
            Some(connection) => connection,
            None => self.archive.write(day).await?,
        };
        if let Err(error) = row::insert(&mut connection, records).await {
            warn!(%error, %day, "writing failed, trying again");
            connection = self.archive.write(day).await?;
            row::insert(&mut connection, records).await?;
        }
        self.open.insert(day, connection);
        Ok(())
    }

    pub(crate) async fn close(self) {
        for (_, connection) in self.open {
            let _ = connection.close().await;
        }
    }
}
