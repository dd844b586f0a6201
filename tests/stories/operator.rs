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
