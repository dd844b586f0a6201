//! Every panel and alert uses a metric that a daemon exports, and the operations page lists every metric, setting and alert.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use shardkeep_stories::{Actor, shared};
use shardkeep_testkit::{Cluster, http_get};

const PREFIX: &str = "shardkeep_";
/// Work that one player's way into the world must have left in the counters.
const EXPECTED_COUNTERS: [&str; 6] = [
    "shardkeep_dns_answers_total",
    "shardkeep_login_logins_total",
    "shardkeep_gateway_handshakes_total",
    "shardkeep_world_entered_total",
    "shardkeep_zone_tick_seconds_count",
    "shardkeep_dbcache_calls_total",
];

#[tokio::test]
async fn every_panel_and_alert_has_an_exported_metric() -> Result<()> {
    let cluster = shared().await?;
    let _player = Actor::enter(cluster, "dora").await?;
    let pages = pages(cluster, "/metrics").await?;
    let exported = exported(&pages);
    for counter in EXPECTED_COUNTERS {
        let counted = pages.values().flat_map(|page| page.lines()).any(|line| has_counted(line, counter));
        ensure!(counted, "{counter} does not move when a player enters");
    }

    let mut panels = 0;
    for file in files(&deploy("grafana/dashboards"))? {
        let dashboard: Value = serde_json::from_str(&std::fs::read_to_string(&file)?)?;
        for panel in dashboard["panels"].as_array().context("a dashboard without panels")? {
            let metrics: BTreeSet<String> = expressions(panel).flat_map(names).collect();
            ensure!(!metrics.is_empty(), "{}: {} shows nothing", file.display(), panel["title"]);
            for metric in metrics {
                let is_exported = exported.contains(family(&metric, &exported));
                ensure!(is_exported, "{}: {}: nobody exports {metric}", file.display(), panel["title"]);
            }
            panels += 1;
        }
    }
    ensure!(panels > 50, "only {panels} panels were found");

    let alerts = std::fs::read_to_string(deploy("prometheus/alerts.yml"))?;
    for metric in names(&alerts) {
        ensure!(exported.contains(family(&metric, &exported)), "alerts.yml: nobody exports {metric}");
    }
    Ok(())
}

#[tokio::test]
async fn operations_page_lists_every_metric_setting_and_alert() -> Result<()> {
    let cluster = shared().await?;
    let page = std::fs::read_to_string(root().join("docs/operations.md"))?;
    let exported = exported(&pages(cluster, "/metrics").await?);
    for metric in &exported {
        ensure!(page.contains(&format!("| `{metric}` |")), "operations.md does not name {metric}");
    }
    for row in page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()) {
        ensure!(!row.starts_with(PREFIX) || exported.contains(row), "operations.md: nobody exports {row}");
    }
    for (daemon, config) in pages(cluster, "/config").await? {
        for (section, keys) in settings(&config) {
            let text = section_text(&page, &section).with_context(|| format!("no table of [{section}]"))?;
            for key in keys {
                let known = text.contains(&format!("`{key}`"))
                    || key.rsplit_once('.').is_some_and(|(parent, _)| text.contains(&format!("`{parent}`")));
                ensure!(known, "operations.md: [{section}] lacks {key}, which {daemon} has");
            }
        }
    }
    for alert in alerts()? {
        let row = format!("| {alert} |");
        ensure!(page.contains(&row), "operations.md does not say what to do about {alert}");
    }
    Ok(())
}

#[test]
fn prometheus_accepts_its_files() -> Result<()> {
    promtool(&["check", "rules"], &deploy("prometheus/alerts.yml"))?;
    promtool(&["check", "config"], &deploy("prometheus/prometheus.yml"))
}

#[test]
fn every_alert_fires_and_stays_quiet_in_its_cases() -> Result<()> {
    let cases = std::fs::read_to_string(deploy("prometheus/alerts_test.yml"))?;
    for alert in alerts()? {
        for outcome in ["fires", "is quiet"] {
            let case = format!("- name: {alert} {outcome}\n");
            ensure!(cases.contains(&case), "alerts_test.yml has no case \"{alert} {outcome}\"");
        }
    }
    promtool(&["test", "rules"], &deploy("prometheus/alerts_test.yml"))
}

