//! The result of the run as tables and as JSON, and the verdict.

use std::collections::BTreeMap;

use comfy_table::{CellAlignment, Table};
use serde::Serialize;

use crate::{
    attack_plan::{Attack, Report},
    daemon_monitor::DaemonUsage,
    honest_players::Visits,
    tally::Counts,
};
use shardkeep_cli::{
    demo::stats::{Figures, Step, time},
    terminal,
};

/// Least share of honest visits that must succeed.
pub const SUCCESS: f64 = 0.999;
/// Processor time that a gateway may use under attack, in shares of a core: multiples of its time with honest players alone
/// and of the attackers' time, and a constant. A gateway that loops for a connection uses a whole core and exceeds the sum.
/// Processor time does not depend on the load of the machine.
const BASELINE_FACTOR: f64 = 1.5;
const ATTACKER_FACTOR: f64 = 2.0;
const CPU_ALLOWANCE: f64 = 0.2;
/// The steps shown in the table.
const STEPS: [Step; 6] = [Step::Dns, Step::Login, Step::List, Step::Attach, Step::Enter, Step::RoundTrip];
/// Words shown of why attempts ended.
const MAX_REASONS: usize = 4;

/// The visits of one phase.
#[derive(Debug, Serialize)]
pub struct Phase {
    pub visits: u64,
    pub failed: u64,
    /// 0.0 to 1.0.
    pub success: f64,
    pub steps: BTreeMap<&'static str, Figures>,
    pub failure_samples: Vec<String>,
}

#[derive(Debug, Serialize)]
pub struct Attackers {
    /// Share of one core that they may use, and the mean of what they used.
    pub cap: f64,
    pub cpu: f64,
    pub seconds: f64,
    /// Attempts a second of each attack.
    pub rate: u32,
    /// Connections each may keep open at once.
    pub open: usize,
}

#[derive(Debug, Serialize)]
pub struct Outcome {
    pub good: bool,
    pub faults: Vec<String>,
    pub baseline: Phase,
    pub attacked: Phase,
    pub attackers: Attackers,
    pub attacks: BTreeMap<Attack, Counts>,
    pub daemons: BTreeMap<String, DaemonUsage>,
}

impl Phase {
    pub fn of(visits: &Visits) -> Self {
        let steps = STEPS.iter().filter_map(|step| Some((step.key(), visits.stats.figures(*step)?)));
        Self {
            visits: visits.total(),
            failed: visits.failed(),
            success: visits.success(),
            steps: steps.collect(),
            failure_samples: visits.failure_samples(),
        }
    }
}

impl Outcome {
    pub fn evaluate(
        baseline: Phase,
        attacked: Phase,
        report: Report,
        attackers: Attackers,
        daemons: BTreeMap<String, DaemonUsage>,
        asked: &[Attack],
    ) -> Self {
        let mut faults = Vec::new();
        for (name, phase) in [("before the attack", &baseline), ("under attack", &attacked)] {
            if phase.success < SUCCESS {
                let Phase { visits, failed, .. } = phase;
                faults.push(format!("{failed} of {visits} honest visits failed {name}"));
            }
        }
        for (name, _) in daemons.iter().filter(|(_, daemon)| daemon.died) {
            faults.push(format!("{name} died"));
        }
        for (name, daemon) in daemons.iter().filter(|(_, daemon)| daemon.stuck) {
            faults.push(format!("{name} still holds {} connections", daemon.connections_after));
        }
        for (name, daemon) in daemons.iter().filter(|(_, daemon)| daemon.is_gateway) {
            let allowed =
                BASELINE_FACTOR * daemon.cpu_baseline + ATTACKER_FACTOR * attackers.cpu + CPU_ALLOWANCE;
            if daemon.cpu > allowed {
                let (spent, allowed) = (daemon.cpu * 100.0, allowed * 100.0);
                faults.push(format!("{name} spent {spent:.0} % of a core, where {allowed:.0} % would do"));
            }
        }
        for attack in asked {
            if report.attacks.get(attack).is_none_or(|counts| counts.attempts == 0) {
                faults.push(format!("{} never came to attack", attack.name()));
            }
        }
        for (attack, counts) in &report.attacks {
            if counts.breaches > 0 {
                let first = counts.remarks.first().map_or("", String::as_str);
                faults.push(format!("{}: {} breaches: {first}", attack.name(), counts.breaches));
            }
        }
        let good = faults.is_empty();
        Self { good, faults, baseline, attacked, attackers, attacks: report.attacks, daemons }
    }

