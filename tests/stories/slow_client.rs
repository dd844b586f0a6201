//! Who asks and never listens is let go after a bounded number of answers; its neighbour plays on.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use shardkeep_client::{
    raw::{self, ResumeKeys},
    wire::{
        opcode,
        payload::{ErrorCode, GetInventory},
    },
};
use shardkeep_stories::{Actor, Bare, PASSWORD, SOON, config, fresh_name, shared};
use tokio::time::{MissedTickBehavior, interval, timeout};

/// Answers that the server keeps for a client, by the protocol.
const MOST_KEPT: u32 = 1_024;
/// Below the 40 a second that the protocol allows.
const ASKS: Duration = Duration::from_millis(27);
/// Questions that still leave while the connection closes.
const SLACK: u32 = 150;

#[tokio::test]
async fn a_deaf_client_is_let_go() -> Result<()> {
    let cluster = shared().await?;
    let name = fresh_name("deaf");
    cluster.account(&name, PASSWORD).await?;
    let mut deaf = Bare::attach(cluster, &name).await?;
    let body = deaf.enter(&name).await?;
    let neighbour = Actor::enter(cluster, "lively").await?;
    neighbour
        .player
        .until(SOON, |view| view.entity(body).map(drop))
        .await
        .context("the neighbour sees it")?;

    let asked = tokio::select! {
        asked = timeout(4 * SOON, ask_on(&mut deaf)) => asked.context("it is never let go")?,
        paced = pace(&neighbour) => return paced,
    };
    ensure!(asked < MOST_KEPT + SLACK, "it was given {asked} answers unheard");

    neighbour
        .player
        .until(SOON, |view| view.entity(body).is_none().then_some(()))
        .await
        .context("it is gone")?;
    let gateway = deaf.established.ready.gateway.clone();
    let (config, keys) = (config(cluster)?, ResumeKeys::of(&deaf.established));
    let mut again = Bare::connect(&config, &gateway).await?;
    let session = deaf.established.session;
    let resumed = timeout(SOON, raw::resume(&mut again, &config, session, &keys, 0)).await?;
    let code = resumed.err().and_then(|error| error.code());
    ensure!(code == Some(ErrorCode::TicketInvalid), "its session is over, and answers {code:?}");

    neighbour.player.say("where did it go?").await?;
    ensure!(neighbour.player.session().counts().losses == 0);
    Ok(())
}

/// Asks until the connection is closed; returns how often.
async fn ask_on(deaf: &mut Bare) -> u32 {
    let mut clock = interval(ASKS);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut asked = 0;
    loop {
        clock.tick().await;
        if deaf.say(opcode::GET_INVENTORY, &GetInventory {}).await.is_err() {
            return asked;
        }
        asked += 1;
    }
}

/// Walks to and fro, for ever.
async fn pace(actor: &Actor) -> Result<()> {
    loop {
        actor.walk_to(504, 512).await?;
        actor.walk_to(496, 512).await?;
    }
}
