//! `shardkeep status`: the daemons that the registry knows, with the process ids of those on this machine.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use serde::Serialize;
use shardkeep_cluster::{Instance, State};

use crate::{
    data_dir::DataDir,
    operator::{ClusterArgs, Operator},
    terminal,
};

#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(Debug, Serialize)]
struct Row {
    name: String,
    kind: String,
    state: String,
    load: f64,
    version: String,
    client: String,
    grpc: String,
    admin: String,
    /// Set for a daemon on this machine.
    pid: Option<u32>,
}

/// Exit code 1 when a daemon is not up. A daemon that has left properly does not count.
pub async fn run(args: &StatusArgs) -> Result<ExitCode> {
    let operator = Operator::connect(&args.cluster).await?;
    let dir = DataDir::new(&args.cluster.data_dir)?;
    let mut rows: Vec<Row> = operator.instances(&[]).await?.into_iter().map(|it| row(&dir, it)).collect();
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    if args.json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
    } else {
        print(&rows);
    }
    let expected_states = [State::Up, State::Left].map(State::as_str);
    let all_up = rows.iter().all(|row| expected_states.contains(&row.state.as_str()));
    // A program that reads the JSON checks the states itself.
    Ok(if all_up || args.json { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn row(dir: &DataDir, instance: Instance) -> Row {
    let pid = dir.announced(&instance.id.name).filter(|it| it.grpc == instance.grpc_address).map(|it| it.pid);
    Row {
        name: instance.id.name,
        kind: instance.id.kind.to_string(),
        state: instance.state.as_str().to_owned(),
        load: instance.load,
        version: instance.version,
        client: instance.client_address,
        grpc: instance.grpc_address,
        admin: instance.admin_address,
        pid,
    }
}

fn print(rows: &[Row]) {
    let mut table = terminal::table(["daemon", "state", "load", "clients", "gRPC", "admin", "pid"]);
    for row in rows {
        let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
        table.add_row([
            row.name.clone(),
            row.state.clone(),
            format!("{:.0} %", row.load * 100.0),
            or_dash(&row.client),
            row.grpc.clone(),
            row.admin.clone(),
            row.pid.map_or_else(|| "-".into(), |pid| pid.to_string()),
        ]);
    }
    println!("{table}");
}
