//! Alerts of severity `page` fire when their fault is caused: a real Prometheus scrapes a cluster of real processes
//! with the rules of `deploy/prometheus/alerts.yml`. The test leaves out the rules' `for`, and nothing else.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use shardkeep_stories::Actor;
use shardkeep_testkit::{Cluster, Postgres, Redis, Stores};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time::{Instant, MissedTickBehavior, interval, timeout},
};

use crate::dashboards::get;

/// Longest wait for an alert. `TicksOverrun` looks at a minute.
const ALERT_TIMEOUT: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(250);
/// A stop of two ticks, five times a second, makes a zone miss its tick rate.
const STALL: Duration = Duration::from_millis(100);
/// One waiting soft state fills the queue of dbcache.
const SETTINGS: &str = "[dbcache]\nsoft_queue = 1\n";

#[tokio::test(flavor = "multi_thread")]
async fn page_alert_fires_when_its_fault_is_caused() -> Result<()> {
    let (postgres, redis) = tokio::join!(Postgres::dedicated(), Redis::start());
    let stores = Stores { postgres: Some(postgres.url()), redis: Some(redis.url()) };
    let cluster = Cluster::start_with(stores, Some(SETTINGS)).await?;
    let prometheus = Prometheus::start(&cluster).await?;
    prometheus.wait_for("count(up == 1) >= 14").await?;
    // Before the first scrape there is no leader, and `for` would hide that.
    prometheus.wait_until_quiet().await?;

    redis.freeze();
    prometheus.wait_for_alert("BusDown").await?;
    redis.thaw();

    for restart in 1..=4 {
        cluster.kill_and_wait_for_restart("ai-1").await?;
        prometheus.set_targets(&cluster)?;
        let seen =
            format!("changes(shardkeep_process_start_time_seconds{{instance=\"ai-1\"}}[10m]) >= {restart}");
        prometheus.wait_for(&seen).await?;
    }
    prometheus.wait_for_alert("Restarting").await?;

    stall_until_alert(&cluster, &prometheus, "zone-1", "TicksOverrun").await?;

    cluster.freeze("login-1")?;
    prometheus.wait_for_alert("NoReplicaInDns").await?;
    cluster.thaw("login-1")?;
    prometheus.wait_for("min(shardkeep_dns_targets_count{name=~\"login|gateway\"}) > 0").await?;

    fail_database(&cluster, &prometheus, &postgres).await?;

    cluster.freeze("world-1")?;
    prometheus.wait_for_alert("DaemonDown").await?;
    prometheus.wait_for_alert("WorldWithoutLeader").await?;
    cluster.thaw("world-1")?;

    cluster.freeze("registry-1")?;
    prometheus.wait_for_alert("Unregistered").await?;
    cluster.thaw("registry-1")
}

/// A database that does not answer: writes fail, and soft state waits until its queue is full.
async fn fail_database(cluster: &Cluster, prometheus: &Prometheus, postgres: &Postgres) -> Result<()> {
    let walkers = [Actor::enter(cluster, "wala").await?, Actor::enter(cluster, "walb").await?];
    postgres.freeze();
    let walk = async {
        // Walking changes positions, which dbcache cannot save now.
        for step in 0.. {
            for walker in &walkers {
                let _ = timeout(STALL, walker.walk_to(500 + step % 8, 500)).await;
            }
        }
    };
    let alerts = async {
        prometheus.wait_for_alert("DatabaseErrors").await?;
        prometheus.wait_for_alert("SoftStateLost").await
    };
    let fired = tokio::select! {
        fired = alerts => fired,
        () = walk => unreachable!("walking never ends"),
    };
    postgres.thaw();
    fired
}

/// Stops and continues a daemon until the alert fires.
async fn stall_until_alert(
    cluster: &Cluster,
    prometheus: &Prometheus,
    daemon: &str,
    alert: &str,
) -> Result<()> {
    let stall = async {
        let mut phases = interval(STALL);
        loop {
            cluster.freeze(daemon)?;
            phases.tick().await;
            cluster.thaw(daemon)?;
            phases.tick().await;
        }
    };
    let fired = tokio::select! {
        fired = prometheus.wait_for_alert(alert) => fired,
        failed = stall => failed,
    };
    cluster.thaw(daemon)?;
    fired
}

/// A Prometheus that ends with this value.
struct Prometheus {
    address: String,
    targets: PathBuf,
    _process: Child,
    // Dropped last: the server runs in it.
    _folder: tempfile::TempDir,
}