/// Each panel's expressions as recording rules, for which promtool has a check.
#[test]
fn prometheus_accepts_every_panel() -> Result<()> {
    let mut rules = Vec::new();
    for file in files(&deploy("grafana/dashboards"))? {
        let dashboard: Value = serde_json::from_str(&std::fs::read_to_string(&file)?)?;
        for panel in dashboard["panels"].as_array().into_iter().flatten() {
            for expression in expressions(panel) {
                // A variable of Grafana, which is no duration.
                let expression = expression.replace("$__rate_interval", "1m");
                rules.push(json!({ "record": format!("panel:{}", rules.len()), "expr": expression }));
            }
        }
    }
    let file = tempfile::NamedTempFile::new()?;
    let groups = json!({ "groups": [{ "name": "panels", "rules": rules }] });
    std::fs::write(file.path(), groups.to_string())?;
    promtool(&["check", "rules"], file.path())
}

/// The names of all alerts.
fn alerts() -> Result<Vec<String>> {
    let rules = std::fs::read_to_string(deploy("prometheus/alerts.yml"))?;
    let names = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    Ok(names.map(str::to_owned).collect())
}

fn promtool(command: &[&str], file: &Path) -> Result<()> {
    let output = Command::new("promtool")
        .args(command)
        .arg(file)
        .output()
        .context("promtool is missing: `make test-deps` installs it")?;
    let printed = [output.stdout, output.stderr].concat();
    ensure!(output.status.success(), "{}: {}", file.display(), String::from_utf8_lossy(&printed));
    Ok(())
}

#[test]
fn container_settings_exist() -> Result<()> {
    let page = std::fs::read_to_string(root().join("docs/operations.md"))?;
    for file in [root().join("docker-compose.yml"), deploy("Dockerfile")] {
        let text = std::fs::read_to_string(&file)?;
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for variable in words.filter_map(|word| word.strip_prefix("SHARDKEEP_")) {
            let Some((section, key)) = variable.split_once("__") else { continue };
            let (section, key) = (section.to_ascii_lowercase(), key.to_ascii_lowercase().replace("__", "."));
            let known = section_text(&page, &section).is_some_and(|text| text.contains(&format!("`{key}`")));
            ensure!(known, "{}: no setting {section}.{key}", file.display());
        }
    }
    Ok(())
}

/// `.env.example` lists every variable that the compose file reads, with the default of the compose file.
#[test]
fn env_example_lists_every_compose_variable() -> Result<()> {
    let compose = std::fs::read_to_string(root().join("docker-compose.yml"))?;
    let used: BTreeSet<String> = compose
        .split("${")
        .skip(1)
        .filter_map(|rest| rest.split('}').next())
        .map(|variable| variable.replacen(":-", "=", 1))
        .collect();
    let example = std::fs::read_to_string(root().join(".env.example"))?;
    let listed: BTreeSet<String> =
        example.lines().filter(|line| line.starts_with("SHARDKEEP_")).map(str::to_owned).collect();
    ensure!(used == listed, "docker-compose.yml reads {used:#?}, .env.example has {listed:#?}");
    Ok(())
}

