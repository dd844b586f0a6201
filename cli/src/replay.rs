//! `shardkeep replay`: runs the journal of a zone again, compares the state hashes, and tells the history of an avatar.

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use shardkeep_journal::{Break, ChunkFile, History, Observer, Replay, Report, Span, list};
use shardkeep_sim::{Event, Input, Sim};
use shardkeep_types::{CharacterId, SpaceId, parse_utc, utc_millisecond, utc_second};

/// A replay that takes longer shows a progress bar.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// The journal: a chunk file, or a folder with chunks in it or below it, such as var/db/journal/zone-1
    folder: PathBuf,
    /// Only this space
    #[arg(long, value_name = "N")]
    space: Option<u32>,
    /// Begin here: 2026-11-22T01:20:37Z, or milliseconds since 1970. The replay itself begins at the snapshot before
    #[arg(long, value_name = "TIME", value_parser = time)]
    from: Option<u64>,
    /// End here
    #[arg(long, value_name = "TIME", value_parser = time)]
    to: Option<u64>,
    /// Print the history of this character
    #[arg(long, value_name = "CHARACTER")]
    avatar: Option<u64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn time(text: &str) -> Result<u64, String> {
    let number = || text.parse().ok();
    number()
        .or_else(|| parse_utc(text))
        .ok_or_else(|| "expected a time such as 2026-11-22T01:20:37Z, or milliseconds since 1970".to_owned())
}

#[derive(Debug, Serialize)]
struct Line {
    at_ms: u64,
    text: String,
}

#[derive(Debug, Serialize)]
struct Place {
    failure: bool,
    text: String,
}

/// The output with `--json`.
#[derive(Debug, Serialize)]
struct Output {
    agrees: bool,
    chunks: u64,
    ticks: u64,
    inputs: u64,
    hashes: u64,
    first_ms: Option<u64>,
    last_ms: Option<u64>,
    breaks: Vec<Place>,
    history: Vec<Line>,
}

/// Replays without telling anything.
struct Silent;

impl Observer for Silent {
    fn input(&mut self, _: &Sim, _: &Input) {}
    fn events(&mut self, _: &Sim, _: &[Event]) {}
    fn tick(&mut self, _: &Sim) {}
}

pub fn run(args: &ReplayArgs) -> Result<ExitCode> {
    let files = list(&args.folder).with_context(|| format!("cannot read {}", args.folder.display()))?;
    let bar = Bar::new(&files);
    let mut history = Vec::new();
    let report = match args.avatar {
        None => replay(args, files, &mut Silent, &bar),
        Some(character) => {
            let line = |at_ms, text| {
                if args.json {
                    history.push(Line { at_ms, text });
                } else {
                    bar.print(&format!("{}  {text}", utc_millisecond(at_ms)));
                }
            };
            replay(args, files, &mut History::new(CharacterId(character), line), &bar)
        }
    };
    bar.finish();
    if report.chunks == 0 {
        bail!("{} has no journal of this space and time", args.folder.display());
    }
    let agrees = !report.is_failure();
    if args.json {
        println!("{}", serde_json::to_string_pretty(&output(&report, history))?);
    } else {
        print(&report);
    }
    Ok(if agrees { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn replay(args: &ReplayArgs, files: Vec<ChunkFile>, observer: &mut dyn Observer, bar: &Bar) -> Report {
    let span = Span { space: args.space.map(SpaceId), from: args.from, to: args.to };
    Replay::new(span, observer, &mut |bytes| bar.advance(bytes)).run(files)
}

fn output(report: &Report, history: Vec<Line>) -> Output {
    let place = |found: &Break| Place { failure: found.is_failure(), text: found.to_string() };
    Output {
        agrees: !report.is_failure(),
        chunks: report.chunks,
        ticks: report.ticks,
        inputs: report.inputs,
        hashes: report.hashes,
        first_ms: report.first_ms,
        last_ms: report.last_ms,
        breaks: report.breaks.iter().map(place).collect(),
        history,
    }
}

fn print(report: &Report) {
    let Report { chunks, ticks, inputs, hashes, .. } = report;
    println!("replayed {ticks} ticks and {inputs} inputs of {chunks} chunks");
    if let (Some(first), Some(last)) = (report.first_ms, report.last_ms) {
        println!("from {} to {}", utc_second(first), utc_second(last));
    }
    println!("{hashes} state hashes agree");
    for found in &report.breaks {
        println!("{}: {found}", if found.is_failure() { "FAILURE" } else { "note" });
    }
    let end = if report.is_failure() { "DOES NOT AGREE with the zone" } else { "agrees with the zone" };
    println!("the replay {end}");
}

/// The progress of a long replay.
struct Bar {
    started: Instant,
    bar: ProgressBar,
}

impl Bar {
    fn new(files: &[ChunkFile]) -> Self {
        let size = |file: &ChunkFile| file.path.metadata().map_or(0, |data| data.len());
        let bar = ProgressBar::hidden();
        bar.set_length(files.iter().map(size).sum());
        Self { started: Instant::now(), bar }
    }

    fn advance(&self, bytes: u64) {
        if self.bar.is_hidden() && self.started.elapsed() > PATIENCE {
            let style =
                ProgressStyle::with_template("replaying {bar:40} {bytes} of {total_bytes}, {eta} left");
            if let Ok(style) = style {
                self.bar.set_style(style);
            }
            // On a terminal only.
            self.bar.set_draw_target(indicatif::ProgressDrawTarget::stderr());
        }
        self.bar.inc(bytes);
    }

    /// Prints a line above the bar.
    fn print(&self, line: &str) {
        self.bar.suspend(|| println!("{line}"));
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_a_date_or_milliseconds() {
        assert_eq!(time("1795310437000"), Ok(1_795_310_437_000));
        assert_eq!(time("2026-11-22T01:20:37Z"), Ok(1_795_310_437_000));
        assert!(time("yesterday").unwrap_err().contains("2026-11-22T01:20:37Z"));
    }
}
