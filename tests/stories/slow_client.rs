//! A client that sends requests and reads no answers is disconnected after a bounded number of them. Its neighbour plays on.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use shardkeep_client::{
    raw::{self, ResumeKeys},
    wire::{
        opcode,
        payload::{ErrorCode, GetInventory},
    },
};
use shardkeep_stories::{Actor, PASSWORD, RawSession, TIMEOUT, config, shared, unique_name};
use tokio::time::{MissedTickBehavior, interval, timeout};

/// Answers that the server keeps for a client, by the protocol.
const MAX_UNACKNOWLEDGED: u32 = 1_024;
/// Below the 40 a second that the protocol allows.
const REQUEST_INTERVAL: Duration = Duration::from_millis(27);
/// Questions that still leave while the connection closes.
const SLACK: u32 = 150;

#[tokio::test]
async fn slow_client_is_disconnected() -> Result<()> {
    let cluster = shared().await?;
    let name = unique_name("deaf");
    cluster.account(&name, PASSWORD).await?;
    let mut slow = RawSession::attach(cluster, &name).await?;
    let body = slow.enter(&name).await?;
    let neighbour = Actor::enter(cluster, "lively").await?;
    neighbour
        .player
        .wait_until(TIMEOUT, |view| view.entity(body).map(drop))
        .await
        .context("the neighbour sees it")?;

    let requests = tokio::select! {
        requests = timeout(4 * TIMEOUT, request_until_closed(&mut slow)) => requests.context("it is never let go")?,
        walked = walk_back_and_forth(&neighbour) => return walked,
    };
    ensure!(requests < MAX_UNACKNOWLEDGED + SLACK, "it was given {requests} answers unheard");

    neighbour
        .player
        .wait_until(TIMEOUT, |view| view.entity(body).is_none().then_some(()))
        .await
        .context("it is gone")?;
    let gateway = slow.established.ready.gateway.clone();
    let (config, keys) = (config(cluster)?, ResumeKeys::of(&slow.established));
    let mut again = RawSession::connect(&config, &gateway).await?;
    let session = slow.established.session;
    let resumed = timeout(TIMEOUT, raw::resume(&mut again, &config, session, &keys, 0)).await?;
    let code = resumed.err().and_then(|error| error.code());
    ensure!(code == Some(ErrorCode::TicketInvalid), "its session is over, and answers {code:?}");

    neighbour.player.say("where did it go?").await?;
    ensure!(neighbour.player.session().counts().losses == 0);
    Ok(())
}

/// Asks until the connection is closed; returns how often.
async fn request_until_closed(slow: &mut RawSession) -> u32 {
    let mut clock = interval(REQUEST_INTERVAL);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut requests = 0;
    loop {
        clock.tick().await;
        if slow.say(opcode::GET_INVENTORY, &GetInventory::default()).await.is_err() {
            return requests;
        }
        requests += 1;
    }
}

/// Walks to and fro, for ever.
async fn walk_back_and_forth(actor: &Actor) -> Result<()> {
    loop {
        actor.walk_to(504, 512).await?;
        actor.walk_to(496, 512).await?;
    }
}
