//! `shardkeep ledger`: the conservation query. Every item and coin has exactly one holder and one origin, or this
//! says which one has not.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use serde::Serialize;
use shardkeep_rpc::dbcache::{ConserveReply, ConserveRequest};

use crate::operator::{ClusterArgs, Operator};

#[derive(Debug, Args)]
pub struct LedgerArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(Debug, Serialize)]
pub struct Ledger {
    pub holds: bool,
    pub items: u64,
    pub items_minted: u64,
    pub items_burned: u64,
    pub coins: i64,
    pub coins_minted: i64,
    pub coins_burned: i64,
    pub faults: Vec<String>,
}

impl From<ConserveReply> for Ledger {
    fn from(reply: ConserveReply) -> Self {
        Self {
            holds: reply.holds,
            items: reply.items,
            items_minted: reply.items_minted,
            items_burned: reply.items_burned,
            coins: reply.coins,
            coins_minted: reply.coins_minted,
            coins_burned: reply.coins_burned,
            faults: reply.faults,
        }
    }
}

pub async fn run(args: &LedgerArgs) -> Result<ExitCode> {
    let ledger = query(&Operator::connect(&args.cluster).await?).await?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&ledger)?);
    } else {
        print(&ledger);
    }
    Ok(if ledger.holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

pub async fn query(operator: &Operator) -> Result<Ledger> {
    Ok(operator.dbcache().await?.conserve(ConserveRequest {}).await?.into_inner().into())
}

pub fn print(ledger: &Ledger) {
    println!("items: {} = {} minted - {} burned", ledger.items, ledger.items_minted, ledger.items_burned);
    println!("coins: {} = {} minted - {} burned", ledger.coins, ledger.coins_minted, ledger.coins_burned);
    println!("conservation {}", if ledger.holds { "holds" } else { "DOES NOT HOLD" });
    for fault in &ledger.faults {
        println!("  {fault}");
    }
}
