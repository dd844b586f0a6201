//! Programs that were written from the documents alone: a client in Python, and custom backends in Rust and in Python.

use std::{path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context as _, Result, ensure};
use shardkeep_client::{ClientError, game::GameEvent, wire::payload::ErrorCode};
use shardkeep_stories::{Actor, PASSWORD, TIMEOUT, shared, unique_name};
use shardkeep_testkit::{Cluster, binary};
use tokio::{
    process::{Child, Command},
    time::{interval, timeout},
};

/// Fewer questions than a session may ask of opcodes that its gateway does not know (yet).
const RETRY_INTERVAL: Duration = Duration::from_millis(800);

#[tokio::test]
async fn python_client_plays_and_resumes_on_tcp() -> Result<()> {
    plays_and_resumes("tcp", "tcp").await
}

#[tokio::test]
async fn python_client_plays_and_resumes_on_other_lanes() -> Result<()> {
    tokio::try_join!(
        plays_and_resumes("quic", "tcp"),
        plays_and_resumes("ws", "quic"),
        plays_and_resumes("wss", "ws"),
    )?;
    Ok(())
}

async fn plays_and_resumes(lane: &str, resume_lane: &str) -> Result<()> {
    let cluster = shared().await?;
    let name = unique_name("python");
    cluster.account(&name, PASSWORD).await?;
    let dns = cluster.dns()?;
    let mut client = python()?;
    client.arg(repository().join("tests/interop/client.py"));
    client.args(["--dns", &dns, "--account", &name, "--password", PASSWORD, "--character", &name]);
    client.args(["--lane", lane, "--resume-lane", resume_lane]).arg("--ca");
    client.arg(cluster.data_dir().join("tls/ca.pem"));
    let output =
        timeout(2 * TIMEOUT, client.output()).await.context("the Python player does not finish")??;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    ensure!(report["continued"] == true, "it was cut, and did not go on where it was: {report}");
    ensure!((report["datagrams"].as_i64() > Some(0)) == (lane == "quic"), "{report}");
    ensure!(report["puzzles"] == 1, "the login server asks everybody for work: {report}");
    ensure!(report["walked_mm"].as_i64() > Some(0) && report["cells_seen"].as_i64() > Some(0), "{report}");
    Ok(())
}

#[tokio::test]
async fn rust_backend_serves_players() -> Result<()> {
    let cluster = shared().await?;
    certificate(cluster, "dice").await?;
    let tls = cluster.data_dir().join("tls");
    let mut dice = Command::new(binary()?.with_file_name("shardkeep-example-dice"));
    for setting in [
        "daemon.name=dice".to_owned(),
        "log.filter=warn".to_owned(),
        format!("cluster.registries=[\"{}\"]", cluster.announcement("registry-1")?.grpc),
        format!("cluster.ca={}", tls.join("ca.pem").display()),
        format!("cluster.cert={}", tls.join("dice.pem").display()),
        format!("cluster.key={}", tls.join("dice.key").display()),
    ] {
        dice.args(["--set", &setting]);
    }
    let _dice = start(&mut dice)?;
    roll(cluster, 0x8000, 0x8001).await
}

#[tokio::test]
async fn python_backend_serves_players() -> Result<()> {
    let cluster = shared().await?;
    certificate(cluster, "python-dice").await?;
    let mut dice = python()?;
    dice.arg(repository().join("examples/python-dice/dice.py"));
    dice.arg("--tls").arg(cluster.data_dir().join("tls"));
    dice.args(["--registry", &cluster.announcement("registry-1")?.grpc]);
    let _dice = start(&mut dice)?;
    roll(cluster, 0x8100, 0x8101).await
}

/// One rolls, and both know what.
async fn roll(cluster: &Cluster, roll: u16, rolled: u16) -> Result<()> {
    let ann = Actor::enter(cluster, "ann").await?;
    let mut bob = Actor::enter(cluster, "bob").await?;
    for player in [&ann, &bob] {
        timeout(TIMEOUT, until_answered(player, roll)).await.context("the backend is never found")??;
    }
    let reply = ann.player.session().call_raw(roll, vec![20].into(), TIMEOUT).await?;
    let result = *reply.payload.first().context("no result")?;
    ensure!((1..=20).contains(&result));
    bob.wait_until("ann's roll", |it| {
        matches!(it, GameEvent::Custom(event) if event.opcode == rolled && event.payload[..] == [20, result])
            .then_some(())
    })
    .await?;
    let refused = ann.player.session().call_raw(roll, vec![1].into(), TIMEOUT).await;
    let code = refused.as_ref().err().and_then(ClientError::code);
    ensure!(code == Some(ErrorCode::Refused), "a die with one side: {refused:?}");
    Ok(())
}

/// A gateway knows a backend some moments after it has started; until then it knows no such opcode.
async fn until_answered(player: &Actor, roll: u16) -> Result<()> {
    let mut clock = interval(RETRY_INTERVAL);
    loop {
        clock.tick().await;
        match player.player.session().call_raw(roll, vec![6].into(), TIMEOUT).await {
            Ok(_) => return Ok(()),
            Err(ClientError::Refused(refusal)) if refusal.code == ErrorCode::OutOfPhase => {}
            Err(error) => return Err(error.into()),
        }
    }
}

async fn certificate(cluster: &Cluster, name: &str) -> Result<()> {
    let tls = cluster.data_dir().join("tls").display().to_string();
    cluster.run_cli(&["certs", "--dir", &tls, &format!("backend:{name}")], "").await?;
    Ok(())
}

fn start(program: &mut Command) -> Result<Child> {
    program.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
    program.spawn().with_context(|| format!("{program:?}: `make test` builds and installs what it needs"))
}

/// The interpreter with the packages that the Python programs need.
fn python() -> Result<Command> {
    let python = repository().join("target/venv/bin/python");
    ensure!(python.exists(), "{} is missing: `make test-deps` makes it", python.display());
    let mut command = Command::new(python);
    command.stdin(Stdio::null()).kill_on_drop(true);
    Ok(command)
}

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}
