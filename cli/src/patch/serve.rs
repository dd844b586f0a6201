//! `shardkeep patch serve`: the update service of a login daemon, on a machine without other daemons.

use std::{io::IsTerminal as _, path::PathBuf};

use anyhow::{Context as _, Result};
use clap::Args;
use shardkeep_daemon::Validate as _;
use shardkeep_patch::PublicKey;
use shardkeep_update::{Config, StandaloneConfig, serve_standalone};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use tracing_subscriber::EnvFilter;

use super::store::Store;
use crate::terminal;

#[derive(Debug, Args)]
pub struct ServeArgs {
    #[arg(long, value_name = "DIR")]
    store: PathBuf,
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1:7150")]
    listen: String,
    /// Public key of the served releases' signatures; any when absent
    #[arg(long, value_name = "HEX")]
    public_key: Option<PublicKey>,
    /// Name of the deployment
    #[arg(long, default_value = "dev")]
    deployment: String,
    /// Bytes per second for all clients together; 0 is without limit
    #[arg(long, default_value_t = 0)]
    bandwidth: u64,
    /// Bytes per second for each connection; 0 is without limit
    #[arg(long, default_value_t = 0)]
    bandwidth_per_connection: u64,
}

/// Logs its releases and errors to standard error, as login daemons do.
pub async fn run(args: ServeArgs) -> Result<()> {
    let lines =
        tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    // Fails when a test has installed a subscriber.
    let _ = lines.with_target(false).with_env_filter(EnvFilter::new("info")).try_init();
    let store = Store::open(&args.store)?;
    warn_about_damage(&store);
    let patches = Config {
        dir: args.store.display().to_string(),
        key: args.public_key.map(|key| key.to_string()).unwrap_or_default(),
        bandwidth: args.bandwidth,
        bandwidth_per_connection: args.bandwidth_per_connection,
        ..Config::default()
    };
    patches.validate().map_err(anyhow::Error::msg)?;
    let listener =
        TcpListener::bind(&args.listen).await.with_context(|| format!("cannot listen on {}", args.listen))?;
    terminal::emit(format_args!("serving {} on {}", args.store.display(), listener.local_addr()?));
    let stop = CancellationToken::new();
    let interrupted = stop.clone();
    tokio::spawn(async move {
        // Without signal handlers only a kill ends it.
        if tokio::signal::ctrl_c().await.is_ok() {
            interrupted.cancel();
        }
    });
    serve_standalone(listener, &StandaloneConfig { patches, deployment: args.deployment }, stop).await
}

/// Counts missing and damaged chunks. Without a readable release the count is zero, and the service logs the reason.
fn warn_about_damage(store: &Store) {
    let Ok(Some(manifest)) = store.published() else { return };
    let damaged = store.damaged(&manifest);
    if let Some(first) = damaged.first() {
        let (count, release) = (damaged.len(), &manifest.release().name);
        warn!(
            "{count} chunks of release {release} are missing or have another size, {first} among them: copy them here \
             from where the release was built, or build it again"
        );
    }
}
