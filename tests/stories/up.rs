//! `shardkeep up`: restarts after an upgrade of the program's file, addresses, and errors of the start.

use std::{fs, net::TcpListener};

use anyhow::{Context as _, Result, ensure};
use shardkeep_stories::Actor;
use shardkeep_testkit::{Cluster, binary};

/// A copy of the program, as an installation has one.
fn installed() -> Result<(tempfile::TempDir, std::path::PathBuf)> {
    let folder = tempfile::tempdir()?;
    let program = folder.path().join("shardkeep");
    fs::copy(binary()?, &program)?;
    Ok((folder, program))
}

#[tokio::test]
async fn daemon_restarts_after_program_file_was_replaced() -> Result<()> {
    let (_folder, program) = installed()?;
    let cluster = Cluster::start_program(program.clone(), &[]).await?;
    // A build replaces the file in one step.
    let new = program.with_extension("new");
    fs::copy("/bin/false", &new)?;
    fs::rename(&new, &program)?;
    let killed = cluster.kill("chat-1")?;
    let line = cluster.wait_for_output("chat-1 started again").await?;
    ensure!(line.contains("the old file of") && line.contains(&program.display().to_string()), "{line}");
    // The tool itself was replaced too, so the daemon's own file tells.
    let back = shardkeep_testkit::wait_until("chat-1 announces itself", async || {
        Ok(cluster.announcement("chat-1").ok().filter(|now| now.pid != killed.pid))
    });
    ensure!(!back.await?.grpc.is_empty());
    cluster.stop().await
}

#[tokio::test]
async fn daemon_restarts_from_its_path_while_program_is_unchanged() -> Result<()> {
    let (_folder, program) = installed()?;
    let cluster = Cluster::start_program(program.clone(), &[]).await?;
    cluster.kill_and_wait_for_restart("ai-1").await?;
    let line = cluster.wait_for_output("ai-1 started again from").await?;
    ensure!(line.ends_with(&program.display().to_string()), "{line}");
    cluster.stop().await
}

#[tokio::test]
async fn players_enter_on_ipv6_loopback() -> Result<()> {
    enters_with(&["--bind", "::1"], "[::1]:").await
}

#[tokio::test]
async fn players_enter_on_another_loopback_address() -> Result<()> {
    enters_with(&["--bind", "127.0.0.5"], "127.0.0.5:").await
}

#[tokio::test]
async fn bind_to_all_addresses_keeps_internal_ports_on_loopback() -> Result<()> {
    let cluster = Cluster::start_with_arguments(&["--bind", "0.0.0.0", "--advertise", "127.0.0.1"]).await?;
    for daemon in ["registry-1", "login-1", "gateway-1", "zone-1", "gm-1"] {
        let announced = cluster.announcement(daemon)?;
        for address in [announced.grpc, announced.admin] {
            ensure!(address.starts_with("127.0.0.1:"), "{daemon}: {address}");
        }
    }
    let console = cluster.announcement("gm-1")?.client;
    let port = console.rsplit_once(':').context("the console has an address")?.1.to_owned();
    // The same port of another address of this machine is free, because the console does not listen there.
    TcpListener::bind(format!("127.0.0.2:{port}")).context("the console listens on all addresses")?;
    Actor::enter(&cluster, "lan").await?;
    cluster.stop().await
}

async fn enters_with(arguments: &[&str], host: &str) -> Result<()> {
    let cluster = Cluster::start_with_arguments(arguments).await?;
    for daemon in ["dns-1", "login-1", "gateway-1", "gateway-2", "gm-1"] {
        let client = cluster.announcement(daemon)?.client;
        ensure!(client.starts_with(host), "{daemon} advertises {client}");
    }
    let ann = Actor::enter(&cluster, "ann").await?;
    ensure!(ann.player.session().gateway().starts_with(host));
    cluster.stop().await
}

#[tokio::test]
async fn unreachable_advertised_address_fails_the_start() -> Result<()> {
    // An address for documentation, which leads nowhere.
    let error = start_error(&["--advertise", "192.0.2.1"]).await?;
    ensure!(error.contains("advertises 192.0.2.1:") && error.contains("--advertise"), "{error}");
    Ok(())
}

#[tokio::test]
async fn open_console_without_tls_fails_the_start() -> Result<()> {
    let error = start_error(&["--bind-console", "0.0.0.0"]).await?;
    ensure!(error.contains("plain text") && error.contains("behind_tls_proxy"), "{error}");
    Ok(())
}

async fn start_error(arguments: &[&str]) -> Result<String> {
    match Cluster::start_with_arguments(arguments).await {
        Ok(_) => anyhow::bail!("`up` {arguments:?} becomes ready"),
        Err(error) => Ok(format!("{error:#}")),
    }
}
