//! An operator signs in, speaks to everybody, moves somebody, throws somebody out; all of it stands in the audit.

use anyhow::{Result, ensure};
use shardkeep_client::{
    SessionEnd,
    game::{Happening, View},
    wire::payload::ErrorCode,
};
use shardkeep_stories::{Actor, SOON};
use shardkeep_testkit::Cluster;

#[tokio::test]
async fn an_operator_rules_by_the_book() -> Result<()> {
    let cluster = Cluster::start().await?;
    let mut ann = Actor::enter(&cluster, "ann").await?;
    let refused = cluster.tool(&["gm", "online"], "").await.expect_err("nobody has signed in yet");
    ensure!(refused.to_string().contains("not signed in"), "{refused}");
    cluster.tool(&["gm", "claim", "--password-stdin"], "a long enough password").await?;

    let online = cluster.tool(&["gm", "online"], "").await?.to_lowercase();
    ensure!(online.contains(&ann.name), "{online}");

    cluster.tool(&["gm", "broadcast", "the gates close at nine"], "").await?;
    let heard =
        |it: &Happening| matches!(it, Happening::Announcement(text) if text.contains("gates")).then_some(());
    ann.until("the announcement", heard).await?;

    cluster.tool(&["gm", "teleport", &ann.name, "600", "520", "--reason", "stuck in a wall"], "").await?;
    let there = |view: &View| view.position().filter(|at| at.x_mm.abs_diff(600_000) < 5_000).map(drop);
    ann.player.until(SOON, there).await?;

    cluster.tool(&["gm", "kick", &ann.name, "--reason", "asked for it"], "").await?;
    let code = ann.until("the kick", |it| match it {
        Happening::Ended(SessionEnd::Refused(refusal)) => Some(refusal.code),
        _ => None,
    });
    ensure!(code.await? == ErrorCode::Kicked);

    let audit = cluster.tool(&["gm", "audit"], "").await?;
    for trace in ["kick", "asked for it", "teleport", "broadcast", "admin"] {
        ensure!(audit.contains(trace), "the audit does not tell of {trace:?}:\n{audit}");
    }
    cluster.stop().await
}

#[tokio::test]
async fn a_closed_world_sends_players_home_and_keeps_staff() -> Result<()> {
    let cluster = Cluster::start().await?;
    let mut ann = Actor::enter(&cluster, "ann").await?;
    let guide = Actor::enter(&cluster, "guide").await?;
    cluster.tool(&["account", "staff", &guide.name, "on"], "").await?;
    cluster.tool(&["gm", "claim", "--password-stdin"], "a long enough password").await?;
    let close = ["gm", "maintenance", "1", "closed", "--seconds", "8", "--reason", "new maps"];
    cluster.tool(&close, "").await?;
    let told = |it: &Happening| {
        matches!(it, Happening::Announcement(text) if text.contains("maintenance") && text.contains("new maps"))
            .then_some(())
    };
    ann.until("the warning", told).await?;
    // Neither who restarts nor who reconnects meanwhile forgets it.
    cluster.kill_and_heal("login-1").await?;
    cluster.kill_and_heal("gateway-1").await?;
    let end = ann.until("the end", |it| match it {
        Happening::Ended(SessionEnd::Refused(refusal)) => Some(refusal.clone()),
        _ => None,
    });
    let end = end.await?;
    ensure!(end.code == ErrorCode::Maintenance && end.detail.contains("new maps"), "{end:?}");
    ensure!(guide.belongings().await.is_ok(), "staff stay");

    cluster.tool(&["gm", "maintenance", "1", "open", "--reason", "done"], "").await?;
    Actor::enter_as(&cluster, &ann.name).await?;
    cluster.stop().await
}
