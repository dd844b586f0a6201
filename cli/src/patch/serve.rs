//! `shardkeep patch serve`: the update service of a login daemon, on a machine that has nothing else to do.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;
use shardkeep_daemon::Validate as _;
use shardkeep_login::update::{Alone, Config, serve_alone};
use shardkeep_patch::PublicKey;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::store::Store;
use crate::terminal;

#[derive(Debug, Args)]
pub struct ServeArgs {
    #[arg(long, value_name = "DIR")]
    store: PathBuf,
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:7150")]
    listen: String,
    /// Key that must have signed what is served; any when absent
    #[arg(long, value_name = "HEX")]
    public_key: Option<PublicKey>,
    /// Name of the deployment that clients say
    #[arg(long, default_value = "dev")]
    deployment: String,
    /// Bytes per second for all clients together; 0 is without limit
    #[arg(long, default_value_t = 0)]
    bandwidth: u64,
    /// Bytes per second for each connection; 0 is without limit
    #[arg(long, default_value_t = 0)]
    bandwidth_per_connection: u64,
}

pub async fn run(args: ServeArgs) -> Result<()> {
    Store::open(&args.store)?;
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
    terminal::say(format_args!("serving {} on {}", args.store.display(), listener.local_addr()?));
    let stop = CancellationToken::new();
    let interrupted = stop.clone();
    tokio::spawn(async move {
        // Without signals it is ended less gently.
        if tokio::signal::ctrl_c().await.is_ok() {
            interrupted.cancel();
        }
    });
    serve_alone(listener, &Alone { patches, deployment: args.deployment }, stop).await
}
