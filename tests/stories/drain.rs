//! A gateway that is taken down sends its players to another one; they keep their sessions and play on.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use shardkeep_client::{
    ClientError,
    game::{Happening, Happenings, Player},
    wire::payload::{Channel, ErrorCode},
};
use shardkeep_stories::{Actor, SOON, trade};
use shardkeep_testkit::{Cluster, Stores};
use tokio::time::timeout;

#[tokio::test]
async fn players_of_a_leaving_gateway_move_to_another() -> Result<()> {
    let cluster = Cluster::start().await?;
    let one = cluster.announced("gateway-1")?.client;
    let mut moved = Actor::enter_through(&cluster, "moved", |gateway| gateway == one).await?;
    let stays = Actor::enter_through(&cluster, "stays", |gateway| gateway != one).await?;
    stays.sees(&moved).await?;
    let (session, had) = (moved.player.session().id(), moved.belongings().await?);

    let leaving = cluster.drain("gateway-1")?;
    let continued = moved.until("the new connection", |it| match it {
        Happening::Resumed { continued } => Some(*continued),
        _ => None,
    });
    ensure!(continued.await?, "nothing that was said is lost in a move");
    let counts = moved.player.session().counts();
    ensure!(counts.redirects == 1 && counts.losses == 1, "{counts:?}");
    ensure!(moved.player.session().id() == session && moved.player.session().gateway() != one);

    ensure!(moved.belongings().await? == had);
    moved.sees(&stays).await?;
    trade(&moved, &stays).await?;
    ensure!(stays.player.session().counts().losses == 0);
    cluster.healed(&leaving).await?;
    Actor::enter_through(&cluster, "later", |gateway| gateway == one).await?;
    ensure!(cluster.ledger().await?.holds);
    cluster.stop().await
}

/// Quick talkers, and moves that a busy machine may take its time for.
const TALKATIVE: &str = r#"
[chat]
rate = 100
burst = 100

[gateway]
move_within = "20s"
"#;
/// Between two lines of a talker: a client may not say more.
const BREATH: Duration = Duration::from_millis(250);

#[tokio::test]
async fn every_line_is_heard_once_while_both_gateways_leave_in_turn() -> Result<()> {
    let cluster = Cluster::start_with(Stores::default(), Some(TALKATIVE)).await?;
    let one = cluster.announced("gateway-1")?.client;
    let ann = Actor::enter_through(&cluster, "ann", |gateway| gateway == one).await?;
    let bob = Actor::enter_through(&cluster, "bob", |gateway| gateway != one).await?;
    ann.sees(&bob).await?;
    bob.sees(&ann).await?;
    let names = [ann.name.clone(), bob.name.clone()];
    let Actor { player: ann, happenings: anns, .. } = ann;
    let Actor { player: bob, happenings: bobs, .. } = bob;
    let (over, said) = (AtomicBool::new(false), [AtomicUsize::new(0), AtomicUsize::new(0)]);

    let moves = async {
        for (leaving, other) in [("gateway-1", "gateway-2"), ("gateway-2", "gateway-1")] {
            let address = cluster.announced(other)?.client;
            let gone = cluster.drain(leaving)?;
            cluster.healed(&gone).await?;
            for player in [&ann, &bob] {
                let there = async {
                    while player.session().gateway() != address {
                        tokio::time::sleep(BREATH).await;
                    }
                };
                timeout(SOON, there).await.context("both go to the other gateway")?;
            }
            // Who comes in through the gateway that is back knows that the others know it.
            let back = cluster.announced(leaving)?.client;
            Actor::enter_through(&cluster, "guest", |gateway| gateway == back).await?;
        }
        over.store(true, Ordering::Release);
        Ok::<(), anyhow::Error>(())
    };
    let talk = async { tokio::try_join!(talk(&ann, &over, &said[0]), talk(&bob, &over, &said[1])) };
    let hear = async { tokio::try_join!(hear(anns, &names, &over, &said), hear(bobs, &names, &over, &said)) };
    tokio::try_join!(moves, talk, hear)?;

    for player in [&ann, &bob] {
        let counts = player.session().counts();
        ensure!(counts.redirects >= 1, "{counts:?}");
    }
    ensure!(ann.session().counts().redirects == 2, "ann was at the gateway that left first");
    cluster.stop().await
}

/// Says numbers, to those around and to the whole world in turn, until it is over.
async fn talk(player: &Player, over: &AtomicBool, said: &AtomicUsize) -> Result<()> {
    let mut number = 0;
    while !over.load(Ordering::Acquire) {
        let channel = if number % 2 == 0 { Channel::Say } else { Channel::World };
        match player.speak(channel, &number.to_string(), "").await {
            Ok(()) => {
                number += 1;
                said.store(number, Ordering::Release);
            }
            // It was not said.
            Err(ClientError::Refused(refusal))
                if matches!(refusal.code, ErrorCode::TooFast | ErrorCode::Unavailable) => {}
            Err(error) => bail!("{number} can not be said: {error}"),
        }
        tokio::time::sleep(BREATH).await;
    }
    Ok(())
}

/// Hears every number of each talker once and in order, up to the last.
async fn hear(
    mut happenings: Happenings,
    names: &[String; 2],
    over: &AtomicBool,
    said: &[AtomicUsize; 2],
) -> Result<()> {
    let mut next = [0; 2];
    let all = |next: &[usize; 2]| {
        over.load(Ordering::Acquire)
            && next.iter().zip(said).all(|(heard, said)| *heard == said.load(Ordering::Acquire))
    };
    while !all(&next) {
        // The last line may have been heard before it was over.
        let Ok(happening) = timeout(BREATH, happenings.next()).await else { continue };
        match happening.context("the session ended")? {
            Happening::Heard(heard) => {
                let speaker = names.iter().position(|name| name.eq_ignore_ascii_case(&heard.from));
                let speaker = speaker.with_context(|| format!("{} speaks", heard.from))?;
                let number: usize = heard.text.parse()?;
                ensure!(number == next[speaker], "{} said {}, heard {number}", heard.from, next[speaker]);
                next[speaker] += 1;
            }
            Happening::Resumed { continued } => ensure!(continued, "nothing that was said is lost in a move"),
            _ => {}
        }
    }
    Ok(())
}
