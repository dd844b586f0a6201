//! The cost of an answer of the DNS daemon, which selects replicas by weight and limits clients. The peer is Knot, which
//! serves the same names from a file. Both run in turn several times, and the medians are compared.

use std::{process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};

use crate::{
    fixture::{self, Fixture},
    host,
    peer::Peer,
    table::{Benchmark, Outcome, Row},
};

struct Case {
    name: &'static str,
    queries_per_second: Option<&'static str>,
    seconds: &'static str,
    rounds: usize,
}

/// A quiet server pays for being woken by each query, a busy one for the queries.
const CASES: &[Case] = &[
    Case { name: "10,000 /s", queries_per_second: Some("10000"), seconds: "3", rounds: 5 },
    Case { name: "as fast as they go", queries_per_second: None, seconds: "2", rounds: 5 },
];
/// The queries of a client in their order, and a name that does not exist.
const QUERIES: &str = "\
_shardkeep._tcp.login.shardkeep.test SRV
login.shardkeep.test A
_shardkeep._tcp.gateway.shardkeep.test SRV
gateway.shardkeep.test A
gateway-1.gateway.shardkeep.test A
nobody.shardkeep.test A
";
/// The zone as our server has it with one login server and two gateways.
const ZONE: &str = "\
$ORIGIN shardkeep.test.
$TTL 5
@ SOA ns hostmaster 1 3600 600 86400 2
@ NS ns
ns A 127.0.0.1
login A 127.0.0.1
_shardkeep._tcp.login SRV 0 100 7100 login-1.login
login-1.login A 127.0.0.1
gateway A 127.0.0.1
_shardkeep._tcp.gateway SRV 0 100 7200 gateway-1.gateway
_shardkeep._tcp.gateway SRV 0 100 7201 gateway-2.gateway
gateway-1.gateway A 127.0.0.1
gateway-2.gateway A 127.0.0.1
";

pub const DNS: Benchmark = Benchmark {
    name: "dns",
    label: "DNS server's CPU per answer, UDP, SRV, A and a name that is not there",
    target: "<= 1.0 (Knot DNS)",
    run,
};

fn run() -> Result<Outcome> {
    if let Err(error) = Command::new("dnsperf").arg("-h").output() {
        ensure!(error.kind() == std::io::ErrorKind::NotFound, "cannot run dnsperf: {error}");
        return Ok(Outcome::Skipped("apt install dnsperf".into()));
    }
    let ours = fixture::runtime()?.block_on(async {
        let fixture = Fixture::shared().await?;
        fixture.cluster.announcement("dns-1")
    })?;
    let ours = (ours.pid, ours.client.rsplit_once(':').context("the DNS server's address")?.1.parse()?);
    let port = host::free_port()?;
    let knot = knot(port)?;
    let theirs = knot.as_ref().map(|knot| (knot.pid(), port));
    let rows = CASES.iter().map(|case| {
        let (mut our_costs, mut their_costs) = (Vec::new(), Vec::new());
        for _ in 0..case.rounds {
            our_costs.push(micros_per_answer(case, ours)?);
            if let Some(theirs) = theirs {
                their_costs.push(micros_per_answer(case, theirs)?);
            }
        }
        let show = |micros: f64| format!("{micros:.2} us");
        let median = median(our_costs).context("no round")?;
        anyhow::Ok(Row::compared(case.name, median, self::median(their_costs), show, "Knot", "knot"))
    });
    Ok(Outcome::Rows(rows.collect::<Result<_>>()?))
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

fn knot(port: u16) -> Result<Option<Peer>> {
    let config = format!(
        "server:\n  rundir: {{folder}}\n  listen: 127.0.0.1@{port}\ndatabase:\n  storage: {{folder}}\n\
         zone:\n  - domain: shardkeep.test\n    storage: {{folder}}\n    file: zone\n"
    );
    Peer::start("knotd", &config, &["-c", "{config}"], port, &[("zone", ZONE)])
}

/// CPU time of the process by the answers that dnsperf gets from its port.
fn micros_per_answer(case: &Case, (pid, port): (u32, u16)) -> Result<f64> {
    let folder = tempfile::tempdir()?;
    let queries = folder.path().join("queries");
    std::fs::write(&queries, QUERIES)?;
    let (queries, port) = (queries.to_string_lossy(), port.to_string());
    let mut args =
        vec!["-s", "127.0.0.1", "-p", &port, "-d", &queries, "-l", case.seconds, "-c", "4", "-T", "1"];
    if let Some(rate) = case.queries_per_second {
        args.extend(["-Q", rate]);
    }
    let cpu = host::cpu_of(pid)?;
    let report = host::output("dnsperf", &args)?.context("dnsperf was there a moment ago")?;
    let cpu: Duration = host::cpu_of(pid)? - cpu;
    let answers = completed(&report).context("dnsperf reports no completed queries")?;
    ensure!(answers > 0, "no query was answered");
    let micros = cpu.as_secs_f64() * 1e6 / f64::from(answers);
    eprintln!("  port {port}: {answers} answers, {micros:.2} us each");
    Ok(micros)
}

fn completed(report: &str) -> Option<u32> {
    let line = report.lines().find_map(|line| line.trim().strip_prefix("Queries completed:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_takes_the_middle_value() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![]), None);
    }

    #[test]
    fn completed_parses_dnsperf_report() {
        let report = "Statistics:\n\n  Queries sent:         60000\n  Queries completed:    59990 (99.98%)\n";
        assert_eq!(completed(report), Some(59_990));
    }
}
