//! Hard transactions per second: 32 players drop and pick up an item each, over gRPC through dbcache, every answer
//! after its commit is on the disk. Beside it, on the same server, programs that commit by themselves: one update per
//! commit, which keeps neither journal nor repeats; and the four writes of our transaction, each its own commit.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use shardkeep_cluster::{Dialer, certs};
use shardkeep_daemon::{ClusterConfig, DaemonConfig, Settings, launch};
use shardkeep_dbcache::{Config, Dbcache};
use shardkeep_rpc::{
    common::Position,
    dbcache::{
        ActionId, Character, ClaimRequest, CreateCharacterRequest, Fence, HardAction, LeadRequest,
        LedgerAccount, MoveItem, Stack, db_cache_client::DbCacheClient,
    },
};
use shardkeep_testkit::Postgres;
use shardkeep_types::{CellId, CharacterId, DaemonKind, SpaceId, WorldId};
use sqlx::{
    PgPool,
    postgres::PgPoolOptions,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::task::JoinSet;
use tonic::transport::Channel;

use crate::{
    fixture,
    table::{Benchmark, Outcome, Row},
};

const CLIENTS: u64 = 32;
const DURATION: Duration = Duration::from_secs(3);
const WORLD: u32 = 1;
const ZONE: &str = "west";
const AT: Position = Position { space: 1, layer: 0, x_mm: 500_000, y_mm: 512_000, z_mm: 0 };
/// The cell of [`AT`], as the tables name it.
const GROUND: &str = "g:1:1:15:16";

pub const LEDGER: Benchmark = Benchmark {
    name: "ledger",
    label: "hard transactions, 32 clients, fsync on",
    target: ">= 5 (one commit per statement), p99 <= 20 ms",
    run,
};

type Client = DbCacheClient<Channel>;

/// Done per second, and the 99th percentile of their times.
#[derive(Debug, Clone, Copy)]
struct Throughput {
    per_second: f64,
    p99: Duration,
}

impl Throughput {
    fn show(self) -> String {
        format!("{:.0} /s, p99 {:.1} ms", self.per_second, self.p99.as_secs_f64() * 1e3)
    }
}

fn run() -> Result<Outcome> {
    fixture::runtime()?.block_on(measure())
}

async fn measure() -> Result<Outcome> {
    let postgres = Postgres::dedicated().await;
    let ours = through_dbcache(&postgres.url()).await?;
    let row = |case, ours: Throughput, peer: Throughput, label| Row {
        case,
        ours: ours.show(),
        peer: format!("{} {label}", peer.show()),
        ratio: Some(ours.per_second / peer.per_second),
    };
    let pool = PgPoolOptions::new().max_connections(u32::try_from(CLIENTS)?).connect(&postgres.url()).await?;
    prepare_postgres(&pool).await?;
    let one = one_update(&pool).await?;
    let four = four_writes(&pool).await?;
    pool.close().await;
    drop(postgres);

    let folder = tempfile::tempdir()?;
    let ours_embedded =
        through_dbcache(&format!("sqlite:{}", folder.path().join("game.db").display())).await?;
    let embedded = sqlite_update(&folder.path().join("peer.db")).await?;
    Ok(Outcome::Rows(vec![
        row("PostgreSQL", ours, one, "one UPDATE per commit"),
        row("PostgreSQL, the same four writes", ours, four, "each write its own commit"),
        row("SQLite", ours_embedded, embedded, "one UPDATE per commit"),
    ]))
}

/// Runs a task for each client until the time is over. `once(client, round)` is timed.
async fn run_clients<F: Future<Output = Result<()>> + Send>(
    label: &str,
    once: impl Fn(u64, u64) -> F + Send + Sync + 'static,
) -> Result<Throughput> {
    let (once, begin) = (Arc::new(once), Instant::now());
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let once = once.clone();
        clients.spawn(async move {
            let mut times = Vec::new();
            while begin.elapsed() < DURATION {
                let start = Instant::now();
                once(client, times.len() as u64 + 1).await?;
                times.push(start.elapsed());
            }
            anyhow::Ok(times)
        });
    }
    let mut times = Vec::new();
    while let Some(client) = clients.join_next().await {
        times.extend(client??);
    }
    let took = begin.elapsed();
    ensure!(!times.is_empty(), "nothing was committed");
    times.sort_unstable();
    let speed = Throughput {
        per_second: times.len() as f64 / took.as_secs_f64(),
        p99: times[(times.len() - 1) * 99 / 100],
    };
    eprintln!("  {label}: {}", speed.show());
    Ok(speed)
}

