//! `shardkeep doctor`: what on this machine would keep a cluster from running, and how to mend it.

use std::{
    net::{TcpListener, UdpSocket},
    path::PathBuf,
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Result;
use clap::Args;
use rustix::process::{Resource, getrlimit};
use tokio::{net::TcpStream, time::timeout};

use crate::{data_dir::DataDir, http, up};

/// Two files per player and room for the daemons' own.
const WANTED_FILES: u64 = 4_096;
/// What the stores and logs of a day of playing may take.
const WANTED_DISK_MB: u64 = 512;

#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Folder of the cluster
    #[arg(long, default_value = "var", env = "SHARDKEEP_DATA_DIR")]
    data_dir: PathBuf,
    /// First of the ports that `up` would use
    #[arg(long, default_value_t = 7000)]
    port_base: u16,
    /// Settings file that `up` would use
    #[arg(long)]
    config: Option<PathBuf>,
    /// PostgreSQL that `up` would use
    #[arg(long, env = "SHARDKEEP_POSTGRES", hide_env_values = true)]
    postgres: Option<String>,
    /// Redis that `up` would use
    #[arg(long, env = "SHARDKEEP_REDIS", hide_env_values = true)]
    redis: Option<String>,
}

/// What one check found.
enum Finding {
    Good(String),
    /// What is wrong, and how to mend it.
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
        findings.push(("settings", settings(path)));
    }
    if let Some(url) = &args.postgres {
        findings
            .push(("postgres", server(url, 5432, "is PostgreSQL running? `apt install postgresql`").await));
    }
    if let Some(url) = &args.redis {
        findings.push(("redis", server(url, 6379, "is Redis running? `apt install redis-server`").await));
    }
    let mut sick = false;
    for (what, finding) in findings {
        match finding {
            Finding::Good(text) => println!("ok    {what}: {text}"),
            Finding::Bad(text, mend) => {
                sick = true;
                println!("BAD   {what}: {text}\n      mend: {mend}");
            }
        }
    }
    Ok(if sick { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn open_files() -> Finding {
    // Daemons raise their soft limit to the hard one themselves.
    let most = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    if most >= WANTED_FILES {
        return Finding::Good(format!("{most} per process"));
    }
    Finding::Bad(format!("only {most} per process"), format!("`ulimit -Hn {WANTED_FILES}` before starting"))
}

fn clock() -> Finding {
    // Before this program was written: certificates would not be valid yet.
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
            if free >= WANTED_DISK_MB {
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
    let mut silent = Vec::new();
    let names = up::planned_names();
    for name in &names {
        let ready = match dir.announced(name) {
            Some(announced) => http::get(&announced.admin, "/readyz").await.is_ok(),
            None => false,
        };
        if !ready {
            silent.push(name.clone());
        }
    }
    if silent.is_empty() {
        return Finding::Good(format!("{} daemons ready", names.len()));
    }
    Finding::Bad(
        format!("not ready: {}", silent.join(", ")),
        format!("their last words are in {}", dir.log().display()),
    )
}

fn settings(path: &PathBuf) -> Finding {
    let parsed = std::fs::read_to_string(path)
        .map_err(|error| error.to_string())
        .and_then(|text| text.parse::<toml::Table>().map_err(|error| error.to_string()));
    match parsed {
        Ok(table) => match table.keys().find(|section| !up::is_section(section)) {
            None => Finding::Good(format!("{} has {} sections", path.display(), table.len())),
            Some(section) => Finding::Bad(
                format!("[{section}] belongs to no daemon"),
                "sections are daemon, cluster, log, or the kind of a daemon".into(),
            ),
        },
        Err(error) => Finding::Bad(format!("{}: {error}", path.display()), "correct the file".into()),
    }
}

async fn server(url: &str, default_port: u16, mend: &str) -> Finding {
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest).split('/').next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let address = if host.contains(':') { host.to_owned() } else { format!("{host}:{default_port}") };
    match timeout(Duration::from_secs(3), TcpStream::connect(&address)).await {
        Ok(Ok(_)) => Finding::Good(format!("{address} answers")),
        Ok(Err(error)) => Finding::Bad(format!("{address}: {error}"), mend.into()),
        Err(_) => Finding::Bad(format!("{address}: no answer"), mend.into()),
    }
}
