//! `shardkeep logs query`: SQL over the collected logs.

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use shardkeep_rpc::logs::{QueryReply, QueryRequest};

use crate::{
    operator::{ClusterArgs, Operator},
    terminal,
};

#[derive(Debug, Args)]
pub struct LogsArgs {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run one SELECT, for example: SELECT time, daemon, message FROM log WHERE level = 'ERROR'
    Query {
        sql: String,
        /// Days to search, YYYY-MM-DD; today and yesterday when absent
        #[arg(long = "day")]
        days: Vec<String>,
        #[arg(long, default_value_t = 1_000)]
        limit: u32,
        /// Only records whose message or attributes match (FTS5 syntax)
        #[arg(long, default_value = "")]
        search: String,
        /// Print one JSON object per row
        #[arg(long)]
        json: bool,
    },
}

pub async fn run(args: LogsArgs) -> Result<()> {
    let Command::Query { sql, days, limit, search, json } = args.command;
    let operator = Operator::connect(&args.cluster).await?;
    let request = QueryRequest { sql, days, limit, search };
    let reply = operator.logs().await?.query(request).await.map_err(terminal::status_error)?;
    let reply = reply.into_inner();
    if json { print_json(&reply) } else { print_table(&reply) }
}

fn print_json(reply: &QueryReply) -> Result<()> {
    for row in &reply.rows {
        let mut object = serde_json::Map::new();
        for (column, value) in reply.columns.iter().zip(&row.values) {
            object.insert(column.clone(), serde_json::from_str(value).context("a value is not JSON")?);
        }
        println!("{}", serde_json::Value::Object(object));
    }
    Ok(())
}

fn print_table(reply: &QueryReply) -> Result<()> {
    let mut table = terminal::table(&reply.columns);
    for row in &reply.rows {
        let cells: Result<Vec<String>> = row.values.iter().map(|value| cell(value)).collect();
        table.add_row(cells?);
    }
    println!("{table}\n{} rows", reply.rows.len());
    Ok(())
}

/// JSON strings lose their quotes in a table.
fn cell(value: &str) -> Result<String> {
    Ok(match serde_json::from_str(value).context("a value is not JSON")? {
        serde_json::Value::String(text) => text,
        serde_json::Value::Null => "-".into(),
        other => other.to_string(),
    })
}
