//! What an answer costs our DNS server, which makes each one anew from who is up, beside Knot, which serves the same
//! names from a file.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::{
    host,
    peer::Peer,
    site::{self, Site},
    table::{Measure, Outcome, Row},
};

const SECONDS: &str = "5";
const QUERIES_PER_SECOND: &str = "10000";
/// What clients ask, in the order they ask it, and a name that does not exist.
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

pub const DNS: Measure = Measure {
    name: "dns",
    what: "DNS server's CPU per answer, UDP, 10,000 /s, SRV, A and a name that is not there",
    reach: "<= 1.0 (Knot DNS)",
    run,
};

fn run() -> Result<Outcome> {
    let ours = site::runtime()?.block_on(async {
        let site = Site::shared().await?;
        site.cluster.announced("dns-1")
    })?;
    let port = ours.client.rsplit_once(':').context("the DNS server's address")?.1.parse()?;
    let Some(ours) = cpu_per_answer(ours.pid, port)? else {
        return Ok(Outcome::Skipped("apt install dnsperf".into()));
    };
    let port = host::free_port()?;
    let knot = match knot(port)? {
        Some(knot) => cpu_per_answer(knot.pid(), port)?,
        None => None,
    };
    let micros = |cpu: Duration| cpu.as_secs_f64() * 1e6;
    let show = |micros: f64| format!("{micros:.2} us");
    Ok(Outcome::Rows(vec![Row::beside("", micros(ours), knot.map(micros), show, "Knot", "knot")]))
}

fn knot(port: u16) -> Result<Option<Peer>> {
    let config = format!(
        "server:\n  rundir: {{folder}}\n  listen: 127.0.0.1@{port}\ndatabase:\n  storage: {{folder}}\n\
         zone:\n  - domain: shardkeep.test\n    storage: {{folder}}\n    file: zone\n"
    );
    Peer::start("knotd", &config, &["-c", "{config}"], port, &[("zone", ZONE)])
}

/// `None` when there is no dnsperf.
fn cpu_per_answer(pid: u32, port: u16) -> Result<Option<Duration>> {
    let folder = tempfile::tempdir()?;
    let queries = folder.path().join("queries");
    std::fs::write(&queries, QUERIES)?;
    let (queries, port) = (queries.to_string_lossy(), port.to_string());
    let cpu = host::cpu_of(pid)?;
    let args = [
        "-s",
        "127.0.0.1",
        "-p",
        &port,
        "-d",
        &queries,
        "-l",
        SECONDS,
        "-Q",
        QUERIES_PER_SECOND,
        "-c",
        "4",
        "-T",
        "1",
    ];
    let Some(report) = host::output("dnsperf", &args)? else { return Ok(None) };
    let cpu = host::cpu_of(pid)? - cpu;
    let answers = completed(&report).context("dnsperf reports no completed queries")?;
    ensure!(answers > 0, "no query was answered");
    eprintln!("  port {port}: {answers} answers");
    Ok(Some(Duration::from_secs_f64(cpu.as_secs_f64() / f64::from(answers))))
}

fn completed(report: &str) -> Option<u32> {
    let line = report.lines().find_map(|line| line.trim().strip_prefix("Queries completed:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_dnsperf_prints() {
        let report = "Statistics:\n\n  Queries sent:         60000\n  Queries completed:    59990 (99.98%)\n";
        assert_eq!(completed(report), Some(59_990));
    }
}
