//! Costs of messages by opcode: their number, bytes and time in this gateway. Messages and bytes are counted
//! completely. Time is measured for a sample and scaled up, because reading a clock costs as much as a small
//! message.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use metrics::counter;
use shardkeep_rpc::gateway as proto;
use shardkeep_wire::{
    opcode::{self, RULES},
    range::FIRST_STUDIO,
};

use crate::metrics::{OPCODE_BYTES, OPCODE_MESSAGES, OPCODE_MICROSECONDS};

/// One of this many records, writes and items is timed.
const SAMPLE: u64 = 64;
/// Rows for known opcodes; a test checks that they suffice.
const KNOWN_ROWS: usize = 128;
/// Opcodes of studios are counted in blocks of this size, so that clients cannot create rows by naming opcodes.
const BLOCK: u16 = 256;
const BLOCKS: usize = (u16::MAX - FIRST_STUDIO) as usize / BLOCK as usize + 1;

/// The costs of this process, like its metrics.
pub(crate) static COSTS: Costs =
    Costs { rows: [const { Row::new() }; KNOWN_ROWS + BLOCKS], seen: AtomicU64::new(0) };

pub(crate) struct Costs {
    rows: [Row; KNOWN_ROWS + BLOCKS],
    seen: AtomicU64,
}

struct Row {
    received: AtomicU64,
    received_bytes: AtomicU64,
    sent: AtomicU64,
    sent_bytes: AtomicU64,
    nanoseconds: AtomicU64,
}

impl Row {
    const fn new() -> Self {
        Self {
            received: AtomicU64::new(0),
            received_bytes: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
            nanoseconds: AtomicU64::new(0),
        }
    }
}

impl Costs {
    /// Counts a message of a client.
    pub(crate) fn received(&self, opcode: u16, bytes: usize) {
        if let Some(row) = self.row(opcode) {
            row.received.fetch_add(1, Relaxed);
            row.received_bytes.fetch_add(bytes as u64, Relaxed);
        }
    }

    /// Counts an encoded message to a client.
    pub(crate) fn sent(&self, message: &[u8]) {
        if let Some(row) = opcode_of(message).and_then(|opcode| self.row(opcode)) {
            row.sent.fetch_add(1, Relaxed);
            row.sent_bytes.fetch_add(message.len() as u64, Relaxed);
        }
    }

    /// Begins a measurement if it is due.
    pub(crate) fn sample(&self) -> Option<CostSample> {
        self.seen.fetch_add(1, Relaxed).is_multiple_of(SAMPLE).then(CostSample::new)
    }

    /// Divides the time since the measurement began among its messages, by bytes.
    pub(crate) fn charge(&self, sample: CostSample) {
        let all = sample.shares.iter().map(|(_, bytes)| bytes).sum::<u64>();
        let spent = nanoseconds(sample.started.elapsed()) * SAMPLE;
        for (opcode, bytes) in sample.shares {
            if let Some(row) = self.row(opcode) {
                row.nanoseconds.fetch_add(spent.saturating_mul(bytes) / all.max(1), Relaxed);
            }
        }
    }

    /// Opcodes that were used.
    pub(crate) fn list(&self) -> Vec<proto::Cost> {
        let used = |row: &Row| row.received.load(Relaxed) + row.sent.load(Relaxed) > 0;
        let rows = self.rows.iter().enumerate().filter(|(_, row)| used(row));
        rows.map(|(index, row)| proto::Cost {
            opcode: opcode_at(index).into(),
            name: name_at(index),
            received: row.received.load(Relaxed),
            received_bytes: row.received_bytes.load(Relaxed),
            sent: row.sent.load(Relaxed),
            sent_bytes: row.sent_bytes.load(Relaxed),
            microseconds: row.nanoseconds.load(Relaxed) / 1_000,
        })
        .collect()
    }

    /// Updates the metrics.
    pub(crate) fn publish(&self) {
        for cost in self.list() {
            for (direction, messages, bytes) in
                [("in", cost.received, cost.received_bytes), ("out", cost.sent, cost.sent_bytes)]
            {
                if messages > 0 {
                    let labels = [("opcode", cost.name.clone()), ("direction", direction.to_owned())];
                    counter!(OPCODE_MESSAGES, &labels).absolute(messages);
                    counter!(OPCODE_BYTES, &labels).absolute(bytes);
                }
            }
            counter!(OPCODE_MICROSECONDS, "opcode" => cost.name).absolute(cost.microseconds);
        }
    }

