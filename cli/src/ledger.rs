//! `shardkeep ledger`: the conservation query. It reports each item and coin that does not have exactly one holder and one
//! origin.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args;
use serde::Serialize;
use shardkeep_cluster::{Instance, STORES_ATTRIBUTE};
use shardkeep_rpc::dbcache::{CheckConservationReply, CheckConservationRequest};

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

impl From<CheckConservationReply> for Ledger {
    fn from(reply: CheckConservationReply) -> Self {
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

/// Queries every dbcache. Replicas of one store give the same answer. A second store is a fault.
pub async fn query(operator: &Operator) -> Result<Ledger> {
    let mut replies: Vec<StoreReply> = Vec::new();
    for (instance, mut dbcache) in operator.dbcaches().await? {
        let Instance { id, mut attributes, .. } = instance;
        let totals: Ledger = dbcache
            .check_conservation(CheckConservationRequest {})
            .await
            .with_context(|| format!("{} does not tell its books", id.name))?
            .into_inner()
            .into();
        replies.push(StoreReply {
            name: id.name,
            store: attributes.remove(STORES_ATTRIBUTE).unwrap_or_default(),
            totals,
        });
    }
    merge(replies).context("no dbcache was asked")
}

/// The answer of one dbcache.
struct StoreReply {
    name: String,
    store: String,
    totals: Ledger,
}

/// The totals of the first answer, with the faults of all.
fn merge(replies: Vec<StoreReply>) -> Option<Ledger> {
    let mut replies = replies.into_iter();
    let StoreReply { name: first, store, mut totals } = replies.next()?;
    let mut seen = vec![store];
    for StoreReply { name, store, totals: other_totals } in replies {
        if seen.contains(&store) {
            continue;
        }
        seen.push(store);
        totals.holds = false;
        totals.faults.push(format!(
            "{name} keeps another store than {first}, with {} items and {} coins of its own",
            other_totals.items, other_totals.coins
        ));
        totals.faults.extend(other_totals.faults.into_iter().map(|fault| format!("{name}: {fault}")));
    }
    Some(totals)
}

pub fn print(ledger: &Ledger) {
    println!("items: {} = {} minted - {} burned", ledger.items, ledger.items_minted, ledger.items_burned);
    println!("coins: {} = {} minted - {} burned", ledger.coins, ledger.coins_minted, ledger.coins_burned);
    println!("conservation {}", if ledger.holds { "holds" } else { "DOES NOT HOLD" });
    for fault in &ledger.faults {
        println!("  {fault}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replies(name: &str, store: &str, items: u64) -> StoreReply {
        let totals = CheckConservationReply { holds: true, items, ..CheckConservationReply::default() };
        StoreReply { name: name.to_owned(), store: store.to_owned(), totals: totals.into() }
    }

    #[test]
    fn replicas_of_one_store_are_counted_once() {
        let one = merge(vec![replies("dbcache-1", "a", 7), replies("dbcache-2", "a", 7)]).unwrap();
        assert!(one.holds && one.items == 7 && one.faults.is_empty());
        assert!(merge(Vec::new()).is_none());
    }

    #[test]
    fn two_stores_break_conservation() {
        let replicas =
            [replies("dbcache-1", "a", 7), replies("dbcache-2", "b", 3), replies("dbcache-3", "b", 3)];
        let two = merge(Vec::from(replicas)).unwrap();
        assert!(!two.holds);
        assert_eq!(two.faults.len(), 1, "{:?}", two.faults);
        assert!(two.faults[0].starts_with("dbcache-2 keeps another store than dbcache-1, with 3 items"));
    }
}
