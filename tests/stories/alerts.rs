//! Alerts of severity `page` fire when their fault is caused: a real Prometheus scrapes a cluster of real processes
//! with the rules of `deploy/prometheus/alerts.yml`. The test leaves out the rules' `for`, and nothing else.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use futures::future::join_all;
use serde_json::{Value, json};
use shardkeep_stories::{Actor, PASSWORD};
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
/// One waiting soft state fills a queue of dbcache, and two waiting hard actions are an eighth of the other.
const SETTINGS: &str = "[dbcache]\nsoft_queue = 1\nhard_queue = 8\nwriters = 1\n";
/// Players of each fault that needs several.
const PLAYERS: usize = 6;

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
    fail_placements(&cluster, &prometheus).await?;

    cluster.freeze("world-1")?;
    prometheus.wait_for_alert("DaemonDown").await?;
    prometheus.wait_for_alert("WorldWithoutLeader").await?;
    cluster.thaw("world-1")?;

    cluster.freeze("registry-1")?;
    prometheus.wait_for_alert("Unregistered").await?;
    cluster.thaw("registry-1")
}

/// A database that does not answer: writes fail, soft state and hard actions wait, and players cannot log in.
async fn fail_database(cluster: &Cluster, prometheus: &Prometheus, postgres: &Postgres) -> Result<()> {
    let mut actors = Vec::new();
    for _ in 0..PLAYERS {
        let actor = Actor::enter(cluster, "wal").await?;
        let item =
            actor.coins_and_items().await?.1.first().copied().context("a new character has an item")?;
        actors.push((actor, item));
    }
    postgres.freeze();
    let play = join_all(actors.iter().map(async |(actor, item)| {
        // Neither a position nor a dropped item can be saved now.
        let walk = async {
            for step in 0.. {
                let _ = timeout(STALL, actor.walk_to(500 + step % 8, 500)).await;
            }
        };
        let drop_item = async {
            loop {
                let _ = actor.player.drop_item(*item).await;
            }
        };
        let log_in = async {
            loop {
                let _ = shardkeep_stories::log_in(cluster, &actor.name, PASSWORD).await;
            }
        };
        tokio::join!(walk, drop_item, log_in)
    }));
    let alerts = async {
        for alert in ["DatabaseErrors", "SoftStateLost", "HardActionsQueued", "LoginsFailInternally"] {
            prometheus.wait_for_alert(alert).await?;
        }
        anyhow::Ok(())
    };
    let fired = tokio::select! {
        fired = alerts => fired,
        _ = play => unreachable!("players never stop to try"),
    };
    postgres.thaw();
    fired
}

/// No zone answers, so no avatar can be placed.
async fn fail_placements(cluster: &Cluster, prometheus: &Prometheus) -> Result<()> {
    let names: Vec<String> = (0..PLAYERS).map(|_| shardkeep_stories::unique_name("pla")).collect();
    for name in &names {
        cluster.account(name, PASSWORD).await?;
    }
    for zone in ["zone-1", "zone-2"] {
        cluster.freeze(zone)?;
    }
    let enter = join_all(names.iter().map(async |name| {
        loop {
            let _ = Actor::enter_as(cluster, name).await;
        }
    }));
    let fired = tokio::select! {
        fired = prometheus.wait_for_alert("PlacementsFail") => fired,
        _ = enter => unreachable!("players never stop to try"),
    };
    for zone in ["zone-1", "zone-2"] {
        cluster.thaw(zone)?;
    }
    fired
}

/// The servers of the home region do not answer for longer than the alert's limit, a minute.
#[tokio::test(flavor = "multi_thread")]
async fn region_without_home_region_raises_alert() -> Result<()> {
    let home = Cluster::start_region("eu", None, None).await?;
    let region = Cluster::start_region("us", Some(&home), None).await?;
    let prometheus = Prometheus::start(&region).await?;
    prometheus.wait_for("max(shardkeep_login_central_lag_seconds) < 30").await?;
    home.freeze("login-1")?;
    prometheus.wait_for_alert("CentralStoreUnreachable").await?;
    home.thaw("login-1")?;
    home.stop().await?;
    region.stop().await
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
