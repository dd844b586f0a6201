//! `shardkeep doctor`: finds problems of this machine that keep a cluster from running, and tells how to solve them.

use std::{
    net::{TcpListener, UdpSocket},
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Result;
use clap::Args;
use rustix::process::{Resource, getrlimit};
use shardkeep_store as store;

use crate::{data_dir::DataDir, http, terminal::explain, up};

/// Two files for each player, and the files of the daemons.
const MIN_OPEN_FILES: u64 = 4_096;
/// Space for the stores and logs of one day of play.
const MIN_DISK_MB: u64 = 512;

#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Folder of the cluster
    #[arg(long, default_value = "var", env = "SHARDKEEP_DATA_DIR")]
    data_dir: PathBuf,
    /// First of the ports that `up` would use
    #[arg(long, default_value_t = 7000, value_parser = up::port_base())]
    port_base: u16,
    /// Settings file that `up` would use
    #[arg(long)]
    config: Option<PathBuf>,
    /// Region that `up` would be, with `--region` and without `--home`
    #[arg(long)]
    region: Option<String>,
    /// PostgreSQL that `up` would use
    #[arg(long, env = "SHARDKEEP_POSTGRES", hide_env_values = true)]
    postgres: Option<String>,
    /// Redis that `up` would use
    #[arg(long, env = "SHARDKEEP_REDIS", hide_env_values = true)]
    redis: Option<String>,
}

/// The result of one check.
enum Finding {
    Good(String),
    /// The problem, and how to solve it.
    Bad(String, String),
}

