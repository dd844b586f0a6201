//! A shared cluster for the stories, and players who start with the address of a DNS server.

mod raw_session;

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result};
use shardkeep_client::{
    ClientError, Config,
    game::{GameEvent, GameEvents, Player, View},
    lanes::{Connector, Lane, Trust},
    login::{self, GatewayTicket, WorldSelect},
};
use shardkeep_testkit::{Cluster, Postgres, Redis, Stores, wait_until};
use shardkeep_types::{CharacterId, EntityId};
use tokio::{sync::OnceCell, time::timeout};

pub use raw_session::{RawSession, connection_end};

pub const ZONE: &str = "shardkeep.test";
pub const WORLD: u32 = 1;
pub const PASSWORD: &str = "correct horse battery staple";
/// Longest wait for an event, on a machine that is busy with other stories.
pub const TIMEOUT: Duration = Duration::from_secs(30);
/// The border between the two zones, and the middle of the map, in mm.
pub const BORDER_MM: i32 = 512_000;

/// Every login solves a puzzle.
const SETTINGS: &str = r#"
[login.puzzle]
mode = "always"
least_bits = 8
most_bits = 8
"#;

/// One cluster on embedded stores for all stories that neither restart nor reconfigure it.
pub async fn shared() -> Result<&'static Cluster> {
    static SHARED: OnceCell<Cluster> = OnceCell::const_new();
    SHARED.get_or_try_init(|| Cluster::start_with(Stores::default(), Some(SETTINGS))).await
}

/// The two kinds of stores.
pub enum StoreBackend {
    Sqlite,
    Servers { postgres: Postgres, redis: Redis },
}

impl StoreBackend {
    pub async fn servers() -> Self {
        Self::Servers { postgres: Postgres::start().await, redis: Redis::start().await }
    }

    pub fn stores(&self) -> Stores {
        match self {
            Self::Sqlite => Stores::default(),
            Self::Servers { postgres, redis } => {
                Stores { postgres: Some(postgres.url()), redis: Some(redis.url()) }
            }
        }
    }
}

/// A name that no other story uses.
pub fn unique_name(prefix: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let mut number = COUNT.fetch_add(1, Ordering::Relaxed);
    let mut name = prefix.to_owned();
    // Character names have letters only, and a world refuses names that look alike, such as `i` and `l`.
    for _ in 0..5 {
        name.push(char::from(b'a' + (number % 8) as u8));
        number /= 8;
    }
    name
}

/// The configuration of a player of this cluster: its DNS server.
pub fn config(cluster: &Cluster) -> Result<Config> {
    Ok(Config::with_dns(cluster.dns()?.parse().context("the DNS server's address")?))
}

/// The same for a player who takes this lane, and trusts the cluster's authority alone.
pub fn config_on(cluster: &Cluster, lane: Lane) -> Result<Config> {
    let trust = Trust::authority(&cluster.data_dir().join("tls/ca.pem"), None)?;
    let mut config = config(cluster)?;
    config.lanes = vec![lane];
    config.connector = Connector::new(&trust)?;
    // A handshake of TLS takes its time on a machine that is busy with other stories.
    config.timing.connect = TIMEOUT;
    config.timing.resume = TIMEOUT;
    Ok(config)
}

/// A player in the world, with a new account and a new character.
pub struct Actor {
    pub name: String,
    pub player: Player,
    pub events: GameEvents,
}

impl Actor {
    /// Makes an account and takes the whole path into the world.
    pub async fn enter(cluster: &Cluster, prefix: &str) -> Result<Self> {
        let name = unique_name(prefix);
        cluster.account(&name, PASSWORD).await?;
        Self::enter_as(cluster, &name).await
    }

    /// With an account that exists already.
    pub async fn enter_as(cluster: &Cluster, name: &str) -> Result<Self> {
        let gateway_ticket = log_in(cluster, name, PASSWORD).await?.select(WORLD).await?;
        Self::attach_with_ticket(&config(cluster)?, name, gateway_ticket).await
    }

    /// Like [`Actor::enter`], on this lane all the way.
    pub async fn enter_on(cluster: &Cluster, prefix: &str, lane: Lane) -> Result<Self> {
        let name = unique_name(prefix);
        cluster.account(&name, PASSWORD).await?;
        let config = config_on(cluster, lane)?;
        let gateway_ticket = log_in_with(&config, &name, PASSWORD).await?.select(WORLD).await?;
        Self::attach_with_ticket(&config, &name, gateway_ticket).await
    }

    /// Like [`Actor::enter`], through a gateway at an address for which `accept` holds.
    pub async fn enter_through(
        cluster: &Cluster,
        prefix: &str,
        accept: impl Fn(&str) -> bool,
    ) -> Result<Self> {
        let name = unique_name(prefix);
        cluster.account(&name, PASSWORD).await?;
        // Login chooses the gateway and limits the requests of one connection.
        for _ in 0..10 {
            let mut worlds = log_in(cluster, &name, PASSWORD).await?;
            for _ in 0..4 {
                let gateway_ticket = worlds.select(WORLD).await?;
                if accept(&gateway_ticket.gateway) {
                    return Self::attach_with_ticket(&config(cluster)?, &name, gateway_ticket).await;
                }
            }
        }
        anyhow::bail!("{name} is never offered the gateway it wants")
    }

