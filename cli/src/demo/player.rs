//! One headless player: the whole path from a name to a place in the world, and an ear for what happens to it there.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use parking_lot::Mutex;
use shardkeep_client::{
    Config, SessionEnd,
    game::{Happening, Happenings, Player},
    login::{Door, find},
};
use shardkeep_types::Secret;
use tokio::{sync::watch, time::timeout};

use super::stats::{Stats, Step};

/// How long a player keeps trying to get in, whatever the cluster goes through meanwhile.
const ENTRY_LIMIT: Duration = Duration::from_secs(60);
/// How long a world may be missing from the list.
const LISTED: Duration = Duration::from_secs(10);
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
pub struct Place {
    pub config: Config,
    pub zone: String,
    pub world: u32,
}

pub struct Bot {
    pub player: Player,
    pub ear: Ear,
}

/// What the listener of a player has heard.
#[derive(Clone)]
pub struct Ear {
    notes: Arc<Mutex<Notes>>,
    news: watch::Receiver<u64>,
}

#[derive(Default)]
struct Notes {
    /// The last lines, by whoever spoke.
    heard: Vec<String>,
    zone: String,
    placed_at: Option<Instant>,
    lost_at: Option<Instant>,
    ended: Option<SessionEnd>,
}

/// Lines kept until somebody asks for them.
const KEPT_LINES: usize = 512;

impl Ear {
    /// Waits until `test` of the notes gives something.
    async fn until<T>(&mut self, mut test: impl FnMut(&mut Notes) -> Option<T>) -> Result<T> {
        loop {
            self.news.borrow_and_update();
            if let Some(found) = test(&mut self.notes.lock()) {
                return Ok(found);
            }
            self.news.changed().await.context("the session is over")?;
        }
    }

    /// Waits for a line of chat.
    pub async fn heard(&mut self, line: &str) -> Result<()> {
        self.until(|notes| {
            let at = notes.heard.iter().position(|heard| heard == line)?;
            notes.heard.drain(..=at);
            Some(())
        })
        .await
    }

    /// Waits until the avatar stands in another zone than `from`; says when it was told.
    pub async fn placed_elsewhere(&mut self, from: &str) -> Result<(String, Instant)> {
        self.until(|notes| {
            let moved = !notes.zone.is_empty() && notes.zone != from;
            moved.then(|| notes.placed_at.map(|at| (notes.zone.clone(), at))).flatten()
        })
        .await
    }

    pub fn zone(&self) -> String {
        self.notes.lock().zone.clone()
    }

    /// Why the session is over, if it is.
    pub fn ended(&self) -> Option<SessionEnd> {
        self.notes.lock().ended.clone()
    }
}

impl Bot {
    /// DNS, login, world list, ticket, attach, character, enter; each step measured.
    pub async fn enter(place: &Place, credentials: &Credentials, stats: &Arc<Stats>) -> Result<Self> {
        let addresses = stats.measure(Step::Dns, find(&place.config, &place.zone)).await?;
        let address = *addresses.first().context("DNS knows no login server")?;
        let log_in = async {
            let door = Door::open(&place.config, address).await?;
            door.log_in(&credentials.account, credentials.password.expose()).await
        };
        let mut worlds = stats.measure(Step::Login, log_in).await?;
        let listed = Instant::now();
        // Login hears of a world a moment after the world leads.
        let listing = async {
            while worlds.worlds().iter().all(|it| it.id != place.world) {
                worlds.next_worlds().await?;
            }
            anyhow::Ok(())
        };
        timeout(LISTED, listing).await.with_context(|| format!("world {} is not listed", place.world))??;
        let boarding = worlds.select(place.world).await?;
        stats.took(Step::List, listed.elapsed());
        let (player, happenings) =
            stats.measure(Step::Attach, Player::attach(&place.config, boarding)).await?;
        let ear = listen(happenings, stats.clone());
        stats.measure(Step::Enter, into_the_world(&player, credentials)).await?;
        Ok(Self { player, ear })
    }

    /// Like [`Bot::enter`], again and again while parts of the cluster may be down.
    pub async fn enter_patiently(
        place: &Place,
        credentials: &Credentials,
        stats: &Arc<Stats>,
    ) -> Result<Self> {
        let started = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            match Self::enter(place, credentials, stats).await {
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
async fn into_the_world(player: &Player, credentials: &Credentials) -> Result<()> {
    let existing = player.list_characters().await?.characters;
    let id = match existing.into_iter().find(|it| it.name.eq_ignore_ascii_case(&credentials.character)) {
        Some(character) => character.id,
        None => player.create_character(&credentials.character).await?.id,
    };
    player.enter(id).await?;
    Ok(())
}

/// Takes notes of all that happens, until the session ends.
fn listen(mut happenings: Happenings, stats: Arc<Stats>) -> Ear {
    let (told, news) = watch::channel(0);
    let notes = Arc::new(Mutex::new(Notes::default()));
    let ear = Ear { notes: notes.clone(), news };
    tokio::spawn(async move {
        while let Some(happening) = happenings.next().await {
            note(&mut notes.lock(), happening, &stats);
            told.send_modify(|version| *version += 1);
        }
    });
    ear
}

fn note(notes: &mut Notes, happening: Happening, stats: &Stats) {
    match happening {
        Happening::Heard(heard) => {
            if notes.heard.len() == KEPT_LINES {
                notes.heard.remove(0);
            }
            notes.heard.push(heard.text);
        }
        Happening::Placed(placed) => {
            notes.zone = placed.zone;
            notes.placed_at = Some(Instant::now());
        }
        Happening::Lost => notes.lost_at = Some(Instant::now()),
        Happening::Resumed { .. } => {
            if let Some(lost) = notes.lost_at.take() {
                stats.took(Step::Resume, lost.elapsed());
            }
        }
        Happening::Ended(end) => notes.ended = Some(end),
        _ => {}
    }
}