async fn through_dbcache(store: &str) -> Result<Throughput> {
    let folder = tempfile::tempdir()?;
    certs::make_ca(folder.path())?;
    let files = certs::issue(folder.path(), DaemonKind::Dbcache, "dbcache-1", WorldId(0))?;
    let settings = Settings {
        daemon: DaemonConfig {
            name: "dbcache-1".into(),
            data_dir: folder.path().join("data"),
            ..DaemonConfig::default()
        },
        cluster: ClusterConfig { ca: files.ca, cert: files.cert, key: files.key, ..ClusterConfig::default() },
        service: Config { store: store.to_owned(), ..Config::default() },
        ..Settings::default()
    };
    let mut running = launch::<Dbcache>(settings).await?;
    let address = running.ready().await?.grpc;
    let characters = enter(dial(folder.path(), DaemonKind::World, "world-1", &address)?).await?;
    let zone = dial(folder.path(), DaemonKind::Zone, ZONE, &address)?;
    let label = store.split_once(':').map_or("store", |(engine, _)| engine);
    let speed = run_clients(label, move |client, round| {
        let action = move_action(&characters[client as usize], round);
        let mut zone = zone.clone();
        async move {
            let result = zone.commit(action).await?.into_inner();
            ensure!(result.applied, "a fresh action was taken for a repeat");
            Ok(())
        }
    })
    .await?;
    running.stop().await?;
    Ok(speed)
}

fn dial(folder: &Path, kind: DaemonKind, name: &str, address: &str) -> Result<Client> {
    let files = certs::issue(folder, kind, name, WorldId(WORLD))?;
    Ok(DbCacheClient::new(Dialer::new(files.load()?.into()).channel(DaemonKind::Dbcache, address)))
}

/// A character for each client, owned by the zone.
async fn enter(mut world: Client) -> Result<Vec<Character>> {
    let request = LeadRequest { world: WORLD, holder: "world-1".into(), incarnation: 1, ttl_ms: 60_000 };
    let term = world.lead(request).await?.into_inner().term;
    let mut characters = Vec::new();
    for number in 0..CLIENTS {
        let new = CreateCharacterRequest {
            account: number + 1,
            world: WORLD,
            name: format!("bench{number}"),
            start: Some(AT),
            items: vec![Stack { template: 1, count: 1 }],
            coins: 0,
            limit: 1,
        };
        let character = world.create_character(new).await?.into_inner();
        let claim = ClaimRequest {
            character: character.id,
            world: WORLD,
            term,
            zone: ZONE.into(),
            incarnation: 1,
            account: number + 1,
            session: vec![7; 16],
        };
        characters.push(world.claim(claim).await?.into_inner());
    }
    Ok(characters)
}

/// Odd rounds drop the item, even ones pick it up.
fn move_action(character: &Character, round: u64) -> HardAction {
    let holder = LedgerAccount::from(CharacterId(character.id));
    let ground = LedgerAccount::from((WorldId(WORLD), CellId { space: SpaceId(1), x: 15, y: 16 }));
    let ((from, to, at), reason) = if round % 2 == 1 {
        ((Some(holder), Some(ground), Some(AT)), "drop")
    } else {
        ((Some(ground), Some(holder), None), "pickup")
    };
    let item = character.items.first().map_or(0, |item| item.id);
    let digest = [round.to_le_bytes(), character.id.to_le_bytes()].concat();
    HardAction {
        action: Some(ActionId { character: character.id, id: round, digest }),
        fences: vec![Fence { character: character.id, epoch: character.epoch }],
        items: vec![MoveItem { item, from, to, at }],
        reason: reason.into(),
        ..HardAction::default()
    }
}

