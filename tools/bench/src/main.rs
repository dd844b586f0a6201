//! `make bench`: the table of measures. Each figure stands beside a peer or a limit that was measured in the same run, because
//! absolute times on a shared machine are not comparable. A missing peer is skipped, with the command that installs it.
//! Arguments select rows; `hold=60000` also sets the number of sessions.

#![allow(unreachable_pub, reason = "nothing of a binary can be reached from outside")]

mod attach;
mod cluster;
mod dns;
mod entry;
mod fixture;
mod gateway;
mod hold;
mod host;
mod ledger;
mod load;
mod mann_whitney;
mod memory;
mod patch;
mod peer;
mod relay;
mod srp;
mod table;
mod unknown;
mod zone;

use std::process::ExitCode;

use crate::table::{Benchmark, Outcome};

/// In this order, because the first rows measure the cluster before any player has entered.
const BENCHMARKS: &[Benchmark] = &[
    cluster::CLUSTER,
    memory::MEMORY,
    relay::RELAY,
    attach::ATTACH,
    hold::HOLD,
    srp::LOGINS,
    entry::ENTRY,
    unknown::UNKNOWN,
    patch::PATCH,
    dns::DNS,
    zone::ZONE,
    ledger::LEDGER,
];

fn main() -> ExitCode {
    let mut wanted: Vec<String> = std::env::args().skip(1).collect();
    if let Some(result) = run_subprocess(&wanted) {
        return result;
    }
    for name in &mut wanted {
        if let Some(sessions) = name.strip_prefix("hold=").and_then(|count| count.parse().ok()) {
            hold::set_session_count(sessions);
            *name = "hold".into();
        }
    }
    if let Some(unknown) = wanted.iter().find(|name| BENCHMARKS.iter().all(|it| it.name != name.as_str())) {
        let names: Vec<&str> = BENCHMARKS.iter().map(|it| it.name).collect();
        eprintln!("error: no measure {unknown:?}; there are {}", names.join(", "));
        return ExitCode::from(2);
    }
    let mut failed = false;
    let mut table = table::new();
    for measure in
        BENCHMARKS.iter().filter(|it| wanted.is_empty() || wanted.iter().any(|name| name == it.name))
    {
        eprintln!("measuring {}: {}", measure.name, measure.label);
        match (measure.run)() {
            Ok(Outcome::Rows(rows)) => table.add_rows(rows.into_iter().map(|row| row.cells(measure))),
            Ok(Outcome::Skipped(hint)) => {
                table.add_row([measure.label, "skipped", &hint, "", measure.target])
            }
            Err(error) => {
                failed = true;
                table.add_row([measure.label, "failed", &format!("{error:#}"), "", measure.target])
            }
        };
    }
    println!("{table}");
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Measures start this program again to run clients or a peer in a second process.
fn run_subprocess(arguments: &[String]) -> Option<ExitCode> {
    let result = match arguments {
        [label, rest @ ..] if label == peer::BARE_SERVER => peer::run_bare_server(rest),
        [label, rest @ ..] if label == hold::BOTS => hold::run_bots(rest),
        _ => return None,
    };
    Some(match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    })
}
