//! Many idle sessions over several gateways: the time until all are attached, and their cost while idle. Several client
//! processes share the sessions, because the number of open files of a process is limited.

use std::{
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use shardkeep_client::Config;
use shardkeep_testkit::Announcement;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::ChildStdout,
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    fixture::{self, Fixture},
    gateway::Gateway,
    host,
    table::{Benchmark, Outcome, Row},
};

pub const HOLD: Benchmark = Benchmark {
    name: "hold",
    label: "sessions attached and kept alive over several gateways (hold=60000 for more)",
    target: "60,000, 20,000 files per process",
    run,
};

/// Argument by which this program becomes the clients of one gateway.
pub const BOTS: &str = "hold-bots";

static SESSIONS: AtomicUsize = AtomicUsize::new(4_000);
/// Of one gateway and one process of clients: below 20,000 files.
const PER_GATEWAY: usize = 15_000;
/// Clients of one process that attach at the same time.
const MAX_CONCURRENT: usize = 64;
const START_TIMEOUT: Duration = Duration::from_secs(30);
const ATTACH_TIMEOUT: Duration = Duration::from_secs(240);
/// From the last attach to the first look, and from there to the second. Pings come every ten seconds.
const SETTLE: Duration = Duration::from_secs(3);
const IDLE: Duration = Duration::from_secs(20);

pub fn set_session_count(count: usize) {
    SESSIONS.store(count.max(2), Relaxed);
}

fn run() -> Result<Outcome> {
    fixture::runtime()?.block_on(measure())
}

async fn measure() -> Result<Outcome> {
    let fixture = Fixture::shared().await?;
    let sessions = SESSIONS.load(Relaxed);
    let count = sessions.div_ceil(PER_GATEWAY).max(2);
    let folder = TempDir::new()?;
    let mut gateways = Vec::new();
    for number in 0..count {
        gateways.push(
            Gateway::start(fixture, folder.path(), &format!("gateway-hold-{number}"), 10 + number).await?,
        );
    }
    let each = sessions / count;
    let mut first_tickets = Vec::new();
    for gateway in &gateways {
        let tickets = fixture.tickets(&gateway.announcement, each).await?;
        first_tickets.push(tickets.iter().map(fixture::number).min().context("no tickets")?);
    }
    let memory = |gateways: &[Gateway]| -> Result<u64> {
        gateways.iter().map(|gateway| host::resident_kib(gateway.announcement.pid)).sum()
    };
    let cpu = |gateways: &[Gateway]| -> Result<Duration> {
        gateways.iter().map(|gateway| host::cpu_of(gateway.announcement.pid)).sum()
    };
    let (empty, before, begun) = (memory(&gateways)?, cpu(&gateways)?, Instant::now());
    let mut bots = Vec::new();
    for (gateway, first) in gateways.iter().zip(first_tickets) {
        bots.push(Bots::start(&gateway.announcement, first, each)?);
    }
    for bots in &mut bots {
        bots.expect_line("held", ATTACH_TIMEOUT).await?;
    }
    let (took, attached) = (begun.elapsed(), cpu(&gateways)?);
    sleep(SETTLE).await;
    let quiet = cpu(&gateways)?;
    sleep(IDLE).await;
    let (idle, full) = (cpu(&gateways)? - quiet, memory(&gateways)?);
    for bots in bots {
        bots.end().await?;
    }
    let held = each * count;
    let row = |case, ours| Row { case, ours, peer: "-".into(), ratio: None };
    let per_cpu = held as f64 / (attached - before).as_secs_f64().max(0.01);
    Ok(Outcome::Rows(vec![
        row(
            "attached",
            format!("{held} on {count} gateways in {:.1} s, {per_cpu:.0} /CPU s", took.as_secs_f64()),
        ),
        row(
            "idle",
            format!("{:.1} % of a core, all gateways", 100.0 * idle.as_secs_f64() / IDLE.as_secs_f64()),
        ),
        row("memory", format!("{:.1} KiB each", full.saturating_sub(empty) as f64 / held as f64)),
    ]))
}

/// A process of clients.
struct Bots {
    process: tokio::process::Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Bots {
    fn start(gateway: &Announcement, first: u64, count: usize) -> Result<Self> {
        let mut process = tokio::process::Command::new(std::env::current_exe()?)
            .args([BOTS, &gateway.client, &first.to_string(), &count.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let output = process.stdout.take().context("no output")?;
        Ok(Self { process, lines: BufReader::new(output).lines() })
    }

    async fn expect_line(&mut self, wanted: &str, within: Duration) -> Result<()> {
        let line = timeout(within, self.lines.next_line()).await.context("the clients are too slow")??;
        let line = line.context("the clients have ended")?;
        ensure!(line == wanted, "the clients say: {line}");
        Ok(())
    }

    /// All of them must still have their session.
    async fn end(mut self) -> Result<()> {
        drop(self.process.stdin.take());
        self.expect_line("lost 0", START_TIMEOUT).await
    }
}

/// Attaches `count` sessions at a gateway and keeps them until standard input ends. Arguments: the gateway's address,
/// the number of the first ticket, the count.
pub fn run_bots(arguments: &[String]) -> Result<()> {
    let [gateway, first, count] = arguments else { anyhow::bail!("{BOTS}: address, first ticket, count") };
    let (first, count): (u64, u64) = (first.parse()?, count.parse()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut config = Config::default();
        config.timing.connect = Duration::from_secs(20);
        let (config, gateway) = (Arc::new(config), Arc::new(gateway.clone()));
        let (permits, lost) = (Arc::new(Semaphore::new(MAX_CONCURRENT)), Arc::new(AtomicU64::new(0)));
        let mut attaching = JoinSet::new();
        for number in first..first + count {
            let (config, gateway, permits, lost) =
                (config.clone(), gateway.clone(), permits.clone(), lost.clone());
            attaching.spawn(async move {
                let _permit = permits.acquire().await?;
                let (mut connection, _) =
                    fixture::attach(&config, &gateway, &fixture::ticket(number)).await?;
                tokio::spawn(async move {
                    // Answers pings. A session that is held hears nothing else.
                    while connection.next().await.is_ok() {}
                    lost.fetch_add(1, Relaxed);
                });
                anyhow::Ok(())
            });
        }
        while let Some(attached) = attaching.join_next().await {
            attached??;
        }
        println!("held");
        // Until the measure closes it.
        tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink())).await??;
        println!("lost {}", lost.load(Relaxed));
        Ok(())
    })
}
