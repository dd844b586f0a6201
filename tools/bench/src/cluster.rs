//! The cost of an idle cluster: start, memory, and the size of the program.

use std::fs;

use anyhow::{Context as _, Result};
use shardkeep_testkit::Announcement;

use crate::{
    fixture::{self, Fixture},
    host,
    table::{Benchmark, Outcome, Row},
};

const MIB: f64 = 1024.0;

pub const CLUSTER: Benchmark =
    Benchmark { name: "cluster", label: "an idle cluster", target: "no limit set", run };

fn run() -> Result<Outcome> {
    let fixture = fixture::runtime()?.block_on(Fixture::shared())?;
    let mut daemons = Vec::new();
    for file in fs::read_dir(fixture.cluster.data_dir().join("run"))? {
        let path = file?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let announcement: Announcement = serde_json::from_slice(&fs::read(&path)?)
                .with_context(|| format!("{} is no announcement", path.display()))?;
            daemons.push(announcement);
        }
    }
    let sum = |of: fn(u32) -> Result<u64>| -> Result<f64> {
        let kib: u64 = daemons.iter().map(|daemon| of(daemon.pid)).sum::<Result<u64>>()?;
        Ok(kib as f64 / MIB)
    };
    let binary = fs::metadata(shardkeep_testkit::binary()?)?.len() as f64 / MIB / MIB;
    let row = |case, ours| Row { case, ours, peer: "-".into(), ratio: None };
    Ok(Outcome::Rows(vec![
        row("from `shardkeep up` to ready", format!("{:.1} s", fixture.ready.as_secs_f64())),
        row(
            "memory of all daemons, shared pages counted once",
            format!("{:.0} MiB, {} daemons", sum(host::proportional_kib)?, daemons.len()),
        ),
        row("memory of all daemons, resident", format!("{:.0} MiB", sum(host::resident_kib)?)),
        row("size of the binary", format!("{binary:.1} MiB")),
    ]))
}