    pub fn print(&self) {
        println!("{}", self.honest_players());
        println!("{}", self.attempts());
        println!("{}", self.costs());
        let Attackers { cap, cpu, seconds, rate, open } = &self.attackers;
        println!(
            "attackers: {:.0} % of one core of at most {:.0} %, over {seconds:.1} s; each attack at most {rate} attempts a \
             second and {open} connections at once",
            cpu * 100.0,
            cap * 100.0
        );
        for (attack, counts) in &self.attacks {
            if counts.attempts == 0 {
                println!("{}: made no attempt", attack.name());
            }
            for remark in &counts.remarks {
                println!("{}: {remark}", attack.name());
            }
        }
        for complaint in self.baseline.failure_samples.iter().chain(&self.attacked.failure_samples) {
            println!("  {complaint}");
        }
        for (name, phase) in [("before the attack", &self.baseline), ("under attack", &self.attacked)] {
            println!(
                "honest visits {name}: {}, {} failed ({:.2} % succeeded)",
                phase.visits,
                phase.failed,
                phase.success * 100.0
            );
        }
        for fault in &self.faults {
            println!("FAULT: {fault}");
        }
        println!("{}", if self.good { "the cluster holds" } else { "the cluster does not hold" });
    }

    fn honest_players(&self) -> Table {
        let mut table = terminal::table([
            "honest", "count", "failed", "p50", "p95", "p99", "attacked", "failed", "p50", "p95", "p99",
        ]);
        for step in STEPS {
            let of = |phase: &Phase| -> Vec<String> {
                match phase.steps.get(step.key()) {
                    Some(it) => {
                        let counts = [it.count.to_string(), it.failures.to_string()];
                        counts.into_iter().chain([it.p50_us, it.p95_us, it.p99_us].map(time)).collect()
                    }
                    None => vec!["-".to_owned(); 5],
                }
            };
            let row = [step.to_string()].into_iter().chain(of(&self.baseline)).chain(of(&self.attacked));
            table.add_row(row.collect::<Vec<_>>());
        }
        align_right(&mut table, 1);
        table
    }

    fn attempts(&self) -> Table {
        let mut table = terminal::table([
            "attack",
            "attempts",
            "accepted",
            "refused",
            "breaches",
            "longest",
            "why they ended",
        ]);
        for (attack, counts) in &self.attacks {
            let mut why: Vec<(&String, &u64)> = counts.why.iter().collect();
            why.sort_by(|a, b| b.1.cmp(a.1));
            let why: Vec<String> =
                why.iter().take(MAX_REASONS).map(|(reason, many)| format!("{reason} {many}")).collect();
            table.add_row([
                attack.name(),
                counts.attempts.to_string(),
                counts.accepted.to_string(),
                counts.refused.to_string(),
                counts.breaches.to_string(),
                time(counts.longest_ms.saturating_mul(1_000)),
                why.join(", "),
            ]);
        }
        align_right(&mut table, 1);
        if let Some(last) = table.column_mut(6) {
            last.set_cell_alignment(CellAlignment::Left);
        }
        table
    }

