//! Who may come in: the right password does, nothing else does, and a second login takes the place of the first.

use anyhow::{Result, ensure};
use shardkeep_client::{ClientError, Refusal, SessionEnd, game::Player, wire::payload::ErrorCode};
use shardkeep_stories::{Actor, PASSWORD, SOON, WORLD, config, fresh_name, log_in, shared};
use shardkeep_testkit::Cluster;
use tokio::time::timeout;

#[tokio::test]
async fn only_the_right_password_is_let_in() -> Result<()> {
    let cluster = shared().await?;
    let name = fresh_name("owner");
    cluster.account(&name, PASSWORD).await?;
    let account = log_in(cluster, &name, PASSWORD).await?.account();

    let wrong = refusal(cluster, &name, "a guess").await?;
    let unknown = refusal(cluster, &fresh_name("nobody"), PASSWORD).await?;
    ensure!(wrong.code == ErrorCode::Denied, "{wrong}");
    ensure!(wrong == unknown, "the answer tells who exists: {wrong:?}, {unknown:?}");
    ensure!(refusal(cluster, &name, &PASSWORD.to_uppercase()).await?.code == ErrorCode::Denied);

    let shouted = format!("  {}  ", name.to_uppercase());
    ensure!(
        log_in(cluster, &shouted, PASSWORD).await?.account() == account,
        "the same name written otherwise"
    );
    Ok(())
}

#[tokio::test]
async fn a_second_login_takes_the_place_of_the_first() -> Result<()> {
    let cluster = shared().await?;
    let first = Actor::enter(cluster, "twin").await?;
    let (me, had) = (first.entity()?, first.belongings().await?);
    let second = Actor::enter_as(cluster, &first.name).await?;

    let end = timeout(SOON, first.player.session().ended()).await?;
    let displaced = matches!(&end, SessionEnd::Refused(refusal) if refusal.code == ErrorCode::Displaced);
    ensure!(displaced, "the first session ended with {end:?}");
    ensure!(second.entity()? == me && second.belongings().await? == had);
    second.player.say("here I am").await?;
    Ok(())
}

#[tokio::test]
async fn the_world_list_counts_characters_made_meanwhile() -> Result<()> {
    let cluster = shared().await?;
    let name = fresh_name("maker");
    cluster.account(&name, PASSWORD).await?;
    let mut worlds = log_in(cluster, &name, PASSWORD).await?;
    let boarding = worlds.select(WORLD).await?;
    let (player, _happenings) = Player::attach(&config(cluster)?, boarding).await?;
    player.create_character(&name).await?;
    let counted = async {
        while !worlds.worlds().iter().any(|world| world.id == WORLD && world.characters == 1) {
            worlds.next_worlds().await?;
        }
        Ok::<_, ClientError>(())
    };
    timeout(SOON, counted).await??;
    Ok(())
}

async fn refusal(cluster: &Cluster, name: &str, password: &str) -> Result<Refusal> {
    match log_in(cluster, name, password).await {
        Err(ClientError::Refused(refusal)) => Ok(refusal),
        Err(other) => Err(other.into()),
        Ok(_) => anyhow::bail!("{name} was let in"),
    }
}