async fn prepare_postgres(pool: &PgPool) -> Result<()> {
    for statement in [
        "CREATE TABLE peer_items (id BIGINT PRIMARY KEY, holder TEXT NOT NULL, hop BIGINT NOT NULL)",
        "CREATE TABLE peer_journal (item BIGINT, hop BIGINT, source TEXT, target TEXT, PRIMARY KEY (item, hop))",
        "CREATE TABLE peer_actions (character BIGINT, slot BIGINT, digest BYTEA, PRIMARY KEY (character, slot))",
        "CREATE TABLE peer_characters (id BIGINT PRIMARY KEY, version BIGINT NOT NULL)",
        "INSERT INTO peer_items SELECT id, 'c:1', 0 FROM generate_series(0, 31) AS id",
        "INSERT INTO peer_characters SELECT id, 0 FROM generate_series(0, 31) AS id",
    ] {
        sqlx::query(statement).execute(pool).await.context(statement)?;
    }
    Ok(())
}

async fn one_update(pool: &PgPool) -> Result<Throughput> {
    let pool = pool.clone();
    run_clients("PostgreSQL, one UPDATE per commit", move |client, round| {
        let pool = pool.clone();
        async move { move_item(&pool, client, round).await }
    })
    .await
}

async fn move_item(pool: &PgPool, client: u64, round: u64) -> Result<()> {
    let holder = if round % 2 == 1 { GROUND } else { "c:1" };
    let update = sqlx::query("UPDATE peer_items SET holder = $2, hop = hop + 1 WHERE id = $1");
    update.bind(client as i64).bind(holder).execute(pool).await?;
    Ok(())
}

async fn four_writes(pool: &PgPool) -> Result<Throughput> {
    let pool = pool.clone();
    run_clients("PostgreSQL, four commits", move |client, round| {
        let pool = pool.clone();
        async move {
            move_item(&pool, client, round).await?;
            let (client, round) = (client as i64, round as i64);
            let journal = sqlx::query("INSERT INTO peer_journal VALUES ($1, $2, 'c:1', $3)");
            journal.bind(client).bind(round).bind(GROUND).execute(&pool).await?;
            let action = sqlx::query(
                "INSERT INTO peer_actions VALUES ($1, $2, $3)
                 ON CONFLICT (character, slot) DO UPDATE SET digest = excluded.digest",
            );
            action.bind(client).bind(round % 256).bind(&[7u8; 16][..]).execute(&pool).await?;
            let character = sqlx::query("UPDATE peer_characters SET version = version + 1 WHERE id = $1");
            character.bind(client).execute(&pool).await?;
            Ok(())
        }
    })
    .await
}

/// One connection, as SQLite has one writer, with the settings of ours.
async fn sqlite_update(path: &Path) -> Result<Throughput> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    let pool: SqlitePool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await?;
    sqlx::query("CREATE TABLE items (id INTEGER PRIMARY KEY, holder TEXT NOT NULL)").execute(&pool).await?;
    for id in 0..CLIENTS {
        sqlx::query("INSERT INTO items VALUES ($1, 'c:1')").bind(id as i64).execute(&pool).await?;
    }
    let racing = pool.clone();
    let speed = run_clients("SQLite, one UPDATE per commit", move |client, round| {
        let pool = racing.clone();
        async move {
            let holder = if round % 2 == 1 { GROUND } else { "c:1" };
            let update = sqlx::query("UPDATE items SET holder = $2 WHERE id = $1");
            update.bind(client as i64).bind(holder).execute(&pool).await?;
            Ok(())
        }
    })
    .await?;
    pool.close().await;
    Ok(speed)
}