    fn costs(&self) -> Table {
        let mut table = terminal::table([
            "daemon",
            "CPU before",
            "under attack",
            "memory before",
            "most",
            "after",
            "connections, most",
            "after",
            "died",
        ]);
        let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
        for (name, it) in &self.daemons {
            table.add_row([
                name.clone(),
                format!("{:.0} %", it.cpu_baseline * 100.0),
                format!("{:.0} %", it.cpu * 100.0),
                mib(it.memory_before),
                mib(it.memory_peak),
                mib(it.memory_after),
                it.connections_peak.to_string(),
                it.connections_after.to_string(),
                if it.died { "yes" } else { "no" }.to_owned(),
            ]);
        }
        align_right(&mut table, 1);
        table
    }
}

fn align_right(table: &mut Table, from: usize) {
    for column in table.column_iter_mut().skip(from) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phase(visits: u64, failed: u64) -> Phase {
        let success = (visits - failed) as f64 / visits as f64;
        Phase { visits, failed, success, steps: BTreeMap::new(), failure_samples: Vec::new() }
    }

    fn judged(attacked: Phase, counts: Counts, daemon: DaemonUsage) -> Vec<String> {
        judged_for(attacked, counts, daemon, &[])
    }

    fn judged_for(attacked: Phase, counts: Counts, daemon: DaemonUsage, asked: &[Attack]) -> Vec<String> {
        let report = Report { attacks: [(Attack::Replays, counts)].into(), ..Report::default() };
        let attackers = Attackers { cap: 0.5, cpu: 0.4, seconds: 1.0, rate: 1, open: 1 };
        let daemons = [("login-1".into(), daemon)].into();
        let outcome = Outcome::evaluate(phase(10, 0), attacked, report, attackers, daemons, asked);
        assert_eq!(outcome.good, outcome.faults.is_empty());
        outcome.faults
    }

    #[test]
    fn evaluate_names_each_fault() {
        let some = || Counts { attempts: 3, ..Counts::default() };
        assert!(judged(phase(2_000, 2), some(), DaemonUsage::default()).is_empty());
        assert_eq!(
            judged(phase(999, 1), some(), DaemonUsage::default()),
            ["1 of 999 honest visits failed under attack"]
        );
        let mut dead = DaemonUsage::default();
        dead.died = true;
        assert_eq!(judged(phase(9, 0), some(), dead), ["login-1 died"]);
        let breach = Counts { breaches: 1, remarks: vec!["taken".into()], ..some() };
        assert_eq!(judged(phase(9, 0), breach, DaemonUsage::default()), ["replays: 1 breaches: taken"]);
    }

    #[test]
    fn requested_attack_without_attempts_is_a_fault() {
        let of = |attempts, asked: &[Attack]| {
            let counts = Counts { attempts, ..Counts::default() };
            judged_for(phase(9, 0), counts, DaemonUsage::default(), asked)
        };
        assert!(of(0, &[]).is_empty(), "of all attacks, some may not find where to begin");
        assert!(of(1, &[Attack::Replays]).is_empty());
        assert_eq!(of(0, &[Attack::Replays]), ["replays never came to attack"]);
        assert_eq!(of(1, &[Attack::Garbage]), ["garbage never came to attack"]);
    }

    #[test]
    fn gateway_cpu_above_allowance_is_a_fault() {
        let some = || Counts { attempts: 3, ..Counts::default() };
        // The attackers used 40 % of a core.
        let spent = |is_gateway, cpu| {
            let mut daemon = DaemonUsage::default();
            (daemon.is_gateway, daemon.cpu, daemon.cpu_baseline) = (is_gateway, cpu, 0.1);
            daemon
        };
        assert!(judged(phase(9, 0), some(), spent(true, 1.1)).is_empty());
        assert_eq!(
            judged(phase(9, 0), some(), spent(true, 1.2)),
            ["login-1 spent 120 % of a core, where 115 % would do"]
        );
        assert!(judged(phase(9, 0), some(), spent(false, 1.2)).is_empty(), "a login is work on purpose");
    }
}