/// A container that is taken over must not hold the identity of another daemon, and none may run without a limit.
#[test]
fn compose_gives_each_daemon_its_own_secrets_and_a_memory_limit() -> Result<()> {
    let compose = std::fs::read_to_string(root().join("docker-compose.yml"))?;
    let (_, services) = compose.split_once("\nservices:\n").context("no services")?;
    let (services, _) = services.split_once("\nnetworks:\n").context("no networks")?;
    let (mut name, mut checked) = ("", 0);
    for line in services.lines() {
        if let Some(service) =
            line.strip_prefix("  ").filter(|line| line.starts_with(|c: char| c.is_alphabetic()))
        {
            name = service.split(':').next().unwrap_or_default();
        }
        let mounts =
            line.split('"').filter(|part| part.starts_with("secrets-") || part.starts_with("authority:"));
        for mount in mounts.filter(|_| name != "secrets") {
            let volume = match name {
                "tool" => "secrets-cli".to_owned(),
                daemon => format!("secrets-{daemon}"),
            };
            let read_only = mount
                .strip_prefix(&volume)
                .is_some_and(|rest| rest.starts_with(':') && rest.ends_with(":ro"));
            ensure!(read_only, "{name} mounts {mount}, and should mount {volume} alone, read-only");
            checked += 1;
        }
    }
    ensure!(checked == 15, "{checked} services with secrets were found");
    let images = services.matches("    image: ").count();
    // edge-login, edge-gateway and demo inherit image and limit.
    ensure!(services.matches("    mem_limit: ").count() == images, "a service has no mem_limit");
    Ok(())
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn deploy(path: &str) -> PathBuf {
    root().join("deploy").join(path)
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    std::fs::read_dir(folder)
        .with_context(|| folder.display().to_string())?
        .map(|entry| Ok(entry?.path()))
        .collect()
}

/// One admin page of every daemon, by name.
async fn pages(cluster: &Cluster, path: &str) -> Result<BTreeMap<String, String>> {
    let mut pages = BTreeMap::new();
    for file in files(&cluster.data_dir().join("run"))? {
        if file.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let name = file.file_stem().and_then(|stem| stem.to_str()).context("an odd file name")?;
        let admin = cluster.announcement(name)?.admin;
        pages.insert(name.to_owned(), get(&admin, path).await.with_context(|| format!("{name}: {admin}"))?);
    }
    ensure!(pages.len() == 14, "{} daemons have announced themselves", pages.len());
    Ok(pages)
}

pub(crate) async fn get(address: &str, path: &str) -> Result<String> {
    let (status, body) = http_get(address, path).await?;
    ensure!(status == 200, "{path}: {status}");
    Ok(body)
}

/// Names of all metrics of ours.
fn exported(pages: &BTreeMap<String, String>) -> BTreeSet<String> {
    pages
        .values()
        .flat_map(|page| page.lines())
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .filter(|name| name.starts_with(PREFIX))
        .map(str::to_owned)
        .collect()
}

/// Whether this line is a sample above 0 of this series.
fn has_counted(line: &str, series: &str) -> bool {
    let Some((labelled, value)) = line.rsplit_once(' ') else { return false };
    labelled.split('{').next() == Some(series) && value.parse::<f64>().is_ok_and(|value| value > 0.0)
}

fn expressions(panel: &Value) -> impl Iterator<Item = &str> {
    panel["targets"].as_array().into_iter().flatten().filter_map(|target| target["expr"].as_str())
}

/// The names of metrics of ours in a text.
fn names(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with(PREFIX))
        .map(str::to_owned)
        .collect()
}

/// The metric a series belongs to: a histogram's have suffixes.
fn family<'a>(series: &'a str, exported: &BTreeSet<String>) -> &'a str {
    if exported.contains(series) {
        return series;
    }
    let parts = ["_bucket", "_sum", "_count"];
    parts.iter().find_map(|part| series.strip_suffix(part)).unwrap_or(series)
}

/// Sections of a TOML page with the keys in each; keys of `[login.limits]` are `limits.…` of `login`.
fn settings(config: &str) -> BTreeMap<String, Vec<String>> {
    let mut sections: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let (mut section, mut within) = (String::new(), String::new());
    for line in config.lines() {
        if let Some(header) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            let (top, rest) = header.split_once('.').unwrap_or((header, ""));
            section = top.to_owned();
            within = if rest.is_empty() { String::new() } else { format!("{rest}.") };
        } else if let Some((key, _)) = line.split_once(" = ") {
            sections.entry(section.clone()).or_default().push(format!("{within}{key}"));
        }
    }
    sections
}

/// The text of the page about one section of the settings.
fn section_text<'a>(page: &'a str, section: &str) -> Option<&'a str> {
    let (_, rest) = page.split_once(&format!("\n`[{section}]`"))?;
    let end = ["\n`[", "\n## "].iter().filter_map(|next| rest.find(next)).min();
    Some(&rest[..end.unwrap_or(rest.len())])
}