impl Prometheus {
    async fn start(cluster: &Cluster) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("shardkeep-prometheus-").tempdir()?;
        let path = |name: &str| folder.path().join(name);
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/prometheus/alerts.yml");
        let rules = std::fs::read_to_string(source)?;
        let rules: Vec<&str> = rules.lines().filter(|line| !line.trim().starts_with("for: ")).collect();
        std::fs::write(path("alerts.yml"), rules.join("\n"))?;
        let config = json!({
            "global": { "scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s" },
            "rule_files": ["alerts.yml"],
            "scrape_configs": [{ "job_name": "shardkeep", "file_sd_configs": [{ "files": ["targets.json"] }] }],
        });
        std::fs::write(path("prometheus.yml"), config.to_string())?;
        let targets = path("targets.json");
        write_targets(&targets, cluster)?;
        let mut process = Command::new("prometheus")
            .current_dir(folder.path())
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"])
            .arg("--web.listen-address=127.0.0.1:0")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("prometheus is missing: `make test-deps` installs it")?;
        let log = process.stderr.take().context("no log")?;
        let mut lines = BufReader::new(log).lines();
        let mut seen = Vec::new();
        let address = loop {
            let line =
                lines.next_line().await?.with_context(|| format!("prometheus: {}", seen.join("\n")))?;
            if let Some((_, address)) = line.split_once("msg=\"Listening on\" address=") {
                break address.to_owned();
            }
            seen.push(line);
        };
        // The pipe must be read, or Prometheus blocks when it is full.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(Self { address, targets, _process: process, _folder: folder })
    }

    /// Scrapes the daemons at the addresses that they have announced. A restarted daemon has new ones.
    fn set_targets(&self, cluster: &Cluster) -> Result<()> {
        write_targets(&self.targets, cluster)
    }

    /// Waits until this query has a result.
    async fn wait_for(&self, query: &str) -> Result<()> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let path = format!("/api/v1/query?query={encoded}");
        self.poll(query, &path, |found| found["data"]["result"].as_array().is_some_and(|it| !it.is_empty()))
            .await
    }

    async fn wait_for_alert(&self, name: &str) -> Result<()> {
        let fires = |found: &Value| alerts(found).any(|alert| alert["labels"]["alertname"] == name);
        self.poll(name, "/api/v1/alerts", fires).await
    }

    /// Waits until no alert of severity `page` fires.
    async fn wait_until_quiet(&self) -> Result<()> {
        let quiet = |found: &Value| !alerts(found).any(|alert| alert["labels"]["severity"] == "page");
        self.poll("no page", "/api/v1/alerts", quiet).await
    }

    async fn poll(&self, what: &str, path: &str, done: impl Fn(&Value) -> bool) -> Result<()> {
        let deadline = Instant::now() + ALERT_TIMEOUT;
        let mut polls = interval(POLL);
        polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            polls.tick().await;
            // Prometheus answers 503 while it starts.
            let found = self.get(path).await;
            if found.as_ref().is_ok_and(&done) {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "not within {ALERT_TIMEOUT:?}: {what}; Prometheus has {found:?}"
            );
        }
    }

    async fn get(&self, path: &str) -> Result<Value> {
        Ok(serde_json::from_str(&get(&self.address, path).await?)?)
    }
}

fn alerts(found: &Value) -> impl Iterator<Item = &Value> {
    found["data"]["alerts"].as_array().into_iter().flatten().filter(|alert| alert["state"] == "firing")
}

/// Replaces the list of targets in one step: Prometheus watches the file.
fn write_targets(path: &Path, cluster: &Cluster) -> Result<()> {
    let mut targets = Vec::new();
    for entry in std::fs::read_dir(cluster.data_dir().join("run"))? {
        let file = entry?.path();
        if file.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let name = file.file_stem().and_then(|stem| stem.to_str()).context("an odd file name")?.to_owned();
        let kind = name.rsplit_once('-').map_or(name.as_str(), |(kind, _)| kind);
        let admin = cluster.announcement(&name)?.admin;
        targets.push(json!({ "targets": [admin], "labels": { "daemon": kind, "instance": name } }));
    }
    let draft = path.with_extension("draft");
    std::fs::write(&draft, Value::Array(targets).to_string())?;
    Ok(std::fs::rename(draft, path)?)
}
