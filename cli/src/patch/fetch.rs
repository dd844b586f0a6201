//! `shardkeep patch fetch`: installs a release as a game's launcher does.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use shardkeep_client::{
    Config, login,
    update::{Options, Progress, Stage, UpdateError, UpdateSummary, update},
};
use shardkeep_patch::PublicKey;
use tokio::time::interval;

use super::common::{DISK, NETWORK, REFUSED, bytes};

const FRAME: Duration = Duration::from_millis(100);

#[derive(Debug, Args)]
pub struct FetchArgs {
    /// Folder to bring to the published release
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Trusted public key; may be repeated
    #[arg(long, value_name = "HEX", required = true)]
    public_key: Vec<PublicKey>,
    /// host:port of a login server or of `shardkeep patch serve`; may be repeated
    #[arg(long, value_name = "ADDRESS", required_unless_present = "zone")]
    server: Vec<String>,
    /// DNS zone of the cluster, to use its login servers
    #[arg(long)]
    zone: Option<String>,
    /// Address of the cluster's DNS server; the system's when absent
    #[arg(long, requires = "zone")]
    dns: Option<SocketAddr>,
    /// Name of the deployment
    #[arg(long, default_value = "dev")]
    deployment: String,
    /// Connections to fetch over
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=32))]
    connections: u16,
    /// Seconds to try without receiving a byte
    #[arg(long, default_value_t = 60)]
    patience: u64,
    /// Accept a release that is older than the installed one
    #[arg(long)]
    allow_older: bool,
    /// Warn about a release that was signed more than this many days ago
    #[arg(long, value_name = "DAYS", default_value_t = 90)]
    warn_after: u32,
    /// Refuse a release that was signed more than this many days ago; none when absent
    #[arg(long, value_name = "DAYS")]
    refuse_after: Option<u32>,
    /// Trust the record of the last update instead of reading every file
    #[arg(long)]
    quick: bool,
}

pub async fn run(args: &FetchArgs) -> Result<ExitCode> {
    let mut config = args.dns.map_or_else(Config::default, Config::with_dns).deployment(&args.deployment);
    config.timing.connect = Duration::from_secs(5);
    let servers = servers(args, &config).await?;
    let options = Options {
        to: args.to.clone(),
        keys: args.public_key.clone(),
        connections: args.connections.into(),
        patience: Duration::from_secs(args.patience),
        allow_older: args.allow_older,
        warn_after: days(args.warn_after),
        refuse_after: args.refuse_after.map(days),
        quick: args.quick,
    };
    let progress = Progress::shared();
    let shown = tokio::spawn(show(progress.clone()));
    let done = update(&config, &servers, &options, &progress).await;
    shown.abort();
    // Aborting the task also removes its bar.
    let _ = shown.await;
    match done {
        Ok(done) => {
            if let Some(age) = done.stale {
                eprintln!(
                    "warning: this release was signed {} days ago; the servers may be out of date",
                    age.as_secs() / 86_400
                );
            }
            println!("{}", summary(&done));
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            eprintln!("error: {error}");
            Ok(ExitCode::from(code(&error)))
        }
    }
}

fn days(days: u32) -> Duration {
    Duration::from_hours(u64::from(days) * 24)
}

async fn servers(args: &FetchArgs, config: &Config) -> Result<Vec<SocketAddr>> {
    let mut servers = Vec::new();
    for server in &args.server {
        let found = tokio::net::lookup_host(server).await;
        servers.extend(found.with_context(|| format!("{server:?} is not host:port, or not known"))?);
    }
    if let Some(zone) = &args.zone {
        servers.extend(login::find(config, zone).await?);
    }
    ensure!(!servers.is_empty(), "no server has an address");
    Ok(servers)
}

fn code(error: &UpdateError) -> u8 {
    match error {
        UpdateError::Signed(_)
        | UpdateError::Older { .. }
        | UpdateError::Stale { .. }
        | UpdateError::WrongManifest => REFUSED,
        UpdateError::Disk { .. } | UpdateError::InsufficientSpace { .. } | UpdateError::Locked(_) => DISK,
        UpdateError::Client(_)
        | UpdateError::Chunk { .. }
        | UpdateError::MissingChunk(_)
        | UpdateError::ReleaseWithdrawn => NETWORK,
    }
}

fn summary(done: &UpdateSummary) -> String {
    let UpdateSummary { release, written, removed, fetched_bytes, corrupted, lost, .. } = done;
    let mut text = format!("release {} ({}) is installed", release.name, release.sequence);
    if *written + *removed == 0 {
        text.push_str("; it was already");
    } else {
        text.push_str(&format!(
            "; {written} files written, {removed} removed, {} fetched",
            bytes(*fetched_bytes)
        ));
    }
    if *corrupted + *lost > 0 {
        text.push_str(&format!(" ({corrupted} chunks came wrong, {lost} connections were lost)"));
    }
    text
}

async fn show(progress: Arc<Progress>) {
    let bar = Bar(ProgressBar::no_length());
    let style = "{spinner} {msg:9} {bar:30} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}";
    let steps = "{spinner} {msg:9} {bar:30} {pos}/{len} files";
    let (mut frames, mut shown) = (interval(FRAME), None);
    loop {
        frames.tick().await;
        let (stage, position, length) = progress.snapshot();
        if shown != Some(stage) {
            shown = Some(stage);
            let template = if stage == Stage::Commit { steps } else { style };
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.0.set_style(style);
            }
            bar.0.reset();
            bar.0.set_message(match stage {
                Stage::Manifest => "asking",
                Stage::Scan => "reading",
                Stage::Copy => "copying",
                Stage::Fetch => "fetching",
                Stage::Commit => "placing",
            });
        }
        bar.0.set_length(length);
        bar.0.set_position(position);
    }
}

/// Removes the bar when its task ends.
struct Bar(ProgressBar);

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
