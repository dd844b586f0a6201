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
const MOST: usize = 8192;
/// And their bytes: a quarter of it would do for records of the usual size.
const MOST_BYTES: usize = 8 << 20;
/// A batch is full at so many records or bytes.
const BATCH: usize = 512;
const BATCH_BYTES: usize = 1 << 20;

#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    /// Something waits where nothing did.
    some: Notify,
    dropped: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    batches: VecDeque<Filling>,
    count: usize,
    bytes: usize,
    closed: bool,
}

struct Filling {
    records: BytesMut,
    count: usize,
    since: Instant,
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
            let mut waiting = self.waiting.lock();
            if !waiting.takes(record) {
                drop(waiting);
                self.dropped.fetch_add(1, Ordering::Relaxed);
                return;
            }
            waiting.push(record)
        };
        if first {
            self.some.notify_one();
        }
    }

    /// Waits until something waits.
    pub(super) async fn filled(&self) {
        while self.waiting.lock().batches.is_empty() {
            self.some.notified().await;
        }
    }

    /// The next batch, if it is full or has waited for so long.
    pub(super) fn take(&self, linger: Duration) -> Option<Batch> {
        let mut waiting = self.waiting.lock();
        let due = waiting.batches.len() > 1 || waiting.batches.front()?.is_due(linger);
        if due { waiting.take() } else { None }
    }

    /// The next batch, whatever it holds.
    pub(super) fn take_any(&self) -> Option<Batch> {
        self.waiting.lock().take()
    }

    /// From now on everything is dropped.
    pub(super) fn close(&self) {
        self.waiting.lock().closed = true;
    }

    /// Records dropped since this was last asked.
    pub(super) fn take_dropped(&self) -> u64 {
        self.dropped.swap(0, Ordering::Relaxed)
    }
}

impl Waiting {
    fn takes(&self, record: &[u8]) -> bool {
        !self.closed && self.count < MOST && self.bytes + record.len() <= MOST_BYTES
    }

    /// True if nothing waited.
    fn push(&mut self, record: &[u8]) -> bool {
        let first = self.batches.is_empty();
        let has_room =
            |last: &Filling| last.count < BATCH && last.records.len() + record.len() <= BATCH_BYTES;
        if !self.batches.back().is_some_and(has_room) {
            self.batches.push_back(Filling { records: BytesMut::new(), count: 0, since: Instant::now() });
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
        let Filling { records, count, .. } = self.batches.pop_front()?;
        self.count -= count;
        self.bytes -= records.len();
        Some(Batch { records: records.freeze(), count: count as u64 })
    }
}

impl Filling {
    fn is_due(&self, linger: Duration) -> bool {
        self.count >= BATCH || self.since.elapsed() >= linger
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_leaves_when_it_is_full_or_has_waited() {
        let queue = Queue::default();
        queue.push(b"a");
        queue.push(b"b");
        assert_eq!(queue.take(Duration::MAX), None);
        assert_eq!(queue.take(Duration::ZERO), Some(Batch { records: "ab".into(), count: 2 }));
        (0..=BATCH).for_each(|_| queue.push(b"c"));
        let full = queue.take(Duration::MAX).unwrap();
        assert_eq!((full.count, full.records.len()), (BATCH as u64, BATCH));
        assert_eq!(queue.take(Duration::MAX), None, "the rest waits for more");
        assert_eq!(queue.take_any().unwrap().count, 1);
        let large = vec![0; BATCH_BYTES];
        queue.push(&large);
        queue.push(b"d");
        assert_eq!(queue.take(Duration::MAX).unwrap().count, 1, "a batch stays below what a collector takes");
    }

    #[test]
    fn what_does_not_fit_is_dropped_and_counted() {
        let queue = Queue::default();
        (0..MOST + 5).for_each(|_| queue.push(b"x"));
        assert_eq!((queue.take_dropped(), queue.take_dropped()), (5, 0));
        while queue.take_any().is_some() {}
        let large = vec![0; BATCH_BYTES];
        (0..MOST_BYTES / BATCH_BYTES + 2).for_each(|_| queue.push(&large));
        assert_eq!(queue.take_dropped(), 2);
        while queue.take_any().is_some() {}
        queue.close();
        queue.push(b"late");
        assert_eq!((queue.take_dropped(), queue.take_any()), (1, None));
    }

    #[tokio::test]
    async fn who_waits_is_woken_by_the_first() {
        let queue = std::sync::Arc::new(Queue::default());
        let filled = tokio::spawn({
            let queue = queue.clone();
            async move { queue.filled().await }
        });
        tokio::task::yield_now().await;
        queue.push(b"x");
        tokio::time::timeout(Duration::from_secs(30), filled).await.unwrap().unwrap();
    }
}
