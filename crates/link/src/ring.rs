//! Batches that were sent and not yet acknowledged, numbered from 1 and bounded. After a reset the other side tells
//! how many it has, and the ring tells whether the link can continue from there.

use std::collections::VecDeque;

/// Sent batches of one direction of a link. Bound: bytes. Overflow: the oldest batch is dropped, and a reset that
/// would need it makes the link start anew.
#[derive(Debug)]
pub(crate) struct Ring<B> {
    kept: VecDeque<SentBatch<B>>,
    bytes: usize,
    max_bytes: usize,
    /// Number of the newest batch ever pushed.
    last: u64,
    /// Number of the newest batch the other side has.
    acknowledged: u64,
}

#[derive(Debug)]
struct SentBatch<B> {
    batch: B,
    bytes: usize,
}

impl<B: Clone> Ring<B> {
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self { kept: VecDeque::new(), bytes: 0, max_bytes, last: 0, acknowledged: 0 }
    }

    /// Keeps a batch and returns its number.
    pub(crate) fn push(&mut self, batch: B, bytes: usize) -> u64 {
        self.last += 1;
        self.kept.push_back(SentBatch { batch, bytes });
        self.bytes += bytes;
        while self.bytes > self.max_bytes && self.kept.len() > 1 {
            self.forget_oldest();
        }
        self.last
    }

    pub(crate) fn get(&self, number: u64) -> Option<&B> {
        let index = number.checked_sub(self.first())?;
        Some(&self.kept.get(usize::try_from(index).ok()?)?.batch)
    }

    /// The other side has everything up to `number`. Numbers never sent are ignored.
    pub(crate) fn acknowledge(&mut self, number: u64) {
        if number > self.last {
            return;
        }
        self.acknowledged = self.acknowledged.max(number);
        while !self.kept.is_empty() && self.first() <= number {
            self.forget_oldest();
        }
    }

    /// Whether every batch after `received` is still here, and `received` was sent.
    pub(crate) fn can_resume(&self, received: u64) -> bool {
        received <= self.last && received + 1 >= self.first()
    }

    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Number of the oldest kept batch, or of the next one when none is kept.
    fn first(&self) -> u64 {
        self.last + 1 - self.kept.len() as u64
    }

    fn forget_oldest(&mut self) {
        if let Some(kept) = self.kept.pop_front() {
            self.bytes -= kept.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledged_batches_are_dropped() {
        let mut ring = Ring::new(100);
        assert_eq!((1..=3).map(|n| ring.push(n * 10, 10)).collect::<Vec<u64>>(), [1, 2, 3]);
        ring.acknowledge(2);
        assert_eq!((ring.get(2), ring.get(3)), (None, Some(&30)));
        assert_eq!(ring.bytes(), 10);
        assert!(ring.can_resume(2) && ring.can_resume(3));
        assert!(!ring.can_resume(1), "batch 2 is gone");
        assert!(!ring.can_resume(4), "batch 4 was never sent");
    }

    #[test]
    fn ring_over_byte_limit_drops_oldest() {
        let mut ring = Ring::new(25);
        for n in 1..=4u64 {
            ring.push(n, 10);
        }
        assert_eq!((ring.get(2), ring.get(3)), (None, Some(&3)));
        assert!(ring.can_resume(2) && !ring.can_resume(1));
    }

    #[test]
    fn newest_batch_is_kept_whatever_its_size() {
        let mut ring = Ring::new(5);
        ring.push((), 100);
        assert!(ring.can_resume(0));
    }

    #[test]
    fn acknowledgement_of_unsent_batch_is_ignored() {
        let mut ring = Ring::new(100);
        ring.push((), 1);
        ring.acknowledge(9);
        assert!(ring.can_resume(0));
    }
}
