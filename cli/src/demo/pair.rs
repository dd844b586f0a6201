//! Two players who walk side by side over the border between two zones, chat and trade. Each checks what the other does.

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
    lanes::{BORDER_DISTANCE_MM, Lane, PARTNER_DISTANCE_MM},
    player::{Bot, Credentials, PlayTarget},
    stats::{Stats, Step},
};

/// Longest wait for a neighbour to see or hear something.
const NOTICE_TIMEOUT: Duration = Duration::from_secs(10);
/// For the way from one side of the border to the other, and for a hand-over that waits.
const WALK_TIMEOUT: Duration = Duration::from_secs(30);
const TRADE_TIMEOUT: Duration = Duration::from_secs(30);
/// For the way along the road to a lane far from the start.
const APPROACH_TIMEOUT: Duration = Duration::from_secs(120);
/// A bot this near to its lane walks along it.
const ON_LANE_MM: i32 = 500;
/// Speeds that distinguish the moves of two rounds, in mm/s: the slowest, how many there are, and their distance (one
/// millimetre a tick, to which the server rounds).
const SLOWEST: i16 = 1_000;
const SPEEDS: u32 = 50;
const SPEED_STEP: i16 = 20;

/// The result of a pair.
#[derive(Debug, Default, Clone)]
pub struct Report {
    pub rounds: u32,
    /// Reasons of sessions that ended unexpectedly.
    pub sessions_lost: Vec<String>,
    /// Reasons of rounds that failed.
    pub failures: Vec<String>,
}

pub struct Pair {
    pub lane: Lane,
    pub play_target: PlayTarget,
    pub credentials: [Credentials; 2],
    pub stats: Arc<Stats>,
    /// Daemons are killed while the pair plays. A pair that cannot enter then tries again.
    pub chaos: bool,
}

impl Pair {
    /// Plays until `stop`, then logs out.
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
            // A failed round is not repeated: the next one begins on the other side of the border.
            round += 1;
            match played {
                Ok(()) => report.rounds += 1,
                Err(error) => report.failures.push(format!("{error:#}")),
            }
            match session_loss(&playing) {
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
                Box::pin(Bot::enter_with_retry(&self.play_target, credentials, &self.stats)).await
            } else {
                Bot::enter(&self.play_target, credentials, &self.stats).await
            }
        };
        let (one, other) = tokio::try_join!(enter(one), enter(other))?;
        Ok([one, other])
    }

    /// Crosses the border, moves, chats, and in two of three rounds trades or passes an item by way of the ground.
    async fn round(&self, bots: &mut [Bot; 2], round: u32) -> Result<()> {
        self.cross(bots, round).await?;
        self.check_move_seen(bots, round).await?;
        self.check_chat(bots, round).await?;
        match round % 3 {
            0 => self.trade(bots).await?,
            1 => self.transfer_item(bots).await?,
            _ => {}
        }
        Ok(())
    }

    /// Both players walk to the east in even rounds and to the west in odd ones.
    async fn cross(&self, bots: &mut [Bot; 2], round: u32) -> Result<()> {
        let entered = bots[0].player.with_view(|view| view.entered.clone()).context("not in the world")?;
        let border = i32::try_from(entered.width_mm / 2)?;
        let x =
            if round.is_multiple_of(2) { border + BORDER_DISTANCE_MM } else { border - BORDER_DISTANCE_MM };
        let y = self.lane.y;
        let [one, other] = bots;
        tokio::try_join!(self.approach(one, y), self.approach(other, y + PARTNER_DISTANCE_MM))?;
        tokio::try_join!(self.walk(one, border, x, y), self.walk(other, border, x, y + PARTNER_DISTANCE_MM))?;
        Ok(())
    }

    /// Walks to the lane: back to the road, and along it. Lanes and the road are free of obstacles.
    async fn approach(&self, bot: &Bot, y: i32) -> Result<()> {
        let here = bot.player.with_view(View::position).context("no position yet")?;
        if (here.y_mm - y).abs() > ON_LANE_MM {
            bot.player.move_to(self.lane.road_x, here.y_mm, WALK_TIMEOUT).await?;
            bot.player.move_to(self.lane.road_x, y, APPROACH_TIMEOUT).await?;
        }
        Ok(())
    }

    /// Walks along the lane. When the way crosses the border, measures the longest time between two positions of the own
    /// avatar, as the client receives them.
    async fn walk(&self, bot: &mut Bot, border: i32, x: i32, y: i32) -> Result<()> {
        let from = bot.observer.zone();
        let start = bot.player.with_view(View::position).context("no position yet")?;
        let crosses = (start.x_mm < border) != (x < border);
        if !crosses || from.is_empty() {
            bot.player.move_to(x, y, WALK_TIMEOUT).await?;
            return Ok(());
        }
        let longest = longest_stop(bot, x, y).await?;
        match timeout(WALK_TIMEOUT, bot.observer.placed_in_other_zone(&from)).await {
            Ok(placed) => {
                placed?;
                self.stats.record_time(Step::BorderStop, longest);
            }
            Err(_) => self.stats.record_failure(Step::BorderStop, &"no other zone took the avatar"),
        }
        Ok(())
    }

    /// The second player sees a move of the first.
    async fn check_move_seen(&self, [one, other]: &mut [Bot; 2], round: u32) -> Result<()> {
        let own_id = one.player.with_view(View::own_id).context("no avatar")?;
        let speed = SLOWEST + i16::try_from(round % SPEEDS)? * SPEED_STEP;
        let started = Instant::now();
        one.player.walk(0, speed).await?;
        let seen = timeout(NOTICE_TIMEOUT, wait_for_velocity(other, own_id, [0, speed])).await;
        one.player.stop().await?;
        match seen {
            Ok(Ok(())) => {
                self.stats.record_time(Step::MoveSeen, started.elapsed());
                Ok(())
            }
            Ok(Err(error)) => Err(error),
            Err(_) => {
                let sight = other.player.with_view(|view| view.entity(own_id).is_some());
                let why = if sight { "its move was not seen" } else { "it is not in sight" };
                self.stats.record_failure(Step::MoveSeen, &why);
                bail!("{}: {why} by its neighbour", self.credentials[0].character)
            }
        }
    }

    /// The first player receives a line of the second.
    async fn check_chat(&self, [one, other]: &mut [Bot; 2], round: u32) -> Result<()> {
        let line = format!("{} says hello, round {round}", self.credentials[1].character);
        let started = Instant::now();
        other.player.say(&line).await?;
        if let Ok(chat_received) = timeout(NOTICE_TIMEOUT, one.observer.chat_received(&line)).await {
            chat_received?;
            self.stats.record_time(Step::Chat, started.elapsed());
            return Ok(());
        }
        self.stats.record_failure(Step::Chat, &"not heard");
        bail!("{line:?} was not heard by its neighbour")
    }

    /// One player drops an item, and the other picks it up.
    async fn transfer_item(&self, [one, other]: &mut [Bot; 2]) -> Result<()> {
        let started = Instant::now();
        let result = timeout(TRADE_TIMEOUT, drop_and_pick_up(other, one))
            .await
            .context("it took too long")
            .and_then(|it| it);
        match &result {
            Ok(()) => self.stats.record_time(Step::PickUp, started.elapsed()),
            Err(error) => self.stats.record_failure(Step::PickUp, &format!("{error:#}")),
        }
        result
    }

    /// One player gives an item, the other coins.
    async fn trade(&self, [one, other]: &mut [Bot; 2]) -> Result<()> {
        let started = Instant::now();
        let result = timeout(TRADE_TIMEOUT, trade_items(one, other))
            .await
            .context("the trade took too long")
            .and_then(|it| it);
        match &result {
            Ok(()) => self.stats.record_time(Step::Trade, started.elapsed()),
            Err(error) => {
                self.stats.record_failure(Step::Trade, &format!("{error:#}"));
                cancel_trades(one).await;
            }
        }
        result
    }
}

