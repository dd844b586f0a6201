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
use sqlx::{ConnectOptions as _, Connection as _, postgres::PgConnectOptions};
use tokio::time::timeout;

use crate::{data_dir::DataDir, http, terminal::explain, up};

/// Two files for each player, and the files of the daemons.
const MIN_OPEN_FILES: u64 = 4_096;
/// Longest wait for a server's answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
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

/// Connects as the daemons do, and checks the right to create tables.
async fn postgres(url: &str) -> Finding {
    let options: PgConnectOptions = match url.parse() {
        Ok(options) => options,
        Err(error) => {
            let fix = "postgres://user:password@host:port/database";
            return Finding::Bad(format!("--postgres: {error}"), fix.into());
        }
    };
    let server = format!(
        "{}:{}/{}",
        options.get_host(),
        options.get_port(),
        options.get_database().unwrap_or_else(|| options.get_username())
    );
    let asked = async {
        let mut connection = options.connect().await?;
        let may = "SELECT has_schema_privilege(current_schema(), 'CREATE') OR \
                   has_database_privilege(current_database(), 'CREATE')";
        let may: Option<bool> = sqlx::query_scalar(may).fetch_one(&mut connection).await?;
        connection.close().await?;
        Ok::<bool, sqlx::Error>(may.unwrap_or(false))
    };
    match timeout(ANSWER_TIMEOUT, asked).await {
        Ok(Ok(true)) => Finding::Good(format!("{server} lets {} in", options.get_username())),
        Ok(Ok(false)) => Finding::Bad(
            format!("{server}: {} may not make tables", options.get_username()),
            format!("`GRANT CREATE, USAGE ON SCHEMA public TO {}`", options.get_username()),
        ),
        Ok(Err(sqlx::Error::Database(error))) => {
            Finding::Bad(format!("{server}: {error}"), "user, password and database of --postgres".into())
        }
        Ok(Err(error)) => Finding::Bad(
            format!("{server}: {error}"),
            "is PostgreSQL running there? `apt install postgresql`".into(),
        ),
        Err(_) => Finding::Bad(
            format!("{server}: no answer"),
            "is the address right, and no firewall between?".into(),
        ),
    }
}

/// Connects as chat does, and sends a PING.
async fn redis_server(url: &str) -> Finding {
    let client = match redis::Client::open(url) {
        Ok(client) => client,
        Err(error) => return Finding::Bad(format!("--redis: {error}"), "redis://host:port".into()),
    };
    let server = client.get_connection_info().addr().to_string();
    let asked = async {
        let mut connection = client.get_multiplexed_async_connection().await?;
        redis::cmd("PING").query_async::<String>(&mut connection).await
    };
    match timeout(ANSWER_TIMEOUT, asked).await {
        Ok(Ok(_)) => Finding::Good(format!("{server} answers")),
        Ok(Err(error)) => Finding::Bad(
            format!("{server}: {error}"),
            "is Redis running there, and is its password in --redis? `apt install redis-server`".into(),
        ),
        Err(_) => Finding::Bad(
            format!("{server}: no answer"),
            "is the address right, and no firewall between?".into(),
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
}
