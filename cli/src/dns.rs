//! `shardkeep dns`: shows and switches the pools of addresses that the name servers answer from.

use std::time::Instant;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use comfy_table::Table;
use shardkeep_rpc::dns::{ListPoolsRequest, Pool, SwitchPoolRequest};

use crate::{
    operator::{ClusterArgs, Operator},
    terminal,
};

#[derive(Debug, Args)]
pub struct DnsArgs {
    #[command(subcommand)]
    command: DnsCommand,
    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(Debug, Subcommand)]
enum DnsCommand {
    /// Show the pools of the settings, and which one is active
    Pools,
    /// Answer from this pool on every name server; `live` goes back to the replicas that are up
    Switch { pool: String },
}

pub async fn run(args: DnsArgs) -> Result<()> {
    let mut dns = Operator::connect(&args.cluster).await?.dns().await?;
    match args.command {
        DnsCommand::Pools => {
            let reply = dns.list_pools(ListPoolsRequest {}).await?.into_inner();
            println!("{}", table(&reply.active, &reply.pools));
        }
        DnsCommand::Switch { pool } => {
            let begin = Instant::now();
            let reply = dns.switch_pool(SwitchPoolRequest { pool: pool.clone() }).await?.into_inner();
            let (answering, took) = (reply.answering.join(", "), begin.elapsed().as_millis());
            println!(
                "{answering}: answering from {pool} after {took} ms; resolvers may keep what they have for a few seconds"
            );
            if !reply.lagging.is_empty() {
                bail!("{}: not yet; is [dns.pools.{pool}] in its settings?", reply.lagging.join(", "));
            }
        }
    }
    Ok(())
}

fn table(active: &str, pools: &[Pool]) -> Table {
    let mut table = terminal::table(["pool", "active", "login", "gateway"]);
    for pool in pools {
        let shown = |addresses: &[String]| match addresses {
            [] => "(registry)".to_owned(),
            some => some.join(" "),
        };
        let mark = if pool.name == active { "yes" } else { "" };
        table.add_row([pool.name.clone(), mark.to_owned(), shown(&pool.login), shown(&pool.gateway)]);
    }
    table
}
