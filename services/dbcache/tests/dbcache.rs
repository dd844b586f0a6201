//! Black box over mutual TLS, on both engines: the daemon as worlds and zones see it.

use std::time::Duration;

use shardkeep_cluster::{Dialer, certs};
use shardkeep_daemon::{ClusterConfig, DaemonConfig, Running, Settings, launch};
use shardkeep_dbcache::{Config, Dbcache};
use shardkeep_rpc::{
    common::{CellRect, Position},
    dbcache::{
        ActionId, Character, CheckConservationRequest, ClaimRequest, CountCharactersRequest,
        CreateCharacterRequest, Fence, FindCharactersRequest, HardAction, HardResult, LeadRequest,
        ListCharactersRequest, LoadGroundRequest, LoadRequest, MintItem, MoveItem, OnceKey, ReleaseRequest,
        ReownRequest, SaveSoftRequest, SoftState, Stack, TransferRequest, db_cache_client::DbCacheClient,
    },
    reason,
};
use shardkeep_testkit::Postgres;
use shardkeep_types::{DaemonKind, WorldId};
use tonic::{Code, Status, transport::Channel};

type Client = DbCacheClient<Channel>;

const WORLD: u32 = 1;
const SESSION: [u8; 16] = [7; 16];

/// A place with a certificate authority and a store.
struct TestEnv {
    folder: tempfile::TempDir,
    store: String,
}

impl TestEnv {
    fn new(store: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        certs::make_ca(folder.path()).unwrap();
        Self { folder, store: store.to_owned() }
    }

    fn settings(&self, name: &str) -> Settings<Config> {
        let files = certs::issue(self.folder.path(), DaemonKind::Dbcache, name, WorldId(0)).unwrap();
        Settings {
            daemon: DaemonConfig {
                name: name.to_owned(),
                data_dir: self.folder.path().join("data"),
                ..DaemonConfig::default()
            },
            cluster: ClusterConfig {
                ca: files.ca,
                cert: files.cert,
                key: files.key,
                ..ClusterConfig::default()
            },
            service: Config {
                store: self.store.clone(),
                database_timeout: Duration::from_millis(1_500),
                ..Config::default()
            },
            ..Settings::default()
        }
    }

    async fn start(&self, name: &str) -> Replica<'_> {
        let mut running = launch::<Dbcache>(self.settings(name)).await.unwrap();
        let address = running.ready().await.unwrap().grpc;
        Replica { place: self, running, address }
    }
}

struct Replica<'a> {
    place: &'a TestEnv,
    running: Running,
    address: String,
}

impl Replica<'_> {
    fn client(&self, kind: DaemonKind, name: &str, world: u32) -> Client {
        let files = certs::issue(self.place.folder.path(), kind, name, WorldId(world)).unwrap();
        let dialer = Dialer::new(files.load().unwrap().into());
        DbCacheClient::new(dialer.channel(DaemonKind::Dbcache, &self.address))
    }

    fn world(&self) -> Client {
        self.client(DaemonKind::World, "world-1", WORLD)
    }

    fn login(&self) -> Client {
        self.client(DaemonKind::Login, "login-1", 0)
    }

    fn gm(&self) -> Client {
        self.client(DaemonKind::Gm, "gm-1", 0)
    }

    fn zone(&self, name: &str) -> Client {
        self.client(DaemonKind::Zone, name, WORLD)
    }
}

macro_rules! on_both_engines {
    ($($scenario:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $scenario() {
                super::$scenario(&super::TestEnv::new("sqlite")).await;
            })+
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $scenario() {
                let server = shardkeep_testkit::Postgres::start().await;
                super::$scenario(&super::TestEnv::new(&server.url())).await;
            })+
        }
    };
}

on_both_engines! {
    character_survives_transfer_and_restart,
    stale_owner_requests_are_refused,
    repeated_action_is_answered_after_restart,
    soft_state_is_coalesced_and_survives_drain,
    calls_for_other_world_or_instance_are_refused,
}

fn place() -> Position {
    Position { map: 1, x_mm: 500_000, y_mm: 512_000 }
}

async fn lead(world: &mut Client, incarnation: u64) -> u64 {
    let bid = LeadRequest { world: WORLD, holder: "world-1".to_owned(), incarnation, ttl_ms: 60_000 };
    let reply = world.lead(bid).await.unwrap().into_inner();
    assert!(reply.leader);
    reply.term
}