/// Walks to a place, and returns the longest time without a new position on the way.
async fn longest_stop(bot: &Bot, x: i32, y: i32) -> Result<Duration> {
    let mut changes = bot.player.changes();
    let mut longest = Duration::ZERO;
    let mut last = None;
    let walking = bot.player.move_to(x, y, WALK_TIMEOUT);
    tokio::pin!(walking);
    loop {
        tokio::select! {
            arrived = &mut walking => {
                arrived?;
                return Ok(longest);
            }
            changed = changes.changed() => changed.context("the session is over")?,
        }
        let (here, now) = (bot.player.with_view(View::position), Instant::now());
        match last {
            Some((before, _)) if before == here => {}
            Some((_, since)) => {
                longest = longest.max(now.saturating_duration_since(since));
                last = Some((here, now));
            }
            None => last = Some((here, now)),
        }
    }
}

/// Cancels the trades that a failed round left open, because a player has one trade at a time.
async fn cancel_trades(bot: &Bot) {
    for trade in bot.player.with_view(|view| view.trades.keys().copied().collect::<Vec<_>>()) {
        // A trade that commits at this moment refuses, and ends by itself.
        let _ = bot.player.cancel(trade).await;
    }
}

/// Passes an item from one to the other by way of the ground.
async fn drop_and_pick_up(one: &Bot, other: &Bot) -> Result<()> {
    let Some(item) = one.player.inventory().await?.items.first().map(|item| item.id) else { return Ok(()) };
    one.player.drop_item(item).await?;
    let lying = EntityId::ground_item(ItemId(item));
    other
        .player
        .wait_until(NOTICE_TIMEOUT, |view| view.entity(lying).map(drop))
        .await
        .context("it is not seen on the ground")?;
    let taken = other.player.pick_up(lying).await?;
    ensure!(taken.items.iter().any(|it| it.id == item), "item {item} was taken and is not there");
    Ok(())
}

/// Waits until the bot sees the entity with this velocity.
async fn wait_for_velocity(bot: &Bot, entity: EntityId, velocity: [i16; 2]) -> Result<()> {
    let mut changes = bot.player.changes();
    loop {
        changes.borrow_and_update();
        if bot.player.with_view(|view| view.entity(entity).is_some_and(|it| it.velocity == velocity)) {
            return Ok(());
        }
        changes.changed().await.context("the session is over")?;
    }
}

async fn trade_items(one: &Bot, other: &Bot) -> Result<()> {
    let partner = other.player.with_view(View::own_id).context("no avatar")?;
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

/// The reason of a session of the pair that is over.
fn session_loss(bots: &[Bot; 2]) -> Option<String> {
    bots.iter().find_map(|bot| match bot.observer.ended() {
        None | Some(SessionEnd::Closed) => None,
        Some(end) => Some(end.to_string()),
    })
}
