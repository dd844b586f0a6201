//! The process: its limit of open files, and its metrics (CPU, memory and open files), read from `/proc` at each scrape.

use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Clock ticks per second and page size that Linux shows to user space on every architecture we build for.
const TICKS_PER_SECOND: u64 = 100;
const CPU: &str = "shardkeep_process_cpu_milliseconds_total";
const RESIDENT: &str = "shardkeep_process_resident_bytes";
const OPEN_FILES: &str = "shardkeep_process_open_files";
const MAX_FILES: &str = "shardkeep_process_max_files";
const START: &str = "shardkeep_process_start_time_seconds";

/// Raises the limit of open files to the most that the system allows. The usual 1,024 serves programs that use
/// `select`; here every connection is a file, and a thousand idle connections would keep out all others.
pub(crate) fn raise_open_file_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // Raising the soft limit to the hard one needs no privilege. If it fails, the daemon reaches its limit sooner.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

pub(crate) fn describe() {
    describe_counter!(CPU, Unit::Milliseconds, "CPU time used, user and system");
    describe_gauge!(RESIDENT, Unit::Bytes, "Memory in use");
    describe_gauge!(OPEN_FILES, "Open file descriptors");
    describe_gauge!(MAX_FILES, "Open file descriptors that the process may have");
    describe_gauge!(START, Unit::Seconds, "Start of the process, in seconds since the Unix epoch");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    gauge!(START).set(now.as_secs_f64());
}

/// Updates the metrics. On systems without `/proc` they stay at 0.
pub(crate) fn sample() {
    if let Some(ticks) = std::fs::read_to_string("/proc/self/stat").ok().and_then(|text| cpu_ticks(&text)) {
        counter!(CPU).absolute(ticks * 1000 / TICKS_PER_SECOND);
    }
    if let Some(kib) = std::fs::read_to_string("/proc/self/status").ok().and_then(|text| resident_kib(&text))
    {
        gauge!(RESIDENT).set((kib * 1024) as f64);
    }
    if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
        gauge!(OPEN_FILES).set(files.count() as f64);
    }
    if let Some(limit) = getrlimit(Resource::Nofile).current {
        gauge!(MAX_FILES).set(limit as f64);
    }
}

/// Fields 14 and 15 of proc_pid_stat(5); the second field, a name in parentheses, may hold blanks.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn resident_kib(status: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_file_limit_is_raised_to_the_hard_limit() {
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        let lower = maximum.map_or(4_096, |maximum| maximum - 1);
        setrlimit(Resource::Nofile, Rlimit { current: Some(lower), maximum }).unwrap();
        raise_open_file_limit();
        assert_eq!(getrlimit(Resource::Nofile).current, maximum);
    }

    #[test]
    fn proc_stat_and_status_are_parsed() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 30 0 0 20 0 1 0 5 1 1";
        assert_eq!(cpu_ticks(stat), Some(280));
        assert_eq!(cpu_ticks("nonsense"), None);
        assert_eq!(resident_kib("VmPeak:\t 9 kB\nVmRSS:\t    1234 kB\n"), Some(1234));
    }
}
