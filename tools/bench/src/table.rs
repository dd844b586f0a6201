//! A measure, its result, and the table they are printed in.

use anyhow::Result;
use comfy_table::{ContentArrangement, Table, presets::UTF8_HORIZONTAL_ONLY};

/// Also where the output is no terminal.
const WIDTH: u16 = 140;

pub struct Benchmark {
    pub name: &'static str,
    /// The measured quantity, with its fixed conditions.
    pub label: &'static str,
    /// The ratio to reach.
    pub target: &'static str,
    pub run: fn() -> Result<Outcome>,
}

pub enum Outcome {
    Rows(Vec<Row>),
    /// How to install what the whole measure needs.
    Skipped(String),
}

pub struct Row {
    /// Which case of the measure, where it has several.
    pub case: &'static str,
    pub ours: String,
    pub peer: String,
    /// Ours over the peer's, in the unit of the measure.
    pub ratio: Option<f64>,
}

impl Row {
    /// Ours beside a peer's that was measured, or beside the line that installs the missing peer.
    pub fn compared(
        case: &'static str,
        ours: f64,
        peer: Option<f64>,
        show: impl Fn(f64) -> String,
        name: &str,
        package: &str,
    ) -> Self {
        let shown = match peer {
            Some(peer) => format!("{} {name}", show(peer)),
            None => format!("no {name}: apt install {package}"),
        };
        Self { case, ours: show(ours), peer: shown, ratio: peer.map(|peer| ours / peer) }
    }

    pub fn cells(self, measure: &Benchmark) -> [String; 5] {
        let ratio = self.ratio.map_or_else(|| "-".into(), |ratio| format!("{ratio:.2}"));
        let label = match self.case {
            "" => measure.label.into(),
            case => format!("{}: {case}", measure.label),
        };
        [label, self.ours, self.peer, ratio, measure.target.into()]
    }
}

pub fn new() -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(WIDTH).set_header(["measure", "shardkeep", "peer or limit", "ratio", "to reach"]);
    table
}
