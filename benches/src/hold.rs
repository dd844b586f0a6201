//! Many sessions attached and kept alive, over several gateways and several processes of clients, because a process may
//! have only so many open files: how long until all are in, and what they cost while nobody says anything.

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
    gateway::Gateway,
    host,
    site::{self, Site},
    table::{Measure, Outcome, Row},
};

pub const HOLD: Measure = Measure {
    name: "hold",
    what: "sessions attached and kept alive over several gateways (hold=60000 for more)",
    reach: "60,000, 20,000 files per process",
    run,
};

/// Argument by which this program becomes the clients of one gateway.
pub const BOTS: &str = "hold-bots";

static SESSIONS: AtomicUsize = AtomicUsize::new(4_000);
/// Of one gateway and one process of clients: below 20,000 files.
const PER_GATEWAY: usize = 15_000;
/// Clients of one process that attach at the same time.
const AT_ONCE: usize = 64;
const START: Duration = Duration::from_secs(30);
const ATTACHED: Duration = Duration::from_secs(240);
/// From the last attach to the first look, and from there to the second. Pings come every ten seconds.
const SETTLE: Duration = Duration::from_secs(3);
const IDLE: Duration = Duration::from_secs(20);

pub fn set_sessions(count: usize) {
    SESSIONS.store(count.max(2), Relaxed);
}

fn run() -> Result<Outcome> {
    site::runtime()?.block_on(measure())
}

async fn measure() -> Result<Outcome> {
    let site = Site::shared().await?;
    let sessions = SESSIONS.load(Relaxed);
    let count = sessions.div_ceil(PER_GATEWAY).max(2);
    let folder = TempDir::new()?;
    let mut gateways = Vec::new();
    for number in 0..count {
        gateways
            .push(Gateway::start(site, folder.path(), &format!("gateway-hold-{number}"), 10 + number).await?);
    }
    let each = sessions / count;
    let mut firsts = Vec::new();
    for gateway in &gateways {
        let tickets = site.tickets(&gateway.at, each).await?;
        firsts.push(tickets.iter().map(site::number).min().context("no tickets")?);
    }
    let memory = |gateways: &[Gateway]| -> Result<u64> {
        gateways.iter().map(|gateway| host::resident_kib(gateway.at.pid)).sum()
    };
    let cpu = |gateways: &[Gateway]| -> Result<Duration> {
        gateways.iter().map(|gateway| host::cpu_of(gateway.at.pid)).sum()
    };
    let (empty, before, begun) = (memory(&gateways)?, cpu(&gateways)?, Instant::now());
    let mut bots = Vec::new();
    for (gateway, first) in gateways.iter().zip(firsts) {
        bots.push(Bots::start(&gateway.at, first, each)?);
    }
    for bots in &mut bots {
        bots.hears("held", ATTACHED).await?;
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

    async fn hears(&mut self, wanted: &str, within: Duration) -> Result<()> {
        let line = timeout(within, self.lines.next_line()).await.context("the clients are too slow")??;
        let line = line.context("the clients have ended")?;
        ensure!(line == wanted, "the clients say: {line}");
        Ok(())
    }

    /// All of them must still have their session.
    async fn end(mut self) -> Result<()> {
        drop(self.process.stdin.take());
        self.hears("lost 0", START).await
    }
}

/// Attaches `count` sessions at a gateway and keeps them until standard input ends. Arguments: the gateway's address,
/// the number of the first ticket, the count.
pub fn be_bots(arguments: &[String]) -> Result<()> {
    let [gateway, first, count] = arguments else { anyhow::bail!("{BOTS}: address, first ticket, count") };
    let (first, count): (u64, u64) = (first.parse()?, count.parse()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut config = Config::default();
        config.timing.connect = Duration::from_secs(20);
        let (config, gateway) = (Arc::new(config), Arc::new(gateway.clone()));
        let (turns, lost) = (Arc::new(Semaphore::new(AT_ONCE)), Arc::new(AtomicU64::new(0)));
        let mut attaching = JoinSet::new();
        for number in first..first + count {
            let (config, gateway, turns, lost) =
                (config.clone(), gateway.clone(), turns.clone(), lost.clone());
            attaching.spawn(async move {
                let _turn = turns.acquire().await?;
                let (mut connection, _) = site::attach(&config, &gateway, &site::ticket(number)).await?;
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
