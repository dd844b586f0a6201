//! Only the right password logs in, and a second login ends the first session.

use anyhow::{Result, ensure};
use shardkeep_client::{ClientError, Refusal, SessionEnd, game::Player, wire::payload::ErrorCode};
use shardkeep_stories::{Actor, PASSWORD, TIMEOUT, WORLD, config, log_in, shared, unique_name};
use shardkeep_testkit::Cluster;
use tokio::time::timeout;

#[tokio::test]
async fn login_succeeds_only_with_right_password() -> Result<()> {
    let cluster = shared().await?;
    let name = unique_name("owner");
    cluster.account(&name, PASSWORD).await?;
    let account = log_in(cluster, &name, PASSWORD).await?.account();

    let wrong = refusal(cluster, &name, "a guess").await?;
    let unknown = refusal(cluster, &unique_name("nobody"), PASSWORD).await?;
    ensure!(wrong.code == ErrorCode::Denied, "{wrong}");
    ensure!(wrong == unknown, "the answer tells who exists: {wrong:?}, {unknown:?}");
    ensure!(refusal(cluster, &name, &PASSWORD.to_uppercase()).await?.code == ErrorCode::Denied);

    let uppercase_name = format!("  {}  ", name.to_uppercase());
    ensure!(
        log_in(cluster, &uppercase_name, PASSWORD).await?.account() == account,
        "the same name written otherwise"
    );
    Ok(())
}

#[tokio::test]
async fn second_login_displaces_first() -> Result<()> {
    let cluster = shared().await?;
    let first = Actor::enter(cluster, "twin").await?;
    let (me, before) = (first.entity()?, first.coins_and_items().await?);
    let second = Actor::enter_as(cluster, &first.name).await?;

    let end = timeout(TIMEOUT, first.player.session().ended()).await?;
    let displaced = matches!(&end, SessionEnd::Refused(refusal) if refusal.code == ErrorCode::Displaced);
    ensure!(displaced, "the first session ended with {end:?}");
    ensure!(second.entity()? == me && second.coins_and_items().await? == before);
    second.player.say("here I am").await?;
    Ok(())
}

#[tokio::test]
async fn world_list_updates_character_count() -> Result<()> {
    let cluster = shared().await?;
    let name = unique_name("maker");
    cluster.account(&name, PASSWORD).await?;
    let mut worlds = log_in(cluster, &name, PASSWORD).await?;
    let gateway_ticket = worlds.select(WORLD).await?;
    let (player, _game_events) = Player::attach(&config(cluster)?, gateway_ticket).await?;
    player.create_character(&name).await?;
    let counted = async {
        while !worlds.worlds().iter().any(|world| world.id == WORLD && world.characters == 1) {
            worlds.next_worlds().await?;
        }
        Ok::<_, ClientError>(())
    };
    timeout(TIMEOUT, counted).await??;
    Ok(())
}

async fn refusal(cluster: &Cluster, name: &str, password: &str) -> Result<Refusal> {
    match log_in(cluster, name, password).await {
        Err(ClientError::Refused(refusal)) => Ok(refusal),
        Err(other) => Err(other.into()),
        Ok(_) => anyhow::bail!("{name} was let in"),
    }
}
