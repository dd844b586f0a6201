//! Operators' commands in a whole cluster: their effects on players, and their entries in the audit.

use std::{process::Stdio, time::Duration};

use anyhow::{Context as _, Result, ensure};
use shardkeep_client::{
    ClientError, SessionEnd,
    game::{GameEvent, View},
    wire::payload::ErrorCode,
};
use shardkeep_stories::{Actor, TIMEOUT};
use shardkeep_testkit::{Cluster, binary};
use tokio::io::AsyncWriteExt as _;

#[tokio::test]
async fn operator_actions_work_and_are_audited() -> Result<()> {
    let cluster = Cluster::start().await?;
    let mut ann = Actor::enter(&cluster, "ann").await?;
    let refused = cluster.run_cli(&["gm", "online"], "").await.expect_err("nobody has signed in yet");
    ensure!(refused.to_string().contains("not signed in"), "{refused}");
    cluster.run_cli(&["gm", "claim", "--password-stdin"], "a long enough password").await?;

    let online = cluster.run_cli(&["gm", "online"], "").await?.to_lowercase();
    ensure!(online.contains(&ann.name), "{online}");

    cluster.run_cli(&["gm", "broadcast", "the gates close at nine"], "").await?;
    let is_announcement =
        |it: &GameEvent| matches!(it, GameEvent::Announcement(text) if text.contains("gates")).then_some(());
    ann.wait_until("the announcement", is_announcement).await?;

    cluster.run_cli(&["gm", "teleport", &ann.name, "600", "520", "--reason", "stuck in a wall"], "").await?;
    let at_target = |view: &View| view.position().filter(|at| at.x_mm.abs_diff(600_000) < 5_000).map(drop);
    ann.player.wait_until(TIMEOUT, at_target).await?;

    cluster.run_cli(&["gm", "kick", &ann.name, "--reason", "asked for it"], "").await?;
    let code = ann.wait_until("the kick", |it| match it {
        GameEvent::Ended(SessionEnd::Refused(refusal)) => Some(refusal.code),
        _ => None,
    });
    ensure!(code.await? == ErrorCode::Kicked);

    let audit = cluster.run_cli(&["gm", "audit"], "").await?;
    for entry in ["kick", "asked for it", "teleport", "broadcast", "admin"] {
        ensure!(audit.contains(entry), "the audit does not tell of {entry:?}:\n{audit}");
    }
    cluster.stop().await
}

