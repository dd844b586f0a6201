//! Measures the cost of an attack for each daemon: processor, memory and connections, and whether it died.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Result;
use serde::Serialize;
use shardkeep_types::DaemonKind;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use shardkeep_cli::{http, operator::Operator};

const SAMPLE_INTERVAL: Duration = Duration::from_millis(500);
/// Attempts to ask a daemon at the end before it counts as dead: it may just be busy.
const ATTEMPTS: u32 = 20;
/// How long connections may stay after the last attacker has closed its own.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(40);

/// One daemon over a phase.
#[derive(Debug, Clone, Default, Serialize)]
pub struct DaemonUsage {
    /// Mean share of one core, and the same with the honest alone.
    pub cpu: f64,
    pub cpu_baseline: f64,
    pub memory_before: u64,
    pub memory_peak: u64,
    pub memory_after: u64,
    /// Of clients; for daemons that have any.
    pub connections_peak: u64,
    pub connections_after: u64,
    /// Another process answered in its place, or none.
    pub died: bool,
    /// Connections were left long after the last client had gone.
    pub stuck: bool,
    #[serde(skip)]
    pub is_gateway: bool,
    #[serde(skip)]
    admin: String,
    #[serde(skip)]
    first: Option<Sample>,
    #[serde(skip)]
    last: Option<Sample>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Sample {
    at: Instant,
    started: f64,
    cpu_ms: f64,
    memory: u64,
    connections: u64,
}

/// All daemons that the registry knows.
pub struct DaemonMonitor(BTreeMap<String, DaemonUsage>);

impl DaemonMonitor {
    pub async fn new(operator: &Operator) -> Result<Self> {
        let instances = operator.instances(&[]).await?;
        let daemons = instances.into_iter().map(|it| {
            let is_gateway = it.id.kind == DaemonKind::Gateway;
            let daemon = DaemonUsage { is_gateway, admin: it.admin_address, ..DaemonUsage::default() };
            (it.id.name, daemon)
        });
        Ok(Self(daemons.collect()))
    }

    /// Knows what each daemon spent in a phase before.
    pub fn with_baseline(mut self, peace: &Self) -> Self {
        for (name, daemon) in &mut self.0 {
            daemon.cpu_baseline = peace.0.get(name).map_or(0.0, |it| it.cpu);
        }
        self
    }

    /// Looks at all daemons until told to stop.
    pub async fn run_until(mut self, stop: CancellationToken) -> Self {
        let mut ticks = interval(SAMPLE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => self.sample_all().await,
                () = stop.cancelled() => return self,
            }
        }
    }

    /// After the attack: waits until connections are back to what they were before it, and says which daemons died.
    pub async fn settle(mut self) -> BTreeMap<String, DaemonUsage> {
        let deadline = Instant::now() + SETTLE_TIMEOUT;
        loop {
            self.sample_all().await;
            let over = self.0.values().all(DaemonUsage::is_settled);
            if over || Instant::now() > deadline {
                break;
            }
            sleep(SAMPLE_INTERVAL).await;
        }
        for daemon in self.0.values_mut() {
            daemon.stuck = !daemon.is_settled();
            let mut answers = false;
            for _ in 0..ATTEMPTS {
                answers = http::get(&daemon.admin, "/readyz").await.is_ok();
                if answers {
                    break;
                }
                sleep(SAMPLE_INTERVAL).await;
            }
            daemon.died |= !answers;
        }
        self.0
    }

    async fn sample_all(&mut self) {
        for daemon in self.0.values_mut() {
            // One that does not answer now is asked again, and at the end it must.
            if let Ok(page) = http::get(&daemon.admin, "/metrics").await {
                daemon.add_sample(Sample::read(&page));
            }
        }
    }
}

impl DaemonUsage {
    fn add_sample(&mut self, sample: Sample) {
        let first = *self.first.get_or_insert(sample);
        // A clock's last digit is not another process.
        if (sample.started - first.started).abs() > 0.5 {
            self.died = true;
        }
        self.memory_before = first.memory;
        self.memory_peak = self.memory_peak.max(sample.memory);
        self.memory_after = sample.memory;
        self.connections_peak = self.connections_peak.max(sample.connections);
        self.connections_after = sample.connections;
        let seconds = (sample.at - first.at).as_secs_f64();
        if seconds > 0.0 && !self.died {
            self.cpu = (sample.cpu_ms - first.cpu_ms) / 1_000.0 / seconds;
        }
        self.last = Some(sample);
    }

    /// No more connections than at first.
    fn is_settled(&self) -> bool {
        match (self.first, self.last) {
            (Some(first), Some(last)) => last.connections <= first.connections,
            _ => true,
        }
    }
}

impl Sample {
    fn read(page: &str) -> Self {
        let mut sample = Self { at: Instant::now(), started: 0.0, cpu_ms: 0.0, memory: 0, connections: 0 };
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let Ok(value) = value.parse::<f64>() else { continue };
            // Counts of bytes and connections are whole and not negative.
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole numbers")]
            match series.split('{').next().unwrap_or(series) {
                "shardkeep_process_start_time_seconds" => sample.started = value,
                "shardkeep_process_cpu_milliseconds_total" => sample.cpu_ms = value,
                "shardkeep_process_resident_bytes" => sample.memory = value as u64,
                "shardkeep_login_connections"
                | "shardkeep_gateway_connections"
                | "shardkeep_dns_tcp_connections_count" => sample.connections += value as u64,
                _ => {}
            }
        }
        sample
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(started: f64, cpu: u64, memory: u64, connections: u64) -> Sample {
        Sample::read(&format!(
            "# HELP x\nshardkeep_process_start_time_seconds {started}\nshardkeep_process_cpu_milliseconds_total \
             {cpu}\nshardkeep_process_resident_bytes {memory}\nshardkeep_login_connections {connections}\n"
        ))
    }

    #[test]
    fn daemon_usage_follows_metrics_samples() {
        let mut daemon = DaemonUsage::default();
        daemon.add_sample(page(100.0, 50, 1_000, 2));
        daemon.add_sample(page(100.0, 90, 5_000, 900));
        assert!(!daemon.is_settled());
        daemon.add_sample(page(100.0, 95, 3_000, 1));
        assert!(daemon.is_settled() && !daemon.died);
        assert_eq!((daemon.memory_before, daemon.memory_peak, daemon.memory_after), (1_000, 5_000, 3_000));
        assert_eq!((daemon.connections_peak, daemon.connections_after), (900, 1));
        daemon.add_sample(page(160.0, 5, 1_000, 0));
        assert!(daemon.died, "another process answers");
    }
}