async fn create(world: &mut Client, name: &str) -> Character {
    let request = CreateCharacterRequest {
        account: 1,
        world: WORLD,
        name: name.to_owned(),
        start: Some(place()),
        items: vec![Stack { template: 1, count: 3 }],
        coins: 50,
        limit: 8,
    };
    world.create_character(request).await.unwrap().into_inner()
}

fn claim_of(character: &Character, term: u64) -> ClaimRequest {
    ClaimRequest {
        character: character.id,
        world: WORLD,
        term,
        zone: "west".to_owned(),
        incarnation: 1,
        account: 1,
        session: SESSION.to_vec(),
    }
}

async fn create_claimed(world: &mut Client, name: &str) -> Character {
    let term = lead(world, 1).await;
    let character = create(world, name).await;
    world.claim(claim_of(&character, term)).await.unwrap().into_inner()
}

fn transfer_of(character: &Character) -> TransferRequest {
    TransferRequest {
        character: character.id,
        epoch: character.epoch,
        from_zone: "west".to_owned(),
        from_incarnation: 1,
        to_zone: "east".to_owned(),
        to_incarnation: 1,
        soft: None,
    }
}

fn drop_action(character: &Character, action: u64) -> HardAction {
    HardAction {
        action: Some(ActionId { character: character.id, id: action, digest: vec![action as u8; 16] }),
        fences: vec![Fence { character: character.id, epoch: character.epoch }],
        items: vec![MoveItem {
            item: character.items[0].id,
            from: format!("c:{}", character.id),
            to: "g:1:1:15:16".to_owned(),
            at: Some(place()),
        }],
        reason: "drop".to_owned(),
        ..HardAction::default()
    }
}

fn soft(character: &Character, x_mm: i32) -> SoftState {
    SoftState {
        character: character.id,
        epoch: character.epoch,
        position: Some(Position { x_mm, ..place() }),
        facing: 0,
        health: 80,
    }
}

async fn commit(zone: &mut Client, action: HardAction) -> Result<HardResult, Status> {
    Ok(zone.commit(action).await?.into_inner())
}

async fn save(zone: &mut Client, states: Vec<SoftState>) -> Vec<u64> {
    zone.save_soft(SaveSoftRequest { states }).await.unwrap().into_inner().stale
}

async fn load(client: &mut Client, character: u64) -> Character {
    client.load(LoadRequest { character }).await.unwrap().into_inner()
}

fn refusal<T>(result: Result<T, Status>) -> (Code, String) {
    let status = result.err().expect("a refusal");
    (status.code(), reason(&status).unwrap_or_default().to_owned())
}

fn status(code: Code, reason: &str) -> (Code, String) {
    (code, reason.to_owned())
}

async fn assert_conserved(client: &mut Client, items: u64) {
    let reply = client.check_conservation(CheckConservationRequest {}).await.unwrap().into_inner();
    assert!(reply.holds, "{:?}", reply.faults);
    assert_eq!(reply.items, items);
}

