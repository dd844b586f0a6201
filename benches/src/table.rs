//! A measure, its result, and the table they are printed in.

use anyhow::Result;
use comfy_table::{Table, presets::UTF8_HORIZONTAL_ONLY};

pub struct Measure {
    pub name: &'static str,
    /// What is measured, with its fixed conditions.
    pub what: &'static str,
    /// The ratio to reach.
    pub reach: &'static str,
    pub run: fn() -> Result<Outcome>,
}

pub enum Outcome {
    Rows(Vec<Row>),
    /// How to install the missing peer.
    Skipped(String),
}

pub struct Row {
    pub ours: String,
    pub peer: String,
    /// Ours over the peer's, in the unit of the measure.
    pub ratio: Option<f64>,
}

impl Row {
    pub fn cells(self, measure: &Measure) -> [String; 5] {
        let ratio = self.ratio.map_or_else(|| "-".into(), |ratio| format!("{ratio:.2}"));
        [measure.what.into(), self.ours, self.peer, ratio, measure.reach.into()]
    }
}

pub fn new() -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_HORIZONTAL_ONLY).set_header([
        "measure",
        "shardkeep",
        "peer or limit",
        "ratio",
        "to reach",
    ]);
    table
}