    fn row(&self, opcode: u16) -> Option<&Row> {
        let index = if opcode >= FIRST_STUDIO {
            KNOWN_ROWS + usize::from((opcode - FIRST_STUDIO) / BLOCK)
        } else {
            RULES.binary_search_by_key(&opcode, |rule| rule.opcode).ok()?
        };
        self.rows.get(index)
    }
}

/// A measurement: when it began, and the messages that were handled.
pub(crate) struct CostSample {
    started: Instant,
    shares: Vec<(u16, u64)>,
}

impl CostSample {
    fn new() -> Self {
        Self { started: Instant::now(), shares: Vec::new() }
    }

    /// Adds a message. Its fixed costs count like some more bytes.
    pub(crate) fn add(&mut self, opcode: u16, bytes: usize) {
        const MESSAGE_OVERHEAD: u64 = 32;
        self.shares.push((opcode, bytes as u64 + MESSAGE_OVERHEAD));
    }

    pub(crate) fn add_encoded(&mut self, message: &[u8]) {
        if let Some(opcode) = opcode_of(message) {
            self.add(opcode, message.len());
        }
    }
}

/// The opcode follows the flags.
fn opcode_of(message: &[u8]) -> Option<u16> {
    message.get(1..3)?.try_into().ok().map(u16::from_le_bytes)
}

fn opcode_at(index: usize) -> u16 {
    match index.checked_sub(KNOWN_ROWS) {
        Some(block) => FIRST_STUDIO + u16::try_from(block).unwrap_or_default() * BLOCK,
        None => RULES.get(index).map_or(0, |rule| rule.opcode),
    }
}

fn name_at(index: usize) -> String {
    let first = opcode_at(index);
    if index < KNOWN_ROWS {
        opcode::name(first).to_owned()
    } else {
        format!("{first:#06x}-{:#06x}", first + (BLOCK - 1))
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::array;

    use shardkeep_wire::{Head, Message};

    use super::*;

    fn costs() -> Costs {
        Costs { rows: array::from_fn(|_| Row::new()), seen: AtomicU64::new(0) }
    }

    #[test]
    fn every_opcode_has_a_row() {
        assert!(RULES.len() <= KNOWN_ROWS);
        let costs = costs();
        for rule in RULES {
            costs.received(rule.opcode, 10);
        }
        costs.received(FIRST_STUDIO, 1);
        costs.received(u16::MAX, 1);
        let list = costs.list();
        assert_eq!(list.len(), RULES.len() + 2);
        assert!(RULES.iter().zip(&list).all(|(rule, cost)| rule.name == cost.name && cost.received == 1));
        assert_eq!(list[list.len() - 1].name, "0xff00-0xffff");
    }

    #[test]
    fn unknown_opcodes_are_not_counted() {
        let costs = costs();
        costs.received(0x00ff, 10);
        costs.sent(&[]);
        assert!(costs.list().is_empty());
    }

    #[test]
    fn sampled_time_is_charged_to_opcodes_by_bytes() {
        let costs = costs();
        let (mut sample, none) = (costs.sample().expect("the first is timed"), costs.sample());
        assert!(none.is_none());
        let long = Message::new(opcode::CELL, Head::Event, [0; 200]).to_bytes();
        costs.sent(&long);
        costs.received(opcode::MOVE, 9);
        sample.add_encoded(&long);
        sample.add(opcode::MOVE, 9);
        sample.started -= Duration::from_millis(10);
        costs.charge(sample);
        let list = costs.list();
        let (moves, cells) = (&list[0], &list[1]);
        assert_eq!((moves.name.as_str(), cells.name.as_str()), ("Move", "Cell"));
        assert!(cells.microseconds > 3 * moves.microseconds && moves.microseconds > 0);
        assert!(cells.microseconds + moves.microseconds >= 10_000 * SAMPLE - 1);
    }
}