async fn character_survives_transfer_and_restart(place: &TestEnv) {
    let replica = place.start("dbcache-1").await;
    let (mut world, mut west, mut east) = (replica.world(), replica.zone("west"), replica.zone("east"));
    let ada = create_claimed(&mut world, "Ada").await;
    assert_eq!((ada.owner.as_str(), ada.epoch, ada.coins, &ada.session[..]), ("west", 1, 50, &SESSION[..]));
    let twin = CreateCharacterRequest {
        account: 2,
        world: WORLD,
        name: "ADA".to_owned(),
        start: Some(self::place()),
        limit: 8,
        ..Default::default()
    };
    assert_eq!(refusal(world.create_character(twin).await), status(Code::AlreadyExists, "name_taken"));

    let moved = west.transfer(transfer_of(&ada)).await.unwrap().into_inner();
    assert_eq!(moved.epoch, 2);
    assert_eq!(west.transfer(transfer_of(&ada)).await.unwrap().into_inner().epoch, 2);
    let there = load(&mut east, ada.id).await;
    assert_eq!((there.owner.as_str(), there.epoch), ("east", 2));
    let dropped = commit(&mut east, drop_action(&there, 1)).await.unwrap();
    assert!(dropped.applied && dropped.characters[0].items.is_empty());
    let cells = CellRect { map: 1, x0: 0, y0: 0, x1: 32, y1: 32 };
    let ground = LoadGroundRequest { world: WORLD, cells: Some(cells) };
    assert_eq!(east.load_ground(ground).await.unwrap().into_inner().items.len(), 1);
    east.release(ReleaseRequest {
        character: ada.id,
        epoch: 2,
        soft: Some(SoftState { epoch: 2, ..soft(&ada, 5) }),
    })
    .await
    .unwrap();
    replica.running.stop().await.unwrap();

    let replica = place.start("dbcache-1").await;
    let mut world = replica.world();
    let listed =
        world.list_characters(ListCharactersRequest { account: 1, world: WORLD }).await.unwrap().into_inner();
    let mut login = replica.login();
    let request = CountCharactersRequest { accounts: vec![99, 1, 99, 1] };
    let counted = login.count_characters(request).await.unwrap().into_inner();
    let counted: Vec<_> = counted.counts.into_iter().map(|it| Vec::from_iter(it.by_world)).collect();
    assert_eq!(counted, [vec![], vec![(WORLD, 1)], vec![], vec![(WORLD, 1)]]);
    let too_many = CountCharactersRequest { accounts: vec![1; 1_025] };
    assert_eq!(login.count_characters(too_many).await.unwrap_err().code(), Code::InvalidArgument);
    let find = |name_prefix: &str, limit| FindCharactersRequest { name_prefix: name_prefix.into(), limit };
    let mut gm = replica.gm();
    let found = gm.find_characters(find("aD", 10)).await.unwrap().into_inner().characters;
    assert_eq!(found.iter().map(|it| (it.name.as_str(), it.world)).collect::<Vec<_>>(), [("Ada", WORLD)]);
    assert!(gm.find_characters(find("da", 10)).await.unwrap().into_inner().characters.is_empty());
    for refused in [find("", 10), find("ada", 0), find("ada", 1_001)] {
        assert_eq!(gm.find_characters(refused).await.unwrap_err().code(), Code::InvalidArgument);
    }
    let ada = &listed.characters[0];
    assert_eq!((ada.owner.as_str(), ada.epoch, ada.position.unwrap().x_mm, ada.health), ("", 3, 5, 80));
    assert_conserved(&mut world, 1).await;
    replica.running.stop().await.unwrap();
}

async fn stale_owner_requests_are_refused(place: &TestEnv) {
    let replica = place.start("dbcache-1").await;
    let (mut world, mut west) = (replica.world(), replica.zone("west"));
    let ada = create_claimed(&mut world, "Ada").await;
    let newer = lead(&mut world, 2).await;
    assert_eq!(
        refusal(world.claim(claim_of(&ada, newer - 1)).await),
        status(Code::FailedPrecondition, "stale_term")
    );
    let reown = ReownRequest {
        world: WORLD,
        term: newer,
        from_zone: "west".to_owned(),
        from_incarnation: 1,
        to_zone: "east".to_owned(),
        to_incarnation: 4,
    };
    let late = ReownRequest { term: newer - 1, ..reown.clone() };
    assert_eq!(refusal(world.reown(late).await), status(Code::FailedPrecondition, "stale_term"));
    assert_eq!(world.reown(reown).await.unwrap().into_inner().characters[0].epoch, 2);

    let stale = status(Code::Aborted, "stale_epoch");
    assert_eq!(refusal(commit(&mut west, drop_action(&ada, 1)).await), stale);
    assert_eq!(refusal(west.transfer(transfer_of(&ada)).await), stale);
    assert_eq!(
        refusal(west.release(ReleaseRequest { character: ada.id, epoch: 1, soft: None }).await),
        stale
    );
    assert_eq!(save(&mut west, vec![soft(&ada, 1)]).await, [ada.id]);
    assert_eq!(load(&mut world, ada.id).await.position, Some(self::place()));
    let nobody = refusal(west.load(LoadRequest { character: 999 }).await);
    assert_eq!(nobody, status(Code::NotFound, "no_such_character"));
    replica.running.stop().await.unwrap();
}

