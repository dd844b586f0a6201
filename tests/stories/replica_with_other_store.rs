//! A second replica on another store reports why it does not serve, gets no traffic, and leaves the registry when it ends.

use std::{process::Stdio, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use shardkeep_stories::shared;
use shardkeep_testkit::{Cluster, binary, http_get, wait_until};
use tokio::process::{Child, Command};

/// Longest wait for something that should happen at once, on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(60);
const KINDS: [&str; 4] = ["login", "dbcache", "billing", "gm"];

#[tokio::test]
async fn replica_with_other_store_does_not_serve() -> Result<()> {
    let cluster = shared().await?;
    let folder = tempfile::tempdir()?;
    let mut replicas = Vec::new();
    for kind in KINDS {
        replicas.push(start(cluster, kind, folder.path().to_str().context("a folder")?).await?);
    }
    for kind in KINDS {
        let description = format!("{kind} says why it waits");
        let reason = wait_until(&description, async || {
            let Some(row) = row(cluster, &replica_name(kind)).await? else { return Ok(None) };
            ensure!(row.state == "starting", "{row:?}");
            let (status, reason) = http_get(&row.admin, "/readyz").await?;
            Ok((status == 503 && reason.contains("another store")).then_some(reason))
        });
        let reason = reason.await?;
        ensure!(reason.contains(&format!("end {kind}-1")), "{reason}");
    }
    ensure!(cluster.ledger().await?.holds, "only the cluster's own dbcache is asked");
    for mut process in replicas {
        let pid = process.id().context("it ended by itself")?.to_string();
        ensure!(Command::new("kill").arg(&pid).status().await?.success());
        ensure!(
            tokio::time::timeout(TIMEOUT, process.wait()).await??.success(),
            "it was ended, and did not fail"
        );
    }
    for kind in KINDS {
        let state =
            row(cluster, &replica_name(kind)).await?.context("the registry keeps it for a while")?.state;
        ensure!(state == "left", "{kind}: {state}");
    }
    Ok(())
}

fn replica_name(kind: &str) -> String {
    format!("{kind}-stranger")
}

/// As an operator would: a certificate of the cluster's authority, a data directory, and the registry's address.
async fn start(cluster: &Cluster, kind: &str, folder: &str) -> Result<Child> {
    let name = replica_name(kind);
    let tls = cluster.data_dir().join("tls").display().to_string();
    cluster.run_cli(&["certs", "--dir", &tls, &format!("{kind}:{name}")], "").await?;
    let mut settings = vec![
        format!("daemon.name={name}"),
        format!("daemon.data_dir={folder}/{name}"),
        format!("cluster.registries={}", cluster.announcement("registry-1")?.grpc),
        format!("cluster.ca={tls}/ca.pem"),
        format!("cluster.cert={tls}/{name}.pem"),
        format!("cluster.key={tls}/{name}.key"),
    ];
    match kind {
        "login" => settings.push("login.listen=127.0.0.1:0".to_owned()),
        "gm" => settings.push("gm.web=127.0.0.1:0".to_owned()),
        _ => {}
    }
    let mut command = Command::new(binary()?);
    command.args(["daemon", kind]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.args(settings.iter().flat_map(|setting| ["--set", setting]));
    Ok(command.kill_on_drop(true).spawn()?)
}

#[derive(Debug, Deserialize)]
struct Row {
    name: String,
    state: String,
    admin: String,
}

async fn row(cluster: &Cluster, name: &str) -> Result<Option<Row>> {
    let rows: Vec<Row> = serde_json::from_str(&cluster.run_cli(&["status", "--json"], "").await?)?;
    Ok(rows.into_iter().find(|row| row.name == name))
}