    async fn attach_with_ticket(config: &Config, name: &str, gateway_ticket: GatewayTicket) -> Result<Self> {
        let (player, events) = Player::attach(config, gateway_ticket).await?;
        let known = player.list_characters().await?.characters;
        let id = match known.first() {
            Some(character) => character.id,
            None => player.create_character(name).await?.id,
        };
        player.enter(id).await?;
        Ok(Self { name: name.to_owned(), player, events })
    }

    pub fn entity(&self) -> Result<EntityId> {
        self.player.with_view(View::own_id).context("not in the world")
    }

    pub fn character(&self) -> Result<CharacterId> {
        self.entity()?.as_character().context("an avatar's id tells its character")
    }

    /// Waits until this player has the other in sight.
    pub async fn sees(&self, other: &Self) -> Result<()> {
        let entity = other.entity()?;
        let seen = self.player.wait_until(TIMEOUT, |view| view.entity(entity).map(|_| ())).await;
        seen.with_context(|| format!("{} does not see {}", self.name, other.name))
    }

    /// Waits for an event for which `accept` returns a value.
    pub async fn wait_until<T>(
        &mut self,
        description: &str,
        mut accept: impl FnMut(&GameEvent) -> Option<T>,
    ) -> Result<T> {
        let waiting = async {
            while let Some(event) = self.events.next().await {
                if let Some(found) = accept(&event) {
                    return Ok(found);
                }
            }
            anyhow::bail!("{}: the session ended before {description}", self.name)
        };
        timeout(TIMEOUT, waiting).await.with_context(|| format!("{} waits for {description}", self.name))?
    }

    /// Metres from the map's corner.
    pub fn position_m(&self) -> Result<(i32, i32)> {
        let position = self.player.with_view(View::position).context("not in the world")?;
        Ok((position.x_mm / 1_000, position.y_mm / 1_000))
    }

    /// Coins, and the ids of all items.
    pub async fn coins_and_items(&self) -> Result<(i64, Vec<u64>)> {
        let inventory = self.player.inventory().await?;
        let mut items: Vec<u64> = inventory.items.iter().map(|item| item.id).collect();
        items.sort_unstable();
        Ok((inventory.coins, items))
    }

    /// Walks to metres from the map's corner.
    pub async fn walk_to(&self, x_m: i32, y_m: i32) -> Result<()> {
        self.player.move_to(x_m * 1_000, y_m * 1_000, Duration::from_secs(120)).await?;
        Ok(())
    }
}

/// Waits until the daemon is not ready, for a reason that contains `cause`.
pub async fn wait_until_unready(cluster: &Cluster, daemon: &str, cause: &str) -> Result<()> {
    wait_until(&format!("{daemon} is not ready: {cause}"), async || {
        let reason = cluster.not_ready_reason(daemon).await?;
        Ok(reason.filter(|reason| reason.contains(cause)).map(drop))
    })
    .await
}

/// Waits until the daemon is ready.
pub async fn wait_until_ready(cluster: &Cluster, daemon: &str) -> Result<()> {
    wait_until(&format!("{daemon} is ready"), async || {
        Ok(cluster.not_ready_reason(daemon).await?.is_none().then_some(()))
    })
    .await
}

/// Logs in, and waits until the world is listed: login receives it a moment after the cluster is ready.
pub async fn log_in(cluster: &Cluster, name: &str, password: &str) -> Result<WorldSelect, ClientError> {
    let config =
        config(cluster).map_err(|error| ClientError::Io(std::io::Error::other(error.to_string())))?;
    log_in_with(&config, name, password).await
}

/// The same, configured by the caller.
pub async fn log_in_with(config: &Config, name: &str, password: &str) -> Result<WorldSelect, ClientError> {
    let mut worlds = login::log_in(config, ZONE, name, password).await?;
    let listed =
        async {
            while !worlds.worlds().iter().any(|it| {
                it.id == WORLD && it.status() == shardkeep_client::wire::payload::WorldStatus::WorldUp
            }) {
                worlds.next_worlds().await?;
            }
            Ok::<(), ClientError>(())
        };
    timeout(TIMEOUT, listed).await.map_err(|_| ClientError::Timeout("the world in the list"))??;
    Ok(worlds)
}

/// Brings two players within reach of a trade. New avatars stand a metre apart, with those of other stories in between.
pub async fn meet(one: &Actor, other: &Actor) -> Result<()> {
    tokio::try_join!(one.walk_to(500, 512), other.walk_to(501, 512))?;
    Ok(())
}

/// Gives an item of `giver` for a coin of `taker`, as one trade. Returns the item.
pub async fn trade(giver: &Actor, taker: &Actor) -> Result<u64> {
    meet(giver, taker).await?;
    let item = *giver.coins_and_items().await?.1.first().context("nothing to give")?;
    let trade = giver.player.invite(taker.entity()?).await?;
    taker.player.answer(trade, true).await?;
    giver.player.offer(trade, vec![item], 0).await?;
    let revision = taker.player.offer(trade, Vec::new(), 1).await?.revision;
    let (gave, took) =
        tokio::join!(giver.player.confirm(trade, revision), taker.player.confirm(trade, revision));
    gave?;
    took?;
    Ok(item)
}