async fn repeated_action_is_answered_after_restart(place: &TestEnv) {
    let replica = place.start("dbcache-1").await;
    let (mut world, mut west) = (replica.world(), replica.zone("west"));
    let ada = create_claimed(&mut world, "Ada").await;
    assert!(commit(&mut west, drop_action(&ada, 1)).await.unwrap().applied);
    replica.running.stop().await.unwrap();

    // The answer was lost with the daemon; another one gets the same question.
    let replica = place.start("dbcache-1").await;
    let mut west = replica.zone("west");
    let again = commit(&mut west, drop_action(&ada, 1)).await.unwrap();
    assert!(!again.applied && again.characters[0].last_action == 1);
    let mut other = drop_action(&ada, 1);
    other.action.as_mut().unwrap().digest = vec![0; 16];
    assert_eq!(refusal(commit(&mut west, other).await), status(Code::AlreadyExists, "action_conflict"));
    assert_eq!(
        refusal(commit(&mut west, drop_action(&ada, 2)).await),
        status(Code::FailedPrecondition, "not_held")
    );
    let anonymous = HardAction { action: None, ..drop_action(&ada, 3) };
    assert_eq!(refusal(commit(&mut west, anonymous).await), status(Code::InvalidArgument, "invalid"));
    assert_conserved(&mut replica.world(), 1).await;
    replica.running.stop().await.unwrap();
}

async fn soft_state_is_coalesced_and_survives_drain(place: &TestEnv) {
    let mut settings = place.settings("dbcache-1");
    settings.service.write_behind = Duration::from_secs(5);
    let mut running = launch::<Dbcache>(settings).await.unwrap();
    let address = running.ready().await.unwrap().grpc;
    let replica = Replica { place, running, address };
    let (mut world, mut west) = (replica.world(), replica.zone("west"));
    let (ada, bob) = (create_claimed(&mut world, "Ada").await, create_claimed(&mut world, "Bob").await);
    for x_mm in [1, 2, 3] {
        assert!(save(&mut west, vec![soft(&ada, x_mm), soft(&bob, 10 * x_mm)]).await.is_empty());
    }
    // Who reads or moves the character sees its last state, written or not.
    assert_eq!(load(&mut world, bob.id).await.position.unwrap().x_mm, 30);
    replica.running.stop().await.unwrap();
    let replica = place.start("dbcache-1").await;
    assert_eq!(load(&mut replica.world(), ada.id).await.position.unwrap().x_mm, 3);
    replica.running.stop().await.unwrap();
}

