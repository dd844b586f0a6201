//! Records that wait for the collector: encoded, one behind the other, in the batches in which they will leave.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Records that wait; further ones are dropped, and counted.
const MAX_RECORDS: usize = 8192;
/// Most bytes of records that wait. Records of the usual size need a quarter of this.
const MAX_BYTES: usize = 8 << 20;
/// A batch is full at this many records or bytes.
const MAX_BATCH_RECORDS: usize = 512;
const MAX_BATCH_BYTES: usize = 1 << 20;

#[derive(Default)]
pub(super) struct Queue {
    queued: Mutex<QueuedRecords>,
    /// Something waits where nothing did.
    not_empty: Notify,
    dropped: AtomicU64,
}

#[derive(Default)]
struct QueuedRecords {
    batches: VecDeque<OpenBatch>,
    count: usize,
    bytes: usize,
    closed: bool,
}

struct OpenBatch {
    records: BytesMut,
    count: usize,
    opened_at: Instant,
}

/// Records that leave together, each with its key and length.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Batch {
    pub(super) records: Bytes,
    pub(super) count: u64,
}

impl Queue {
    /// Never waits: a record for which there is no room is dropped.
    pub(super) fn push(&self, record: &[u8]) {
        let first = {
            let mut queued = self.queued.lock();
            if !queued.has_capacity(record) {
                drop(queued);
                self.dropped.fetch_add(1, Ordering::Relaxed);
                return;
            }
            queued.push(record)
        };
        if first {
            self.not_empty.notify_one();
        }
    }

    /// Waits until something waits.
    pub(super) async fn wait_until_filled(&self) {
        while self.queued.lock().batches.is_empty() {
            self.not_empty.notified().await;
        }
    }

    /// The next batch, if it is full or its first record has waited for this long.
    pub(super) fn take(&self, linger: Duration) -> Option<Batch> {
        let mut queued = self.queued.lock();
        let due = queued.batches.len() > 1 || queued.batches.front()?.is_due(linger);
        if due { queued.take() } else { None }
    }

    /// The next batch, whatever it holds.
    pub(super) fn take_any(&self) -> Option<Batch> {
        self.queued.lock().take()
    }

    /// From now on everything is dropped.
    pub(super) fn close(&self) {
        self.queued.lock().closed = true;
    }

    /// Records dropped since this was last asked.
    pub(super) fn take_dropped(&self) -> u64 {
        self.dropped.swap(0, Ordering::Relaxed)
    }
}

impl QueuedRecords {
    fn has_capacity(&self, record: &[u8]) -> bool {
        !self.closed && self.count < MAX_RECORDS && self.bytes + record.len() <= MAX_BYTES
    }

    /// True if nothing waited.
    fn push(&mut self, record: &[u8]) -> bool {
        let first = self.batches.is_empty();
        let has_room = |last: &OpenBatch| {
            last.count < MAX_BATCH_RECORDS && last.records.len() + record.len() <= MAX_BATCH_BYTES
        };
        if !self.batches.back().is_some_and(has_room) {
            self.batches.push_back(OpenBatch {
                records: BytesMut::new(),
                count: 0,
                opened_at: Instant::now(),
            });
        }
        if let Some(last) = self.batches.back_mut() {
            last.records.extend_from_slice(record);
            last.count += 1;
        }
        self.count += 1;
        self.bytes += record.len();
        first
    }

    fn take(&mut self) -> Option<Batch> {
        let OpenBatch { records, count, .. } = self.batches.pop_front()?;
        self.count -= count;
        self.bytes -= records.len();
        Some(Batch { records: records.freeze(), count: count as u64 })
    }
}

impl OpenBatch {
    fn is_due(&self, linger: Duration) -> bool {
        self.count >= MAX_BATCH_RECORDS || self.opened_at.elapsed() >= linger
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batch_is_taken_when_full_or_after_linger() {
        let queue = Queue::default();
        queue.push(b"a");
        queue.push(b"b");
        assert_eq!(queue.take(Duration::MAX), None);
        assert_eq!(queue.take(Duration::ZERO), Some(Batch { records: "ab".into(), count: 2 }));
        (0..=MAX_BATCH_RECORDS).for_each(|_| queue.push(b"c"));
        let full = queue.take(Duration::MAX).unwrap();
        assert_eq!((full.count, full.records.len()), (MAX_BATCH_RECORDS as u64, MAX_BATCH_RECORDS));
        assert_eq!(queue.take(Duration::MAX), None, "the rest waits for more");
        assert_eq!(queue.take_any().unwrap().count, 1);
        let large = vec![0; MAX_BATCH_BYTES];
        queue.push(&large);
        queue.push(b"d");
        assert_eq!(queue.take(Duration::MAX).unwrap().count, 1, "a batch stays below what a collector takes");
    }

    #[test]
    fn records_over_the_limit_are_dropped_and_counted() {
        let queue = Queue::default();
        (0..MAX_RECORDS + 5).for_each(|_| queue.push(b"x"));
        assert_eq!((queue.take_dropped(), queue.take_dropped()), (5, 0));
        while queue.take_any().is_some() {}
        let large = vec![0; MAX_BATCH_BYTES];
        (0..MAX_BYTES / MAX_BATCH_BYTES + 2).for_each(|_| queue.push(&large));
        assert_eq!(queue.take_dropped(), 2);
        while queue.take_any().is_some() {}
        queue.close();
        queue.push(b"late");
        assert_eq!((queue.take_dropped(), queue.take_any()), (1, None));
    }

    #[tokio::test]
    async fn first_record_wakes_the_exporter() {
        let queue = std::sync::Arc::new(Queue::default());
        let wait_until_filled = tokio::spawn({
            let queue = queue.clone();
            async move { queue.wait_until_filled().await }
        });
        tokio::task::yield_now().await;
        queue.push(b"x");
        tokio::time::timeout(Duration::from_secs(30), wait_until_filled).await.unwrap().unwrap();
    }
}
