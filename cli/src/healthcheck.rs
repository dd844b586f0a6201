//! `shardkeep healthcheck`: readiness as an exit code, for containers and scripts.

use anyhow::Result;
use clap::Args;

use crate::http;

#[derive(Debug, Args)]
pub struct HealthcheckArgs {
    /// Admin address of the daemon, host:port
    #[arg(env = "SHARDKEEP_ADMIN")]
    admin: String,
}

pub async fn run(args: &HealthcheckArgs) -> Result<()> {
    http::get(&args.admin, "/readyz").await?;
    println!("ready");
    Ok(())
}