async fn calls_for_other_world_or_instance_are_refused(place: &TestEnv) {
    let replica = place.start("dbcache-1").await;
    let ada = create_claimed(&mut replica.world(), "Ada").await;
    let forbidden = status(Code::PermissionDenied, "forbidden");
    let mut foreign = replica.client(DaemonKind::World, "world-2", 2);
    let list = ListCharactersRequest { account: 1, world: WORLD };
    assert_eq!(refusal(foreign.list_characters(list).await), forbidden);
    assert_eq!(refusal(replica.zone("east").transfer(transfer_of(&ada)).await), forbidden);
    let usurper = LeadRequest { world: WORLD, holder: "world-1".to_owned(), incarnation: 9, ttl_ms: 1 };
    assert_eq!(refusal(replica.client(DaemonKind::World, "world-9", WORLD).lead(usurper).await), forbidden);
    let mint = HardAction {
        once: Some(OnceKey { world: WORLD, spawn: 1, generation: 1 }),
        mints: vec![MintItem {
            template: 1,
            count: 1,
            to: "g:1:1:15:16".to_owned(),
            at: Some(self::place()),
        }],
        reason: "loot".to_owned(),
        ..HardAction::default()
    };
    assert_eq!(
        refusal(commit(&mut replica.client(DaemonKind::Zone, "far", 2), mint.clone()).await),
        forbidden
    );
    // A zone may not do what a world may.
    let code = replica.zone("west").claim(claim_of(&ada, 1)).await.unwrap_err().code();
    assert_eq!(code, Code::PermissionDenied);
    assert!(commit(&mut replica.zone("west"), mint).await.unwrap().applied);
    replica.running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_apply_each_action_once() {
    let server = Postgres::start().await;
    let place = TestEnv::new(&server.url());
    let (one, other) = (place.start("dbcache-1").await, place.start("dbcache-2").await);
    let mut world = one.world();
    let (ada, bob) = (create_claimed(&mut world, "Ada").await, create_claimed(&mut world, "Bob").await);
    for round in 1..20u64 {
        let action = if round % 2 == 1 { drop_action(&ada, round) } else { pickup_action(&ada, &ada, round) };
        let (mut here, mut there) = (one.zone("west"), other.zone("west"));
        let (here, there) = tokio::join!(commit(&mut here, action.clone()), commit(&mut there, action));
        assert!(here.unwrap().applied != there.unwrap().applied, "exactly one of them applies it");
    }
    // Two people grab the same thing through different replicas.
    let (mut here, mut there) = (one.zone("west"), other.zone("west"));
    let (adas, bobs) = tokio::join!(
        commit(&mut here, pickup_action(&ada, &ada, 20)),
        commit(&mut there, pickup_action(&ada, &bob, 20))
    );
    assert!(adas.is_ok() != bobs.is_ok());
    let fresh: usize = [load(&mut world, ada.id).await, load(&mut world, bob.id).await]
        .iter()
        .map(|one| one.items.len())
        .sum();
    assert_eq!(fresh, 2);
    assert_conserved(&mut world, 2).await;
    one.running.stop().await.unwrap();
    other.running.stop().await.unwrap();
}

/// `taker` takes from the ground what `ada` brought into the world.
fn pickup_action(ada: &Character, taker: &Character, action: u64) -> HardAction {
    let item = MoveItem {
        item: ada.items[0].id,
        from: "g:1:1:15:16".to_owned(),
        to: format!("c:{}", taker.id),
        at: None,
    };
    HardAction { items: vec![item], reason: "pickup".to_owned(), ..drop_action(taker, action) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_database_makes_calls_unavailable_until_restart() {
    let server = Postgres::dedicated().await;
    let place = TestEnv::new(&server.url());
    let replica = place.start("dbcache-1").await;
    let (mut world, mut west) = (replica.world(), replica.zone("west"));
    let ada = create_claimed(&mut world, "Ada").await;
    server.kill();
    let unavailable = status(Code::Unavailable, "unavailable");
    assert_eq!(refusal(commit(&mut west, drop_action(&ada, 1)).await), unavailable);
    assert_eq!(refusal(west.load(LoadRequest { character: ada.id }).await), unavailable);
    assert!(save(&mut west, vec![soft(&ada, 77)]).await.is_empty(), "soft state waits");
    server.restart();
    // The same question gets through, and nobody knows how often it has been asked.
    let done = commit(&mut west, drop_action(&ada, 1)).await.unwrap();
    assert!(done.characters[0].items.is_empty());
    assert_eq!(load(&mut world, ada.id).await.position.unwrap().x_mm, 77);
    assert_conserved(&mut world, 1).await;
    replica.running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frozen_database_fails_calls_within_timeout() {
    let server = Postgres::dedicated().await;
    let place = TestEnv::new(&server.url());
    let replica = place.start("dbcache-1").await;
    let (mut world, mut west) = (replica.world(), replica.zone("west"));
    let ada = create_claimed(&mut world, "Ada").await;
    server.freeze();
    let unavailable = status(Code::Unavailable, "unavailable");
    let begin = std::time::Instant::now();
    assert_eq!(refusal(commit(&mut west, drop_action(&ada, 1)).await), unavailable);
    assert!(save(&mut west, vec![soft(&ada, 77)]).await.is_empty(), "soft state waits");
    assert_eq!(refusal(west.load(LoadRequest { character: ada.id }).await), unavailable);
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    server.thaw();
    let done = loop {
        match commit(&mut west, drop_action(&ada, 1)).await {
            Err(status) if status.code() == Code::Unavailable => {}
            result => break result.unwrap(),
        }
    };
    assert!(done.characters[0].items.is_empty());
    assert_eq!(load(&mut world, ada.id).await.position.unwrap().x_mm, 77);
    assert_conserved(&mut world, 1).await;
    replica.running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn second_owner_of_sqlite_file_gets_helpful_error() {
    let place = TestEnv::new("sqlite");
    let replica = place.start("dbcache-1").await;
    let second = launch::<Dbcache>(place.settings("dbcache-2")).await.unwrap();
    let error = format!("{:#}", second.join().await.unwrap_err());
    assert!(error.contains("dbcache.store") && error.contains("postgres://"), "{error}");
    replica.running.stop().await.unwrap();
}
