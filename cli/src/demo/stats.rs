//! Results of the headless players: one histogram and one count of failures for each step.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant},
};

use comfy_table::{CellAlignment, Table};
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use serde::Serialize;

use crate::terminal;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    Dns,
    Login,
    List,
    Attach,
    Enter,
    MoveSeen,
    Chat,
    Trade,
    PickUp,
    BorderStop,
    RoundTrip,
    Resume,
}

impl Step {
    pub const ALL: [Self; 12] = [
        Self::Dns,
        Self::Login,
        Self::List,
        Self::Attach,
        Self::Enter,
        Self::MoveSeen,
        Self::Chat,
        Self::Trade,
        Self::PickUp,
        Self::BorderStop,
        Self::RoundTrip,
        Self::Resume,
    ];

    /// Name for programs.
    pub fn key(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Login => "login",
            Self::List => "list",
            Self::Attach => "attach",
            Self::Enter => "enter",
            Self::MoveSeen => "move_seen",
            Self::Chat => "chat",
            Self::Trade => "trade",
            Self::PickUp => "pick_up",
            Self::BorderStop => "border_stop",
            Self::RoundTrip => "round_trip",
            Self::Resume => "resume",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dns => "dns",
            Self::Login => "login",
            Self::List => "list",
            Self::Attach => "attach",
            Self::Enter => "enter",
            Self::MoveSeen => "move seen by a neighbour",
            Self::Chat => "chat heard by a neighbour",
            Self::Trade => "trade",
            Self::PickUp => "dropped, seen and picked up",
            Self::BorderStop => "longest stop at the border",
            Self::RoundTrip => "round trip",
            Self::Resume => "resume",
        })
    }
}

/// The results of one step. Times are in microseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Figures {
    pub count: u64,
    pub failures: u64,
    pub p50_us: u64,
    pub p95_us: u64,
    pub p99_us: u64,
    pub max_us: u64,
}

#[derive(Default)]
pub struct Stats(Mutex<BTreeMap<Step, Row>>);

struct Row {
    /// Microseconds.
    times: Histogram<u64>,
    failures: u64,
    last_failure: String,
}

impl Default for Row {
    fn default() -> Self {
        // One microsecond to two minutes in three digits: the bounds are constants that the constructor accepts.
        let times = Histogram::new_with_bounds(1, 120_000_000, 3).expect("constant bounds are valid");
        Self { times, failures: 0, last_failure: String::new() }
    }
}

impl Stats {
    pub fn record_time(&self, step: Step, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1);
        self.0.lock().entry(step).or_default().times.saturating_record(micros);
    }

    pub fn record_failure(&self, step: Step, why: &impl ToString) {
        let mut rows = self.0.lock();
        let row = rows.entry(step).or_default();
        row.failures += 1;
        row.last_failure = why.to_string();
    }

    /// Runs one step, and records its time or its failure.
    pub async fn measure<T, E: fmt::Display>(
        &self,
        step: Step,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let started = Instant::now();
        let result = work.await;
        match &result {
            Ok(_) => self.record_time(step, started.elapsed()),
            Err(error) => self.record_failure(step, &error.to_string()),
        }
        result
    }

    /// `None` if no player has taken the step.
    pub fn figures(&self, step: Step) -> Option<Figures> {
        let rows = self.0.lock();
        let row = rows.get(&step)?;
        let at = |quantile| row.times.value_at_quantile(quantile);
        Some(Figures {
            count: row.times.len(),
            failures: row.failures,
            p50_us: at(0.5),
            p95_us: at(0.95),
            p99_us: at(0.99),
            max_us: row.times.max(),
        })
    }

    pub fn failures(&self) -> u64 {
        self.0.lock().values().map(|row| row.failures).sum()
    }

    pub fn table(&self) -> Table {
        let mut table = terminal::table(["step", "count", "failures", "p50", "p95", "p99", "max"]);
        let rows = self.0.lock();
        for step in Step::ALL {
            let Some(row) = rows.get(&step) else { continue };
            let at = |quantile| time(row.times.value_at_quantile(quantile));
            table.add_row([
                step.to_string(),
                row.times.len().to_string(),
                row.failures.to_string(),
                at(0.5),
                at(0.95),
                at(0.99),
                time(row.times.max()),
            ]);
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }

    /// The last failure of each step that had one.
    pub fn failure_samples(&self) -> Vec<String> {
        let rows = self.0.lock();
        rows.iter()
            .filter(|(_, row)| row.failures > 0)
            .map(|(step, row)| format!("{step}: {} failed, the last: {}", row.failures, row.last_failure))
            .collect()
    }
}

/// A time for people.
pub fn time(micros: u64) -> String {
    // Three digits are what the histogram keeps.
    #[allow(clippy::cast_precision_loss)]
    let millis = micros as f64 / 1_000.0;
    if millis >= 100.0 { format!("{millis:.0} ms") } else { format!("{millis:.1} ms") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_counted_separately() {
        let stats = Stats::default();
        stats.record_time(Step::Login, Duration::from_millis(3));
        stats.record_failure(Step::Trade, &"nobody there");
        assert_eq!(stats.failures(), 1);
        assert_eq!(stats.failure_samples(), ["trade: 1 failed, the last: nobody there"]);
        assert!(stats.table().to_string().contains("3.0 ms"));
    }
}
