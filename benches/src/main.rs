//! `make bench`: the table of measures. Every figure stands beside a peer or a limit measured in the same run, because
//! absolute times on a shared machine mean nothing; a peer that is not installed is skipped with the line that installs
//! it. Name rows as arguments to run only those; `hold=60000` also says how many sessions.

#![allow(unreachable_pub, reason = "nothing of a binary can be reached from outside")]

mod attach;
mod cluster;
mod dns;
mod entry;
mod gateway;
mod hold;
mod host;
mod ledger;
mod load;
mod memory;
mod patch;
mod peer;
mod ranks;
mod relay;
mod site;
mod srp;
mod table;
mod unknown;
mod zone;

use std::process::ExitCode;

use crate::table::{Measure, Outcome};

/// In this order: the cluster is looked at before anybody has played on it.
const MEASURES: &[Measure] = &[
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
    if let Some(helped) = help_out(&wanted) {
        return helped;
    }
    for name in &mut wanted {
        if let Some(sessions) = name.strip_prefix("hold=").and_then(|count| count.parse().ok()) {
            hold::set_sessions(sessions);
            *name = "hold".into();
        }
    }
    if let Some(unknown) = wanted.iter().find(|name| MEASURES.iter().all(|it| it.name != name.as_str())) {
        let names: Vec<&str> = MEASURES.iter().map(|it| it.name).collect();
        eprintln!("error: no measure {unknown:?}; there are {}", names.join(", "));
        return ExitCode::from(2);
    }
    let mut failed = false;
    let mut table = table::new();
    for measure in MEASURES.iter().filter(|it| wanted.is_empty() || wanted.iter().any(|name| name == it.name))
    {
        eprintln!("measuring {}: {}", measure.name, measure.what);
        match (measure.run)() {
            Ok(Outcome::Rows(rows)) => table.add_rows(rows.into_iter().map(|row| row.cells(measure))),
            Ok(Outcome::Skipped(how)) => table.add_row([measure.what, "skipped", &how, "", measure.reach]),
            Err(error) => {
                failed = true;
                table.add_row([measure.what, "failed", &format!("{error:#}"), "", measure.reach])
            }
        };
    }
    println!("{table}");
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Measures start this program again to have clients or a peer in a process of their own.
fn help_out(arguments: &[String]) -> Option<ExitCode> {
    let helped = match arguments {
        [what, rest @ ..] if what == peer::BARE => peer::be_bare(rest),
        [what, rest @ ..] if what == hold::BOTS => hold::be_bots(rest),
        _ => return None,
    };
    Some(match helped {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    })
}
