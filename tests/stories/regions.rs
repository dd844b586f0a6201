//! Two regions share accounts: a player plays in both, a new password of one region counts in the other, and a ban in all
//! regions ends both sessions.

use anyhow::{Context as _, Result, ensure};
use shardkeep_client::{ClientError, SessionEnd, login::WorldSelect, wire::payload::ErrorCode};
use shardkeep_stories::{Actor, PASSWORD, TIMEOUT, log_in, unique_name};
use shardkeep_testkit::{Cluster, wait_until};
use tokio::time::timeout;

/// On a busy machine the home region takes a while to answer.
const SETTINGS: &str = "[login.central]\nwait = \"1s\"\n";

#[tokio::test]
async fn account_works_in_two_regions() -> Result<()> {
    let eu = Cluster::start_region("eu", None, Some(SETTINGS)).await?;
    let us = Cluster::start_region("us", Some(&eu), Some(SETTINGS)).await?;
    let name = unique_name("traveller");
    eu.account(&name, PASSWORD).await?;
    let refused = us.account(&name, "another").await.expect_err("the name is taken in all regions");
    ensure!(refused.to_string().contains("there is an account"), "{refused}");

    let at_home = Actor::enter_as(&eu, &name).await?;
    // The first login makes the account active there.
    log_in_until(&us, &name, PASSWORD, None).await?;
    let abroad = Actor::enter_as(&us, &name).await?;
    let seen = us.run_cli(&["account", "show", &name], "").await?;
    ensure!(seen.contains("active in eu since") && seen.contains(", us since"), "{seen}");
    ensure!(at_home.player.list_characters().await?.characters.len() == 1, "both play");

    us.run_cli(&["account", "ban", &name, "--everywhere", "--reason", "cheats"], "").await?;
    ended_with(&at_home, ErrorCode::Banned).await?;
    ended_with(&abroad, ErrorCode::Banned).await?;
    log_in_until(&eu, &name, PASSWORD, Some(ErrorCode::Banned)).await?;
    eu.run_cli(&["account", "unban", &name, "--everywhere", "--reason", "appeal"], "").await?;
    log_in_until(&us, &name, PASSWORD, None).await?;

    us.run_cli(&["account", "password", &name, "--password-stdin"], "new").await?;
    log_in_until(&eu, &name, PASSWORD, Some(ErrorCode::Denied)).await?;
    log_in_until(&eu, &name, "new", None).await?;

    // An account that is active in a region needs no home region.
    eu.stop().await?;
    log_in(&us, &name, "new").await.context("without the home region")?;
    us.stop().await
}

/// Logs in until the outcome is as expected: a change takes a moment to reach the other region.
async fn log_in_until(
    cluster: &Cluster,
    name: &str,
    password: &str,
    expected: Option<ErrorCode>,
) -> Result<()> {
    wait_until(&format!("{name} gets {expected:?}"), async || {
        let outcome: Result<WorldSelect, ClientError> = log_in(cluster, name, password).await;
        Ok(match (outcome, expected) {
            (Ok(_), None) => Some(()),
            (Err(error), Some(_)) if error.code() == expected => Some(()),
            _ => None,
        })
    })
    .await
}

async fn ended_with(actor: &Actor, code: ErrorCode) -> Result<()> {
    let end = timeout(TIMEOUT, actor.player.session().ended()).await.context("the session goes on")?;
    let expected = matches!(&end, SessionEnd::Refused(refusal) if refusal.code == code);
    ensure!(expected, "{}: expected {code:?}, ended with {end:?}", actor.name);
    Ok(())
}
