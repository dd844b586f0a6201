//! Processes and their costs, as the operating system accounts them.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    path::PathBuf,
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::time::{ClockId, clock_gettime};

/// What `/proc` counts CPU time in, on every architecture that we build for (USER_HZ of the Linux ABI).
const TICK: Duration = Duration::from_millis(10);

/// CPU time of this process so far, all threads.
pub fn own_cpu() -> Duration {
    clock(ClockId::ProcessCPUTime)
}

/// CPU time of this thread so far: what a core gave it, however many others wanted the core.
pub fn thread_cpu() -> Duration {
    clock(ClockId::ThreadCPUTime)
}

fn clock(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}

/// CPU time of another process so far, user and system, all threads (proc(5): fields 14 and 15 of `stat`).
pub fn cpu_of(pid: u32) -> Result<Duration> {
    let stat = read(pid, "stat")?;
    // The name in the second field may hold anything, also spaces.
    let fields = stat.rsplit_once(')').context("a stat without a name")?.1;
    let ticks = |place: usize| -> Result<u32> {
        Ok(fields.split_whitespace().nth(place).context("a short stat")?.parse()?)
    };
    Ok(TICK * (ticks(11)? + ticks(12)?))
}

/// Resident memory of a process in KiB.
pub fn resident_kib(pid: u32) -> Result<u64> {
    kib(&read(pid, "status")?, "VmRSS:")
}

/// The same with each shared page counted as a part to each who shares it.
pub fn proportional_kib(pid: u32) -> Result<u64> {
    kib(&read(pid, "smaps_rollup")?, "Pss:")
}

fn read(pid: u32, file: &str) -> Result<String> {
    let path = format!("/proc/{pid}/{file}");
    fs::read_to_string(&path).with_context(|| format!("{path}: has the process ended?"))
}

fn kib(text: &str, name: &str) -> Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| name.to_owned())?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// A port that was free a moment ago.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// A file of this crate, such as a peer's script.
pub fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The output of a program, or `None` when it is not installed.
pub fn output(program: &str, args: &[&str]) -> Result<Option<String>> {
    let output = match Command::new(program).args(args).output() {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot run {program}")),
    };
    ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(Some(String::from_utf8(output.stdout)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_cpu_and_memory_are_readable() {
        let me = std::process::id();
        assert!(cpu_of(me).unwrap() <= own_cpu() + Duration::from_millis(20));
        assert!(resident_kib(me).unwrap() >= proportional_kib(me).unwrap());
    }
}