/// Only a registry's address and a certificate: no data directory, as in a container or on another machine.
#[tokio::test]
async fn operator_signs_in_without_data_directory() -> Result<()> {
    let cluster = Cluster::start().await?;
    let home = tempfile::tempdir()?;
    let registry = cluster.announcement("registry-1")?.grpc;
    let run = async |arguments: &[&str], input: &str| -> Result<String> {
        let mut tool = tokio::process::Command::new(binary()?)
            .env_clear()
            .env("HOME", home.path())
            .current_dir(home.path())
            .arg("gm")
            .args(arguments)
            .args(["--registry", &registry, "--tls-dir"])
            .arg(cluster.data_dir().join("tls"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut stdin = tool.stdin.take().context("no input")?;
        // A command that fails early reads no input.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        let output = tool.wait_with_output().await?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "gm {arguments:?}: {stderr}");
        Ok(String::from_utf8(output.stdout)?)
    };
    let password = "a long enough password";
    let refused = run(&["online"], "").await.expect_err("no operator has signed in");
    ensure!(refused.to_string().contains("--registry"), "{refused}");
    ensure!(run(&["claim", "--password-stdin"], password).await?.contains("signed in as admin"));
    run(&["daemons"], "").await?;
    run(&["sign-out"], "").await?;
    ensure!(run(&["online"], "").await.is_err(), "the token is gone");
    ensure!(run(&["sign-in", "admin", "--password-stdin"], password).await?.contains("signed in as admin"));
    ensure!(run(&["daemons"], "").await?.contains("gateway-1"));
    ensure!(!home.path().join("var").exists(), "no data directory is made");
    cluster.stop().await
}

#[tokio::test]
async fn closed_world_disconnects_players_but_keeps_staff() -> Result<()> {
    let cluster = Cluster::start().await?;
    let mut ann = Actor::enter(&cluster, "ann").await?;
    let guide = Actor::enter(&cluster, "guide").await?;
    cluster.run_cli(&["account", "staff", &guide.name, "on"], "").await?;
    cluster.run_cli(&["gm", "claim", "--password-stdin"], "a long enough password").await?;
    let close = ["gm", "maintenance", "1", "closed", "--seconds", "8", "--reason", "new maps"];
    cluster.run_cli(&close, "").await?;
    let is_warning = |it: &GameEvent| {
        matches!(it, GameEvent::Announcement(text) if text.contains("maintenance") && text.contains("new maps"))
            .then_some(())
    };
    ann.wait_until("the warning", is_warning).await?;
    // Neither daemon forgets the closure when it restarts.
    cluster.kill_and_wait_for_restart("login-1").await?;
    cluster.kill_and_wait_for_restart("gateway-1").await?;
    let end = ann.wait_until("the end", |it| match it {
        GameEvent::Ended(SessionEnd::Refused(refusal)) => Some(refusal.clone()),
        _ => None,
    });
    let end = end.await?;
    ensure!(end.code == ErrorCode::Maintenance && end.detail.contains("new maps"), "{end:?}");
    ensure!(guide.coins_and_items().await.is_ok(), "staff stay");

    cluster.run_cli(&["gm", "maintenance", "1", "open", "--reason", "done"], "").await?;
    Actor::enter_as(&cluster, &ann.name).await?;
    cluster.stop().await
}

/// Pause between two chat lines. It keeps the client below the flood limit.
const LINE_INTERVAL: Duration = Duration::from_millis(600);

#[tokio::test]
async fn mute_outlives_a_crash_of_the_chat_daemon() -> Result<()> {
    let cluster = Cluster::start().await?;
    let ann = Actor::enter(&cluster, "ann").await?;
    ann.player.say("good morning").await?;
    cluster.run_cli(&["gm", "claim", "--password-stdin"], "a long enough password").await?;
    cluster.run_cli(&["gm", "mute", &ann.name, "60", "--reason", "insults"], "").await?;
    refused_as_muted(&ann).await?;
    cluster.kill_and_wait_for_restart("chat-1").await?;
    refused_as_muted(&ann).await?;
    cluster.stop().await
}

/// Sends chat lines until the chat daemon refuses one because of a mute. The console informs a restarted daemon within
/// a second.
async fn refused_as_muted(actor: &Actor) -> Result<()> {
    let is_muted = |result: Result<(), ClientError>| matches!(result, Err(ClientError::Refused(refusal)) if refusal.code == ErrorCode::Refused);
    let refused = async {
        let mut lines = tokio::time::interval(LINE_INTERVAL);
        while !is_muted(actor.player.say("hello").await) {
            lines.tick().await;
        }
    };
    tokio::time::timeout(TIMEOUT, refused).await.context("the character may still chat")
}

#[tokio::test]
async fn privileged_command_line_calls_are_events_with_their_operator() -> Result<()> {
    let cluster = Cluster::start().await?;
    cluster.account("mallory", "a long enough password").await?;
    cluster.run_cli(&["account", "ban", "mallory", "--reason", "cheating"], "").await?;
    let query = "SELECT attributes FROM log WHERE event = 'operator_call'";
    let logged = async {
        loop {
            let found = cluster.run_cli(&["logs", "query", "--json", query], "").await?;
            if found.contains("Accounts/Ban") {
                return Ok::<_, anyhow::Error>(found);
            }
        }
    };
    let found = tokio::time::timeout(TIMEOUT, logged).await.context("the ban is not in the log")??;
    ensure!(found.contains("operator") && found.contains("Accounts/Create"), "{found}");
    cluster.stop().await
}