/// Exit code 1 when anything is wrong.
pub async fn run(args: &DoctorArgs) -> Result<ExitCode> {
    let dir = DataDir::new(&args.data_dir)?;
    let running = dir.supervisor()?.is_some();
    let mut findings =
        vec![("open files", open_files()), ("clock", clock()), ("data directory", folder(&dir))];
    findings.push(("disk", disk(&dir)));
    findings.push(if running { ("cluster", daemons(&dir).await) } else { ("ports", ports(args.port_base)) });
    if let Some(path) = &args.config {
        findings.push(("settings", settings(path, &dir, args.region.as_deref())));
    }
    if let Some(url) = &args.postgres {
        findings.push(("postgres", postgres(url).await));
    }
    findings.push(("world leases", leases(&dir, args.postgres.as_deref()).await));
    if let Some(url) = &args.redis {
        findings.push(("redis", redis_server(url).await));
    }
    let mut failed = false;
    for (what, finding) in findings {
        match finding {
            Finding::Good(text) => println!("ok    {what}: {text}"),
            Finding::Bad(text, fix) => {
                failed = true;
                println!("BAD   {what}: {text}\n      fix:  {fix}");
            }
        }
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn open_files() -> Finding {
    // Daemons raise their soft limit to the hard one themselves.
    let most = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    if most >= MIN_OPEN_FILES {
        return Finding::Good(format!("{most} per process"));
    }
    Finding::Bad(format!("only {most} per process"), format!("`ulimit -Hn {MIN_OPEN_FILES}` before starting"))
}

fn clock() -> Finding {
    // No certificate is valid before 2026.
    let earliest = UNIX_EPOCH + Duration::from_secs(1_767_225_600);
    if SystemTime::now() > earliest {
        return Finding::Good("plausible".into());
    }
    Finding::Bad("stands before 2026".into(), "set it, for example with `timedatectl set-ntp true`".into())
}

fn folder(dir: &DataDir) -> Finding {
    let path = dir.path().display();
    let result = dir.create().and_then(|()| {
        let probe = dir.run().join("doctor.probe");
        std::fs::write(&probe, b"probe")?;
        Ok(std::fs::remove_file(&probe)?)
    });
    match result {
        Ok(()) => Finding::Good(format!("{path} can be written")),
        Err(error) => Finding::Bad(format!("{error:#}"), "choose another with --data-dir".into()),
    }
}

fn disk(dir: &DataDir) -> Finding {
    match rustix::fs::statvfs(dir.path()) {
        Ok(stat) => {
            let free = stat.f_bavail.saturating_mul(stat.f_frsize) >> 20;
            if free >= MIN_DISK_MB {
                return Finding::Good(format!("{free} MB free"));
            }
            Finding::Bad(format!("only {free} MB free"), "free some, or choose another --data-dir".into())
        }
        Err(error) => Finding::Bad(error.to_string(), "choose another with --data-dir".into()),
    }
}

fn ports(base: u16) -> Finding {
    for (name, port) in up::planned_ports(base) {
        let address = ("127.0.0.1", port);
        let free = TcpListener::bind(address).map(drop).and_then(|()| UdpSocket::bind(address).map(drop));
        if let Err(error) = free {
            return Finding::Bad(
                format!("{port} ({name}) cannot be used: {error}"),
                "`shardkeep up --port-base N` moves all ports, 0 takes free ones".into(),
            );
        }
    }
    Finding::Good(format!("all free from {base}"))
}

async fn daemons(dir: &DataDir) -> Finding {
    let mut not_ready = Vec::new();
    let names = up::planned_names();
    for name in &names {
        let ready = match dir.announced(name) {
            Some(announced) => http::get(&announced.admin, "/readyz").await.is_ok(),
            None => false,
        };
        if !ready {
            not_ready.push(name.clone());
        }
    }
    if not_ready.is_empty() {
        return Finding::Good(format!("{} daemons ready", names.len()));
    }
    Finding::Bad(
        format!("not ready: {}", not_ready.join(", ")),
        format!("their logs are in {}", dir.log().display()),
    )
}

/// Reads the settings as every daemon does.
fn settings(path: &Path, dir: &DataDir, region: Option<&str>) -> Finding {
    match up::check_settings(path, dir, region) {
        Ok(()) => Finding::Good(format!("every daemon takes {}", path.display())),
        Err(error) => Finding::Bad(explain(&error), "correct the file; `up` would refuse it".into()),
    }
}

/// Connects as the daemons do, with the same checks, and checks the right to create tables.
async fn postgres(url: &str) -> Finding {
    match store::inspect(url).await {
        Ok(found) if !found.may_create_tables => Finding::Bad(
            format!("{}: {} may not create tables", found.address, found.user),
            format!("`GRANT CREATE, USAGE ON SCHEMA public TO {}`", found.user),
        ),
        Ok(found) => {
            let through = if found.pooled { ", through a connection pooler" } else { "" };
            Finding::Good(format!("{} accepts {}{through}", found.address, found.user))
        }
        Err(error) => {
            let fix = match &error {
                store::Error::Url { .. } => "postgres://user:password@host:port/database",
                store::Error::Unreachable { .. } => {
                    "check the address and the firewall, and that PostgreSQL runs: `apt install postgresql`"
                }
                store::Error::AccessDenied { .. } => "correct user, password and database in --postgres",
                store::Error::ReadOnly => "let the address lead to the primary server",
                store::Error::NotUtf8 { .. } => "use a database with the encoding UTF8",
                _ => "look at the log of the PostgreSQL server",
            };
            Finding::Bad(explain(&error.into()), fix.into())
        }
    }
}

/// Reports leases of worlds that a clock set back has made too long. A world takes such a lease over when it starts.
async fn leases(dir: &DataDir, postgres: Option<&str>) -> Finding {
    let file = dir.db().join("dbcache.db");
    let url = match postgres {
        Some(url) => url.to_owned(),
        None if file.exists() => format!("sqlite:{}", file.display()),
        None => return Finding::Good("no world has a lease yet".into()),
    };
    match store::game::find_lease_faults(&url).await {
        Ok(faults) if faults.is_empty() => Finding::Good("all end in time".into()),
        Ok(faults) => {
            let faults: Vec<String> = faults
                .iter()
                .map(|fault| {
                    let seconds = fault.offset.as_secs();
                    format!("world {}: the lease of {} ends {seconds} s too late", fault.world, fault.holder)
                })
                .collect();
            Finding::Bad(
                format!("{}; the clock was set back", faults.join("; ")),
                "synchronise the clocks (`timedatectl set-ntp true`); the world takes the lease over when it starts"
                    .into(),
            )
        }
        // A database that no dbcache has used yet has no table of leases.
        Err(store::Error::Statement(_)) => Finding::Good("no world has a lease yet".into()),
        Err(error) => Finding::Bad(explain(&error.into()), "see the finding about the database".into()),
    }
}

/// Connects as chat does.
async fn redis_server(url: &str) -> Finding {
    match shardkeep_bus::inspect(url).await {
        Ok(address) => Finding::Good(format!("{address} is a primary and answers")),
        Err(error) => Finding::Bad(
            error,
            "check address, user and password in --redis, and that Redis runs: `apt install redis-server`"
                .into(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_check_reports_unknown_key() {
        let folder = tempfile::tempdir().unwrap();
        let (dir, file) = (DataDir::new(folder.path()).unwrap(), folder.path().join("mine.toml"));
        std::fs::write(&file, "[zone]\nmax_avatars = 10\n").unwrap();
        assert!(matches!(settings(&file, &dir, None), Finding::Good(_)));
        std::fs::write(&file, "[zone]\nmax_avatar = 10\n").unwrap();
        let Finding::Bad(what, _) = settings(&file, &dir, None) else { panic!("taken") };
        assert!(what.contains("mine.toml:2:1"), "{what}");
    }

    #[tokio::test]
    async fn unreachable_servers_are_named() {
        // A port that was free a moment ago.
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let Finding::Bad(what, _) = postgres(&format!("postgres://u:p@{free}/game")).await else {
            panic!("answers")
        };
        assert!(what.contains(&free.to_string()) && !what.contains("u:p"), "{what}");
        let Finding::Bad(what, _) = redis_server(&format!("redis://{free}")).await else { panic!("answers") };
        assert!(what.contains(&free.to_string()), "{what}");
    }

    #[tokio::test]
    async fn lease_from_before_clock_was_set_back_is_reported() {
        let folder = tempfile::tempdir().unwrap();
        let dir = DataDir::new(folder.path()).unwrap();
        dir.create().unwrap();
        assert!(matches!(leases(&dir, None).await, Finding::Good(_)));
        let url = format!("sqlite:{}", dir.db().join("dbcache.db").display());
        let database = store::Database::open(&url, store::Schema::Game).await.unwrap();
        let lease = "INSERT INTO leadership (world, holder, incarnation, term, until_ms, ttl_ms) \
             VALUES (1, 'world-1', 1, 1, {now_ms} + $1, 4000)";
        database.execute(store::sql(lease).bind(4_000)).await.unwrap();
        assert!(matches!(leases(&dir, None).await, Finding::Good(_)));
        database.execute(store::sql("UPDATE leadership SET until_ms = until_ms + 3600000")).await.unwrap();
        // The daemon that owns the file may still run.
        let Finding::Bad(what, _) = leases(&dir, None).await else { panic!("not reported") };
        assert!(
            what.contains("world 1") && what.contains("world-1") && what.contains(" s too late"),
            "{what}"
        );
    }
}
