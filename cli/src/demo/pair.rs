//! Two players who walk side by side over the border between two zones, talk, and trade: everything one does is checked
//! by what the other sees of it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use shardkeep_client::{SessionEnd, game::View};
use shardkeep_types::{EntityId, ItemId};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{
    player::{Bot, Credentials, Place},
    stats::{Stats, Step},
};

/// How far on each side of the border the pair walks.
const REACH_MM: i32 = 9_000;
/// Two pairs' lanes are this far apart.
const LANE_MM: i32 = 1_500;
/// The two of a pair stand this far apart: within reach of a trade.
const APART_MM: i32 = 1_000;
/// A neighbour that has not seen or heard something by then never will.
const NOTICE: Duration = Duration::from_secs(10);
/// From one side of the border to the other, with time to spare for a hand-over that waits.
const WALK: Duration = Duration::from_secs(30);
const TRADE: Duration = Duration::from_secs(30);
/// Speeds that tell a move from all others, in mm/s: the slowest, how many there are, and what lies between them (one
/// millimetre a tick, to which the server rounds).
const SLOWEST: i16 = 1_000;
const SPEEDS: u32 = 50;
const SPEED_STEP: i16 = 20;

/// What became of a pair.
#[derive(Debug, Default, Clone)]
pub struct Report {
    pub rounds: u32,
    /// Sessions that ended without having been told to.
    pub sessions_lost: Vec<String>,
    /// Rounds that failed, and why.
    pub failures: Vec<String>,
}

pub struct Pair {
    pub number: u16,
    pub place: Place,
    pub credentials: [Credentials; 2],
    pub stats: Arc<Stats>,
    /// Daemons are being killed: what fails is tried again, and only losses count.
    pub chaos: bool,
}

impl Pair {
    /// Plays until told to stop, then leaves properly.
    pub async fn play(self, stop: CancellationToken) -> Report {
        let mut report = Report::default();
        let mut bots: Option<[Bot; 2]> = None;
        let mut round = 0;
        while !stop.is_cancelled() {
            let mut playing = match bots.take() {
                Some(playing) => playing,
                None => match Box::pin(self.enter()).await {
                    Ok(entered) => entered,
                    Err(error) => {
                        report.failures.push(format!("{error:#}"));
                        if self.chaos { continue } else { return report }
                    }
                },
            };
            let played = tokio::select! {
                played = self.round(&mut playing, round) => played,
                () = stop.cancelled() => {
                    bots = Some(playing);
                    break;
                }
            };
            // What failed is not played again: the next round begins on the other side of the border.
            round += 1;
            match played {
                Ok(()) => report.rounds += 1,
                Err(error) => report.failures.push(format!("{error:#}")),
            }
            match lost(&playing) {
                Some(why) => report.sessions_lost.push(why),
                None => bots = Some(playing),
            }
        }
        for bot in bots.into_iter().flatten() {
            bot.player.logout().await;
        }
        report
    }

    async fn enter(&self) -> Result<[Bot; 2]> {
        let [one, other] = &self.credentials;
        let enter = |credentials| async move {
            if self.chaos {
                Box::pin(Bot::enter_patiently(&self.place, credentials, &self.stats)).await
            } else {
                Bot::enter(&self.place, credentials, &self.stats).await
            }
        };
        let (one, other) = tokio::try_join!(enter(one), enter(other))?;
        Ok([one, other])
    }

    /// To the other side, a move, a word, and now and then a trade or something left on the ground.
    async fn round(&self, bots: &mut [Bot; 2], round: u32) -> Result<()> {
        self.cross(bots, round).await?;
        self.signal(bots, round).await?;
        self.talk(bots, round).await?;
        match round % 3 {
            0 => self.trade(bots).await?,
            1 => self.pass_on(bots).await?,
            _ => {}
        }
        Ok(())
    }

    /// Walks to the east in even rounds, to the west in odd ones, both together.
    async fn cross(&self, bots: &mut [Bot; 2], round: u32) -> Result<()> {
        let entered = bots[0].player.look(|view| view.entered.clone()).context("not in the world")?;
        let (middle, height) = (entered.width_mm / 2, entered.height_mm / 2);
        let (border, centre) = (i32::try_from(middle)?, i32::try_from(height)?);
        let x = if round.is_multiple_of(2) { border + REACH_MM } else { border - REACH_MM };
        let lanes = i32::from(self.number) - 25;
        let y = centre + lanes * LANE_MM;
        let [one, other] = bots;
        tokio::try_join!(self.walk(one, border, x, y), self.walk(other, border, x, y + APART_MM))?;
        Ok(())
    }

    /// One player's way over the border; the hand-over is what lies between crossing the line and standing in the
    /// other zone.
    async fn walk(&self, bot: &mut Bot, border: i32, x: i32, y: i32) -> Result<()> {
        let from = bot.ear.zone();
        let start = bot.player.look(View::position).context("no position yet")?;
        let crosses = (start.x_mm < border) != (x < border);
        let walking = bot.player.move_to(x, y, WALK);
        if !crosses || from.is_empty() {
            walking.await?;
            return Ok(());
        }
        let east = x > border;
        let crossing = async {
            let mut changes = bot.player.changes();
            loop {
                let beyond = bot.player.look(View::position).is_some_and(|at| (at.x_mm >= border) == east);
                if beyond {
                    return anyhow::Ok(Instant::now());
                }
                changes.changed().await.context("the session is over")?;
            }
        };
        let mut ear = bot.ear.clone();
        let handed = async {
            let placed = ear.placed_elsewhere(&from);
            let (crossed, placed) = tokio::try_join!(crossing, async { Ok(timeout(WALK, placed).await) })?;
            let (_, placed) = placed.context("no other zone took the avatar")??;
            anyhow::Ok(placed.saturating_duration_since(crossed))
        };
        let (arrived, handed) = tokio::join!(walking, handed);
        match handed {
            Ok(time) => self.stats.took(Step::HandOver, time),
            Err(error) => self.stats.failed(Step::HandOver, &error),
        }
        arrived?;
        Ok(())
    }

