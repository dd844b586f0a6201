//! Counts of the results of one attack's attempts.

use std::{collections::BTreeMap, time::Duration};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// Counts of one attack, as they are reported.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    pub attempts: u64,
    /// The server did for it what it does for an honest client, or still waited for it at the end.
    pub accepted: u64,
    /// Answered with an error, closed, or ignored.
    pub refused: u64,
    /// The server did what it must not.
    pub breaches: u64,
    /// How they ended, by a word each.
    pub why: BTreeMap<String, u64>,
    /// How long the server kept the one that it kept longest.
    pub longest_ms: u64,
    /// A first breach, and whatever else is worth a line.
    pub remarks: Vec<String>,
}

/// Remarks kept; more say the same again.
const MAX_REMARKS: usize = 4;
/// Words kept for why attempts ended; what is beyond is counted together.
const MAX_REASONS: usize = 32;

#[derive(Debug, Default)]
pub struct Tally(Mutex<Counts>);

impl Tally {
    pub fn attempt(&self) {
        self.0.lock().attempts += 1;
    }

    pub fn attempts(&self, more: u64) {
        self.0.lock().attempts += more;
    }

    pub fn accepted(&self, why: &str) {
        let mut counts = self.0.lock();
        counts.accepted += 1;
        counts.count_reason(why, 1);
    }

    pub fn refused(&self, why: &str) {
        self.refused_many(why, 1);
    }

    pub fn refused_many(&self, why: &str, many: u64) {
        let mut counts = self.0.lock();
        counts.refused += many;
        counts.count_reason(why, many);
    }

    pub fn accepted_many(&self, why: &str, many: u64) {
        let mut counts = self.0.lock();
        counts.accepted += many;
        counts.count_reason(why, many);
    }

    /// The server did what it must not.
    pub fn breach(&self, text: &str) {
        let mut counts = self.0.lock();
        counts.breaches += 1;
        counts.count_reason("BREACH", 1);
        counts.remark(text);
    }

    pub fn record_duration(&self, time: Duration) {
        let mut counts = self.0.lock();
        counts.longest_ms = counts.longest_ms.max(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    }

    pub fn remark(&self, text: &str) {
        self.0.lock().remark(text);
    }

    pub fn counts(&self) -> Counts {
        self.0.lock().clone()
    }
}

impl Counts {
    fn count_reason(&mut self, why: &str, many: u64) {
        let known = self.why.contains_key(why) || self.why.len() < MAX_REASONS;
        *self.why.entry(if known { why.to_owned() } else { "other".to_owned() }).or_default() += many;
    }

    fn remark(&mut self, text: &str) {
        if self.remarks.len() < MAX_REMARKS && !self.remarks.iter().any(|known| known == text) {
            self.remarks.push(text.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_and_remarks_are_bounded() {
        let tally = Tally::default();
        for number in 0..100 {
            tally.attempt();
            tally.refused(&format!("reason {number}"));
            tally.breach(&format!("breach {number}"));
        }
        let counts = tally.counts();
        assert_eq!((counts.attempts, counts.refused, counts.breaches), (100, 100, 100));
        assert_eq!(counts.why.values().sum::<u64>(), 200);
        assert!(counts.why.len() <= MAX_REASONS + 1 && counts.remarks.len() == MAX_REMARKS);
    }
}
