//! One headless player: the path from an account to an avatar in the world, and a record of its events.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use parking_lot::Mutex;
use shardkeep_client::{
    Config, SessionEnd,
    game::{GameEvent, GameEvents, Player},
    login::{LoginConnection, find},
};
use shardkeep_types::Secret;
use tokio::{sync::watch, time::timeout};

use super::stats::{Stats, Step};

/// How long a player tries to enter while daemons are killed.
const ENTRY_LIMIT: Duration = Duration::from_secs(60);
/// How long a world may be missing from the list.
const LISTED_TIMEOUT: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(4);

#[derive(Clone)]
pub struct Credentials {
    pub account: String,
    pub password: Secret<String>,
    pub character: String,
}

/// Where to play.
#[derive(Clone)]
pub struct PlayTarget {
    pub config: Config,
    pub zone: String,
    pub world: u32,
}

pub struct Bot {
    pub player: Player,
    pub observer: PlayerObserver,
}

/// Reads the events that a player has received.
#[derive(Clone)]
pub struct PlayerObserver {
    observations: Arc<Mutex<Observations>>,
    updates: watch::Receiver<u64>,
}

#[derive(Default)]
struct Observations {
    /// The last chat lines.
    chat_received: Vec<String>,
    zone: String,
    lost_at: Option<Instant>,
    ended: Option<SessionEnd>,
}

/// Most chat lines kept; the oldest is dropped.
const KEPT_LINES: usize = 512;

impl PlayerObserver {
    /// Waits until `test` of the notes gives something.
    async fn wait_until<T>(&mut self, mut test: impl FnMut(&mut Observations) -> Option<T>) -> Result<T> {
        loop {
            self.updates.borrow_and_update();
            if let Some(found) = test(&mut self.observations.lock()) {
                return Ok(found);
            }
            self.updates.changed().await.context("the session is over")?;
        }
    }

    /// Waits for a line of chat.
    pub async fn chat_received(&mut self, line: &str) -> Result<()> {
        self.wait_until(|observations| {
            let at = observations.chat_received.iter().position(|chat_received| chat_received == line)?;
            observations.chat_received.drain(..=at);
            Some(())
        })
        .await
    }

    /// Waits until the avatar is in another zone than `from`.
    pub async fn placed_in_other_zone(&mut self, from: &str) -> Result<()> {
        self.wait_until(|observations| {
            (!observations.zone.is_empty() && observations.zone != from).then_some(())
        })
        .await
    }

    pub fn zone(&self) -> String {
        self.observations.lock().zone.clone()
    }

    /// Why the session is over, if it is.
    pub fn ended(&self) -> Option<SessionEnd> {
        self.observations.lock().ended.clone()
    }
}

impl Bot {
    /// DNS, login, world list, ticket, attach, character, enter; each step measured.
    pub async fn enter(
        play_target: &PlayTarget,
        credentials: &Credentials,
        stats: &Arc<Stats>,
    ) -> Result<Self> {
        let addresses = stats.measure(Step::Dns, find(&play_target.config, &play_target.zone)).await?;
        let address = *addresses.first().context("DNS knows no login server")?;
        let log_in = async {
            let login_connection = LoginConnection::open(&play_target.config, address).await?;
            login_connection.log_in(&credentials.account, credentials.password.expose()).await
        };
        let mut worlds = stats.measure(Step::Login, log_in).await?;
        let listed = Instant::now();
        // Login receives a world's registration a moment after the world leads.
        let listing = async {
            while worlds.worlds().iter().all(|it| it.id != play_target.world) {
                worlds.next_worlds().await?;
            }
            anyhow::Ok(())
        };
        timeout(LISTED_TIMEOUT, listing)
            .await
            .with_context(|| format!("world {} is not listed", play_target.world))??;
        let gateway_ticket = worlds.select(play_target.world).await?;
        stats.record_time(Step::List, listed.elapsed());
        let (player, game_events) =
            stats.measure(Step::Attach, Player::attach(&play_target.config, gateway_ticket)).await?;
        let observer = spawn_observer(game_events, stats.clone());
        stats.measure(Step::Enter, enter_world(&player, credentials)).await?;
        Ok(Self { player, observer })
    }

    /// Repeats [`Bot::enter`] for up to `ENTRY_LIMIT` until it succeeds, because daemons may be down.
    pub async fn enter_with_retry(
        play_target: &PlayTarget,
        credentials: &Credentials,
        stats: &Arc<Stats>,
    ) -> Result<Self> {
        let started = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            match Self::enter(play_target, credentials, stats).await {
                Ok(bot) => return Ok(bot),
                Err(error) if started.elapsed() > ENTRY_LIMIT => {
                    return Err(error.context(format!("{} cannot get in", credentials.account)));
                }
                Err(_) => tokio::time::sleep(pause).await,
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// Enters with the account's character, made at the first visit.
async fn enter_world(player: &Player, credentials: &Credentials) -> Result<()> {
    let existing = player.list_characters().await?.characters;
    let id = match existing.into_iter().find(|it| it.name.eq_ignore_ascii_case(&credentials.character)) {
        Some(character) => character.id,
        None => player.create_character(&credentials.character).await?.id,
    };
    player.enter(id).await?;
    Ok(())
}

/// Takes notes of all that happens, until the session ends.
fn spawn_observer(mut game_events: GameEvents, stats: Arc<Stats>) -> PlayerObserver {
    let (updates_sender, updates) = watch::channel(0);
    let observations = Arc::new(Mutex::new(Observations::default()));
    let observer = PlayerObserver { observations: observations.clone(), updates };
    tokio::spawn(async move {
        while let Some(game_event) = game_events.next().await {
            observe(&mut observations.lock(), game_event, &stats);
            updates_sender.send_modify(|version| *version += 1);
        }
    });
    observer
}

fn observe(observations: &mut Observations, game_event: GameEvent, stats: &Stats) {
    match game_event {
        GameEvent::ChatMessage(chat_received) => {
            if observations.chat_received.len() == KEPT_LINES {
                observations.chat_received.remove(0);
            }
            observations.chat_received.push(chat_received.text);
        }
        GameEvent::Placed(placed) => {
            observations.zone = placed.zone;
        }
        GameEvent::Lost => observations.lost_at = Some(Instant::now()),
        GameEvent::Resumed { .. } => {
            if let Some(lost) = observations.lost_at.take() {
                stats.record_time(Step::Resume, lost.elapsed());
            }
        }
        GameEvent::Ended(end) => observations.ended = Some(end),
        _ => {}
    }
}
