//! A gateway that drains sends its players to another one. They keep their sessions and play on.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use shardkeep_client::{
    ClientError,
    game::{GameEvent, GameEvents, Player},
    wire::payload::{Channel, ErrorCode},
};
use shardkeep_stories::{Actor, trade};
use shardkeep_testkit::{Cluster, Stores, wait_until};
use tokio::time::{MissedTickBehavior, interval, timeout};

#[tokio::test]
async fn draining_gateway_moves_players_to_another() -> Result<()> {
    let cluster = Cluster::start().await?;
    let one = cluster.announcement("gateway-1")?.client;
    let mut moved = Actor::enter_through(&cluster, "moved", |gateway| gateway == one).await?;
    let stays = Actor::enter_through(&cluster, "stays", |gateway| gateway != one).await?;
    stays.sees(&moved).await?;
    let (session, before) = (moved.player.session().id(), moved.coins_and_items().await?);

    let draining = cluster.drain("gateway-1")?;
    let continued = moved.wait_until("the new connection", |it| match it {
        GameEvent::Resumed { continued } => Some(*continued),
        _ => None,
    });
    ensure!(continued.await?, "nothing that was said is lost in a move");
    let counts = moved.player.session().counts();
    ensure!(counts.redirects == 1 && counts.losses == 1, "{counts:?}");
    ensure!(moved.player.session().id() == session && moved.player.session().gateway() != one);

    ensure!(moved.coins_and_items().await? == before);
    moved.sees(&stays).await?;
    trade(&moved, &stays).await?;
    ensure!(stays.player.session().counts().losses == 0);
    cluster.wait_for_restart(&draining).await?;
    Actor::enter_through(&cluster, "later", |gateway| gateway == one).await?;
    ensure!(cluster.ledger().await?.holds);
    cluster.stop().await
}

/// A high chat rate, and time for moves on a busy machine.
const SETTINGS: &str = r#"
[chat]
rate = 100
burst = 100

[gateway]
move_within = "20s"
"#;
/// Between two lines of a player: the gateway limits the rate of a client.
const LINE_INTERVAL: Duration = Duration::from_millis(250);

#[tokio::test]
async fn chat_is_delivered_once_while_gateways_drain_in_turn() -> Result<()> {
    let cluster = Cluster::start_with(Stores::default(), Some(SETTINGS)).await?;
    let one = cluster.announcement("gateway-1")?.client;
    let ann = Actor::enter_through(&cluster, "ann", |gateway| gateway == one).await?;
    let bob = Actor::enter_through(&cluster, "bob", |gateway| gateway != one).await?;
    ann.sees(&bob).await?;
    bob.sees(&ann).await?;
    let names = [ann.name.clone(), bob.name.clone()];
    let Actor { player: ann, events: anns, .. } = ann;
    let Actor { player: bob, events: bobs, .. } = bob;
    let (done, sent) = (AtomicBool::new(false), [AtomicUsize::new(0), AtomicUsize::new(0)]);

    let moves = async {
        for (draining, other) in [("gateway-1", "gateway-2"), ("gateway-2", "gateway-1")] {
            let address = cluster.announcement(other)?.client;
            let drained = cluster.drain(draining)?;
            cluster.wait_for_restart(&drained).await?;
            for player in [&ann, &bob] {
                wait_until("both players are at the other gateway", async || {
                    Ok((player.session().gateway() == address).then_some(()))
                })
                .await?;
            }
            // A newcomer that this gateway serves shows that login knows it again.
            let back = cluster.announcement(draining)?.client;
            Actor::enter_through(&cluster, "guest", |gateway| gateway == back).await?;
        }
        done.store(true, Ordering::Release);
        Ok::<(), anyhow::Error>(())
    };
    let send_lines =
        async { tokio::try_join!(send_lines(&ann, &done, &sent[0]), send_lines(&bob, &done, &sent[1])) };
    let receive_lines = async {
        tokio::try_join!(receive_lines(anns, &names, &done, &sent), receive_lines(bobs, &names, &done, &sent))
    };
    tokio::try_join!(moves, send_lines, receive_lines)?;

    for player in [&ann, &bob] {
        let counts = player.session().counts();
        ensure!(counts.redirects >= 1, "{counts:?}");
    }
    ensure!(ann.session().counts().redirects == 2, "ann was at the gateway that left first");
    cluster.stop().await
}

/// Sends numbers, to the players around and to the whole world in turn, until the moves are done.
async fn send_lines(player: &Player, done: &AtomicBool, sent: &AtomicUsize) -> Result<()> {
    let mut number = 0;
    let mut turns = interval(LINE_INTERVAL);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !done.load(Ordering::Acquire) {
        turns.tick().await;
        let channel = if number % 2 == 0 { Channel::Say } else { Channel::World };
        match player.speak(channel, &number.to_string(), "").await {
            Ok(()) => {
                number += 1;
                sent.store(number, Ordering::Release);
            }
            // The line was refused and is sent again.
            Err(ClientError::Refused(refusal))
                if matches!(refusal.code, ErrorCode::TooFast | ErrorCode::Unavailable) => {}
            Err(error) => bail!("{number} can not be said: {error}"),
        }
    }
    Ok(())
}

/// Receives every number of each player once and in order, up to the last.
async fn receive_lines(
    mut events: GameEvents,
    names: &[String; 2],
    done: &AtomicBool,
    sent: &[AtomicUsize; 2],
) -> Result<()> {
    let mut next = [0; 2];
    let all = |next: &[usize; 2]| {
        done.load(Ordering::Acquire)
            && next.iter().zip(sent).all(|(received, sent)| *received == sent.load(Ordering::Acquire))
    };
    while !all(&next) {
        // The last line may arrive before the moves are done.
        let Ok(event) = timeout(LINE_INTERVAL, events.next()).await else { continue };
        match event.context("the session ended")? {
            GameEvent::ChatMessage(received) => {
                let speaker = names.iter().position(|name| name.eq_ignore_ascii_case(&received.from));
                let speaker = speaker.with_context(|| format!("{} speaks", received.from))?;
                let number: usize = received.text.parse()?;
                ensure!(number == next[speaker], "{} said {}, heard {number}", received.from, next[speaker]);
                next[speaker] += 1;
            }
            GameEvent::Resumed { continued } => ensure!(continued, "nothing that was said is lost in a move"),
            _ => {}
        }
    }
    Ok(())
}