    /// A move of the one is seen by the other.
    async fn signal(&self, [one, other]: &mut [Bot; 2], round: u32) -> Result<()> {
        let me = one.player.look(View::me).context("no avatar")?;
        let speed = SLOWEST + i16::try_from(round % SPEEDS)? * SPEED_STEP;
        let started = Instant::now();
        one.player.walk(0, speed).await?;
        let seen = timeout(NOTICE, sees(other, me, [0, speed])).await;
        one.player.stop().await?;
        match seen {
            Ok(Ok(())) => {
                self.stats.took(Step::MoveSeen, started.elapsed());
                Ok(())
            }
            Ok(Err(error)) => Err(error),
            Err(_) => {
                let sight = other.player.look(|view| view.entity(me).is_some());
                let why = if sight { "its move was not seen" } else { "it is not in sight" };
                self.stats.failed(Step::MoveSeen, &why);
                bail!("{}: {why} by its neighbour", self.credentials[0].character)
            }
        }
    }

    /// A word of the other is heard by the one.
    async fn talk(&self, [one, other]: &mut [Bot; 2], round: u32) -> Result<()> {
        let line = format!("{} says hello, round {round}", self.credentials[1].character);
        let started = Instant::now();
        other.player.say(&line).await?;
        if let Ok(heard) = timeout(NOTICE, one.ear.heard(&line)).await {
            heard?;
            self.stats.took(Step::Chat, started.elapsed());
            return Ok(());
        }
        self.stats.failed(Step::Chat, &"not heard");
        bail!("{line:?} was not heard by its neighbour")
    }

    /// One drops an item, the other takes it; by turns, so that nobody runs out.
    async fn pass_on(&self, [one, other]: &mut [Bot; 2]) -> Result<()> {
        let started = Instant::now();
        let result =
            timeout(TRADE, by_the_ground(other, one)).await.context("it took too long").and_then(|it| it);
        match &result {
            Ok(()) => self.stats.took(Step::PickUp, started.elapsed()),
            Err(error) => self.stats.failed(Step::PickUp, &format!("{error:#}")),
        }
        result
    }

    /// One gives an item, the other coins.
    async fn trade(&self, [one, other]: &mut [Bot; 2]) -> Result<()> {
        let started = Instant::now();
        let result =
            timeout(TRADE, exchange(one, other)).await.context("the trade took too long").and_then(|it| it);
        match &result {
            Ok(()) => self.stats.took(Step::Trade, started.elapsed()),
            Err(error) => {
                self.stats.failed(Step::Trade, &format!("{error:#}"));
                call_off(one).await;
            }
        }
        result
    }
}

/// Ends what a failed trade left open, or nobody could trade again before the two part.
async fn call_off(bot: &Bot) {
    for trade in bot.player.look(|view| view.trades.keys().copied().collect::<Vec<_>>()) {
        // A trade that is being committed cannot be called off, and need not be.
        let _ = bot.player.cancel(trade).await;
    }
}

/// An item goes from one to the other by way of the ground.
async fn by_the_ground(one: &Bot, other: &Bot) -> Result<()> {
    let Some(item) = one.player.inventory().await?.items.first().map(|item| item.id) else { return Ok(()) };
    one.player.drop_item(item).await?;
    let lying = EntityId::ground_item(ItemId(item));
    other
        .player
        .until(NOTICE, |view| view.entity(lying).map(drop))
        .await
        .context("it is not seen on the ground")?;
    let taken = other.player.pick_up(lying).await?;
    ensure!(taken.items.iter().any(|it| it.id == item), "item {item} was taken and is not there");
    Ok(())
}

/// Waits until the entity has this velocity in the bot's eyes.
async fn sees(bot: &Bot, who: EntityId, velocity: [i16; 2]) -> Result<()> {
    let mut changes = bot.player.changes();
    loop {
        changes.borrow_and_update();
        if bot.player.look(|view| view.entity(who).is_some_and(|it| it.velocity == velocity)) {
            return Ok(());
        }
        changes.changed().await.context("the session is over")?;
    }
}

async fn exchange(one: &Bot, other: &Bot) -> Result<()> {
    let partner = other.player.look(View::me).context("no avatar")?;
    let gift = one.player.inventory().await?.items.first().map(|item| item.id);
    let coins = (other.player.inventory().await?.coins > 0).into();
    let trade = one.player.invite(partner).await?;
    other.player.answer(trade, true).await?;
    one.player.offer(trade, gift.into_iter().collect(), 0).await?;
    let offered = other.player.offer(trade, Vec::new(), coins).await?;
    let revision = offered.revision;
    let (mine, theirs) =
        tokio::join!(one.player.confirm(trade, revision), other.player.confirm(trade, revision));
    let (mine, theirs) = (mine?, theirs?);
    if let Some(gift) = gift {
        let has = |items: &[shardkeep_client::wire::payload::Item]| items.iter().any(|item| item.id == gift);
        ensure!(!has(&mine.items) && has(&theirs.items), "item {gift} is not where the trade put it");
    }
    Ok(())
}

/// Why a session of the pair is over, if one is.
fn lost(bots: &[Bot; 2]) -> Option<String> {
    bots.iter().find_map(|bot| match bot.ear.ended() {
        None | Some(SessionEnd::Closed) => None,
        Some(end) => Some(end.to_string()),
    })
}
