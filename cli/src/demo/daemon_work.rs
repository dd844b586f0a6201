//! The work of each daemon during the demo, from its `/metrics`. A restarted daemon counts from 0, so its earlier counts are
//! added here.

use std::{collections::BTreeMap, time::Duration};

use comfy_table::Table;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{data_dir::DataDir, http, terminal};

const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
/// Counters shown per daemon, the largest first.
const SHOWN: usize = 4;

/// Sums of one daemon's counters over all its incarnations.
#[derive(Debug, Default)]
struct Counters {
    last: BTreeMap<String, f64>,
    total: BTreeMap<String, f64>,
}

impl Counters {
    fn take(&mut self, page: &str) {
        let now = sums(page);
        for (name, value) in &now {
            let before = self.last.get(name).copied().unwrap_or_default();
            // A value below the last one comes from a new process.
            let more = if *value >= before { value - before } else { *value };
            *self.total.entry(name.clone()).or_default() += more;
        }
        self.last = now;
    }
}

/// Counters (`…_total`) of a Prometheus text page, summed over their labels.
fn sums(page: &str) -> BTreeMap<String, f64> {
    let mut sums = BTreeMap::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, value)) = line.rsplit_once(' ') else { continue };
        let name = series.split('{').next().unwrap_or(series);
        if let (true, Ok(value)) = (name.ends_with("_total"), value.parse::<f64>()) {
            *sums.entry(name.to_owned()).or_default() += value;
        }
    }
    sums
}

/// Watches all daemons of a folder until told to stop.
pub async fn collect_work(dir: DataDir, names: Vec<String>, stop: CancellationToken) -> DaemonWork {
    let mut work = DaemonWork(names.into_iter().map(|name| (name, Counters::default())).collect());
    let mut ticks = interval(SAMPLE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => work.sample(&dir).await,
            () = stop.cancelled() => {
                work.sample(&dir).await;
                return work;
            }
        }
    }
}

pub struct DaemonWork(BTreeMap<String, Counters>);

impl DaemonWork {
    async fn sample(&mut self, dir: &DataDir) {
        for (name, counters) in &mut self.0 {
            let Some(announced) = dir.announced(name) else { continue };
            // A daemon that is down at this moment is asked again next time.
            if let Ok(page) = http::get(&announced.admin, "/metrics").await {
                counters.take(&page);
            }
        }
    }

    pub fn table(&self) -> Table {
        let mut table = terminal::table(["daemon", "work done (largest counters)"]);
        for (name, counters) in &self.0 {
            let kind = name.rsplit_once('-').map_or(name.as_str(), |(kind, _)| kind);
            let own = format!("shardkeep_{kind}_");
            let mut all: Vec<(&str, f64)> = counters
                .total
                .iter()
                .filter_map(|(counter, value)| {
                    Some((counter.strip_prefix(&own)?.trim_end_matches("_total"), *value))
                })
                .filter(|(_, value)| *value > 0.0)
                .collect();
            all.sort_by(|a, b| b.1.total_cmp(&a.1));
            let shown: Vec<String> = all
                .iter()
                .take(SHOWN)
                .map(|(counter, value)| format!("{} {value:.0}", counter.replace('_', " ")))
                .collect();
            table.add_row([name.clone(), shown.join(", ")]);
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counter_totals_survive_restart() {
        let mut counters = Counters::default();
        counters.take("# HELP x\nshardkeep_zone_ticks_total 10\nshardkeep_zone_load 3\n");
        counters.take("shardkeep_zone_ticks_total{a=\"b\"} 12\nshardkeep_zone_ticks_total{a=\"c\"} 3\n");
        counters.take("shardkeep_zone_ticks_total 4\n");
        assert_eq!(counters.total.get("shardkeep_zone_ticks_total"), Some(&19.0));
        assert_eq!(counters.total.len(), 1);
    }
}
