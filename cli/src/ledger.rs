//! `shardkeep ledger`: the conservation query. Every item and coin has exactly one holder and one origin, or this
//! says which one has not.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args;
use serde::Serialize;
use shardkeep_cluster::{Instance, STORES};
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

/// Asks every dbcache. Replicas of one store tell the same; books of a second store are a fault by themselves.
pub async fn query(operator: &Operator) -> Result<Ledger> {
    let mut asked: Vec<Asked> = Vec::new();
    for (instance, mut dbcache) in operator.dbcaches().await? {
        let Instance { id, mut attributes, .. } = instance;
        let books: Ledger = dbcache
            .conserve(ConserveRequest {})
            .await
            .with_context(|| format!("{} does not tell its books", id.name))?
            .into_inner()
            .into();
        asked.push(Asked { name: id.name, store: attributes.remove(STORES).unwrap_or_default(), books });
    }
    together(asked).context("no dbcache was asked")
}

/// What one dbcache told.
struct Asked {
    name: String,
    store: String,
    books: Ledger,
}

/// The first one's books, and what is wrong with any.
fn together(asked: Vec<Asked>) -> Option<Ledger> {
    let mut asked = asked.into_iter();
    let Asked { name: first, store, mut books } = asked.next()?;
    let mut seen = vec![store];
    for Asked { name, store, books: theirs } in asked {
        if seen.contains(&store) {
            continue;
        }
        seen.push(store);
        books.holds = false;
        books.faults.push(format!(
            "{name} keeps another store than {first}, with {} items and {} coins of its own",
            theirs.items, theirs.coins
        ));
        books.faults.extend(theirs.faults.into_iter().map(|fault| format!("{name}: {fault}")));
    }
    Some(books)
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

    fn asked(name: &str, store: &str, items: u64) -> Asked {
        let books = ConserveReply { holds: true, items, ..ConserveReply::default() };
        Asked { name: name.to_owned(), store: store.to_owned(), books: books.into() }
    }

    #[test]
    fn replicas_of_one_store_have_one_ledger() {
        let one = together(vec![asked("dbcache-1", "a", 7), asked("dbcache-2", "a", 7)]).unwrap();
        assert!(one.holds && one.items == 7 && one.faults.is_empty());
        assert!(together(Vec::new()).is_none());
    }

    #[test]
    fn books_in_two_stores_do_not_hold() {
        let replicas = [asked("dbcache-1", "a", 7), asked("dbcache-2", "b", 3), asked("dbcache-3", "b", 3)];
        let two = together(Vec::from(replicas)).unwrap();
        assert!(!two.holds);
        assert_eq!(two.faults.len(), 1, "{:?}", two.faults);
        assert!(two.faults[0].starts_with("dbcache-2 keeps another store than dbcache-1, with 3 items"));
    }
}
