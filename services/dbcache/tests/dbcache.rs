//! Black-box tests of the daemon over mutual TLS, on both engines.

use std::{sync::Arc, time::Duration};

use shardkeep_cluster::{Dialer, certs};
use shardkeep_daemon::{Running, Settings, launch};
use shardkeep_dbcache::{Config, Dbcache};
use shardkeep_rpc::{
    common::{CellRect, Position},
    dbcache::{
        ActionId, Character, CheckConservationRequest, ClaimRequest, CountCharactersRequest,
        CreateCharacterRequest, Fence, FindCharactersRequest, HardAction, HardResult, LayoutSector,
        LayoutSpace, LeadRequest, LedgerAccount, ListCharactersRequest, LoadGroundRequest, LoadLayoutRequest,
        LoadRequest, LookupActionRequest, MintItem, MoveCoins, MoveItem, OnceKey, ReleaseRequest,
        ReownRequest, Reward, SaveSoftRequest, SoftState, Stack, StoreLayoutRequest, TransferRequest,
        db_cache_client::DbCacheClient, ledger_account::Account,
    },
    reason,
};
use shardkeep_store::{
    Database, Schema,
    game::{self, Caller, Game, Holder, NoCache},
};
use shardkeep_testkit::{FakeCluster, Postgres};
use shardkeep_types::{CellId, CharacterId, DaemonKind, SpaceId, SpawnId, WorldId};
use tonic::{Code, Status, transport::Channel};

type Client = DbCacheClient<Channel>;

const WORLD: u32 = 1;
const SESSION: [u8; 16] = [7; 16];

/// A cluster without a registry, and a store.
struct TestEnv {
    cluster: FakeCluster,
    store: String,
}

impl TestEnv {
    fn new(store: &str) -> Self {
        Self { cluster: FakeCluster::without_registry(), store: store.to_owned() }
    }

    fn settings(&self, name: &str) -> Settings<Config> {
        let mut settings = self.cluster.settings::<Config>(DaemonKind::Dbcache, name);
        settings.service.store.clone_from(&self.store);
        settings.service.database_timeout = Duration::from_millis(1_500);
        settings
    }

    async fn start(&self, name: &str) -> Replica<'_> {
        self.start_with(self.settings(name)).await
    }

    async fn start_with(&self, settings: Settings<Config>) -> Replica<'_> {
        let running = self.cluster.launch::<Dbcache>(settings).await;
        Replica { place: self, address: running.daemon().bound().grpc, running }
    }
}

struct Replica<'a> {
    place: &'a TestEnv,
    running: Running,
    address: String,
}

impl Replica<'_> {
    fn client(&self, kind: DaemonKind, name: &str, world: u32) -> Client {
        // A folder holds one certificate for each name, so that each client gets a folder with the same authority.
        let authority = self.place.cluster.folder();
        let folder = authority.join(format!("{kind}-{name}-{world}"));
        std::fs::create_dir_all(&folder).unwrap();
        for file in ["ca.pem", "ca.key"] {
            std::fs::copy(authority.join(file), folder.join(file)).unwrap();
        }
        let files = certs::issue(&folder, kind, name, WorldId(world)).unwrap();
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

    fn operator(&self) -> Client {
        self.client(DaemonKind::Cli, "cli", 0)
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
    certificate_of_another_kind_is_refused,
    certificate_of_another_world_is_refused,
    certificate_of_another_zone_is_refused,
    mint_and_burn_are_limited_by_reason_and_amount,
    stored_result_of_action_is_looked_up,
    layout_survives_restart_and_is_fenced,
}

fn place() -> Position {
    Position { space: 1, x_mm: 500_000, y_mm: 512_000, ..Default::default() }
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

/// The ground where [`place`] is.
fn ground() -> LedgerAccount {
    (WorldId(WORLD), CellId { space: SpaceId(1), x: 15, y: 16 }).into()
}

fn held_by(character: &Character) -> LedgerAccount {
    CharacterId(character.id).into()
}

fn drop_action(character: &Character, action: u64) -> HardAction {
    HardAction {
        action: Some(ActionId { character: character.id, id: action, digest: vec![action as u8; 16] }),
        fences: vec![Fence { character: character.id, epoch: character.epoch }],
        items: vec![MoveItem {
            item: character.items[0].id,
            from: Some(held_by(character)),
            to: Some(ground()),
            at: Some(place()),
        }],
        reason: "drop".to_owned(),
        ..HardAction::default()
    }
}

/// A state whose sequence is its x.
fn soft(character: &Character, x_mm: i32) -> SoftState {
    SoftState {
        sequence: x_mm.unsigned_abs().into(),
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

async fn assert_conserved(replica: &Replica<'_>, items: u64) {
    let reply =
        replica.operator().check_conservation(CheckConservationRequest {}).await.unwrap().into_inner();
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
    let seen = load(&mut west, ada.id).await;
    assert_eq!((seen.owner.as_str(), seen.epoch, seen.coins, seen.items.len()), ("east", 2, 0, 0));
    let there = load(&mut east, ada.id).await;
    assert_eq!((there.owner.as_str(), there.epoch, there.coins), ("east", 2, 50));
    let dropped = commit(&mut east, drop_action(&there, 1)).await.unwrap();
    assert!(dropped.applied && dropped.characters[0].items.is_empty());
    let cells = CellRect { space: 1, x0: 0, y0: 0, x1: 32, y1: 32 };
    let request = LoadGroundRequest { world: WORLD, cells: Some(cells), after: None };
    assert_eq!(east.load_ground(request).await.unwrap().into_inner().items.len(), 1);
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
    assert_conserved(&replica, 1).await;
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
    let reowned = world.reown(reown).await.unwrap().into_inner();
    assert_eq!((reowned.characters[0].epoch, &reowned.characters[0].session[..]), (2, &SESSION[..]));
    assert!(!reowned.more);

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

    // The answer was lost with the daemon. The caller repeats the action at the next one.
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
    assert_conserved(&replica, 1).await;
    replica.running.stop().await.unwrap();
}

async fn soft_state_is_coalesced_and_survives_drain(place: &TestEnv) {
    let mut settings = place.settings("dbcache-1");
    settings.service.write_behind = Duration::from_secs(5);
    let replica = place.start_with(settings).await;
    let (mut world, mut west) = (replica.world(), replica.zone("west"));
    let (ada, bob) = (create_claimed(&mut world, "Ada").await, create_claimed(&mut world, "Bob").await);
    for x_mm in [1, 2, 3] {
        assert!(save(&mut west, vec![soft(&ada, x_mm), soft(&bob, 10 * x_mm)]).await.is_empty());
    }
    // A reader gets the last state, whether or not it is written.
    assert_eq!(load(&mut world, bob.id).await.position.unwrap().x_mm, 30);
    replica.running.stop().await.unwrap();
    let replica = place.start("dbcache-1").await;
    assert_eq!(load(&mut replica.world(), ada.id).await.position.unwrap().x_mm, 3);
    replica.running.stop().await.unwrap();
}

/// Every call of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    ListCharacters,
    CountCharacters,
    FindCharacters,
    CreateCharacter,
    Claim,
    Reown,
    Lead,
    Transfer,
    Release,
    Load,
    SaveSoft,
    Commit,
    LookupAction,
    LoadGround,
    LoadLayout,
    StoreLayout,
    CheckConservation,
}

/// Each call and the kinds that may make it.
const CALLS: [(Call, &[DaemonKind]); 17] = [
    (Call::ListCharacters, &[DaemonKind::World]),
    (Call::CountCharacters, &[DaemonKind::Login]),
    (Call::FindCharacters, &[DaemonKind::Gm]),
    (Call::CreateCharacter, &[DaemonKind::World]),
    (Call::Claim, &[DaemonKind::World]),
    (Call::Reown, &[DaemonKind::World]),
    (Call::Lead, &[DaemonKind::World]),
    (Call::Transfer, &[DaemonKind::Zone]),
    (Call::Release, &[DaemonKind::Zone, DaemonKind::World]),
    (Call::Load, &[DaemonKind::Zone, DaemonKind::World]),
    (Call::SaveSoft, &[DaemonKind::Zone]),
    (Call::Commit, &[DaemonKind::Zone]),
    (Call::LookupAction, &[DaemonKind::Zone]),
    (Call::LoadGround, &[DaemonKind::Zone]),
    (Call::LoadLayout, &[DaemonKind::World]),
    (Call::StoreLayout, &[DaemonKind::World]),
    (Call::CheckConservation, &[DaemonKind::Gm, DaemonKind::Cli]),
];

impl Call {
    /// Makes the call on a character that the zone `west` owns, with everything but the certificate as it should be.
    async fn make(self, client: &mut Client, ada: &Character, term: u64) -> Result<(), Status> {
        let to_zone = "east".to_owned();
        match self {
            Self::ListCharacters => {
                client.list_characters(ListCharactersRequest { account: 1, world: WORLD }).await.map(drop)
            }
            Self::CountCharacters => {
                client.count_characters(CountCharactersRequest { accounts: vec![1] }).await.map(drop)
            }
            Self::FindCharacters => client.find_characters(FindCharactersRequest::default()).await.map(drop),
            Self::CreateCharacter => {
                let name = "Eve".to_owned();
                let start = Some(place());
                let new = CreateCharacterRequest {
                    account: 1,
                    world: WORLD,
                    name,
                    start,
                    limit: 8,
                    ..Default::default()
                };
                client.create_character(new).await.map(drop)
            }
            Self::Claim => client.claim(claim_of(ada, term)).await.map(drop),
            Self::Reown => {
                let (from_zone, from_incarnation, to_incarnation) = ("west".to_owned(), 1, 4);
                let reown =
                    ReownRequest { world: WORLD, term, from_zone, from_incarnation, to_zone, to_incarnation };
                client.reown(reown).await.map(drop)
            }
            Self::Lead => {
                let holder = "world-1".to_owned();
                client.lead(LeadRequest { world: WORLD, holder, incarnation: 9, ttl_ms: 1 }).await.map(drop)
            }
            Self::Transfer => client.transfer(transfer_of(ada)).await.map(drop),
            Self::Release => {
                let release = ReleaseRequest { character: ada.id, epoch: ada.epoch, soft: None };
                client.release(release).await.map(drop)
            }
            Self::Load => client.load(LoadRequest { character: ada.id }).await.map(drop),
            Self::SaveSoft => {
                client.save_soft(SaveSoftRequest { states: vec![soft(ada, 66)] }).await.map(drop)
            }
            Self::Commit => client.commit(drop_action(ada, 1)).await.map(drop),
            Self::LookupAction => client
                .lookup_action(LookupActionRequest { action: drop_action(ada, 1).action })
                .await
                .map(drop),
            Self::LoadGround => {
                let cells = Some(CellRect { space: 1, x0: 0, y0: 0, x1: 32, y1: 32 });
                let request = LoadGroundRequest { world: WORLD, cells, after: None };
                client.load_ground(request).await.map(drop)
            }
            Self::LoadLayout => {
                client.load_layout(LoadLayoutRequest { world: WORLD, after: None }).await.map(drop)
            }
            Self::StoreLayout => client.store_layout(first_layout(term)).await.map(drop),
            Self::CheckConservation => client.check_conservation(CheckConservationRequest {}).await.map(drop),
        }
    }
}

/// Space 1 with one sector.
fn first_layout(term: u64) -> StoreLayoutRequest {
    let space =
        LayoutSpace { space: 1, map: "meadow".into(), tick_hz: 20, width: 32, height: 32, closing: false };
    let sector = LayoutSector {
        sector: 1,
        cells: Some(CellRect { space: 1, x0: 0, y0: 0, x1: 32, y1: 32 }),
        owner: "west".to_owned(),
        owner_incarnation: 7,
        epoch: 1,
        pinned: "west".to_owned(),
    };
    StoreLayoutRequest {
        world: WORLD,
        term,
        revision: 0,
        next_space: 2,
        next_sector: 2,
        spaces: vec![space],
        sectors: vec![sector],
        removed_spaces: Vec::new(),
        removed_sectors: Vec::new(),
    }
}

async fn layout_survives_restart_and_is_fenced(place: &TestEnv) {
    let replica = place.start("dbcache-1").await;
    let mut world = replica.world();
    let term = lead(&mut world, 1).await;
    let first = first_layout(term);
    for attempt in ["first", "repeat"] {
        let reply = world.store_layout(first.clone()).await.unwrap().into_inner();
        assert_eq!(reply.revision, 1, "{attempt}");
    }
    let newer = lead(&mut world, 2).await;
    let stale_term = status(Code::FailedPrecondition, "stale_term");
    assert_eq!(refusal(world.store_layout(first.clone()).await), stale_term);
    let stale_revision = StoreLayoutRequest { term: newer, ..first.clone() };
    assert_eq!(refusal(world.store_layout(stale_revision).await), status(Code::Aborted, "stale_revision"));
    let mut wide = StoreLayoutRequest { term: newer, revision: 1, ..first.clone() };
    wide.spaces[0].width = 65_536;
    assert_eq!(refusal(world.store_layout(wide).await), status(Code::InvalidArgument, "invalid"));
    replica.running.stop().await.unwrap();

    let replica = place.start("dbcache-1").await;
    let request = LoadLayoutRequest { world: WORLD, after: None };
    let loaded = replica.world().load_layout(request).await.unwrap().into_inner();
    assert_eq!((loaded.revision, loaded.next_space, loaded.next_sector), (1, 2, 2));
    assert_eq!((loaded.spaces, loaded.sectors, loaded.next), (first.spaces, first.sectors, None));
    replica.running.stop().await.unwrap();
}

/// The character is as it was, the ledger as well, and no layout was stored.
async fn assert_untouched(replica: &Replica<'_>, ada: &Character) {
    let mut world = replica.world();
    assert_eq!(load(&mut world, ada.id).await, *ada);
    let listed = world.list_characters(ListCharactersRequest { account: 1, world: WORLD }).await.unwrap();
    assert_eq!(listed.into_inner().characters.len(), 1);
    let layout = world.load_layout(LoadLayoutRequest { world: WORLD, after: None }).await.unwrap();
    assert_eq!(layout.into_inner().revision, 0);
    assert_conserved(replica, 1).await;
}

async fn certificate_of_another_kind_is_refused(place: &TestEnv) {
    let replica = place.start("dbcache-1").await;
    let ada = create_claimed(&mut replica.world(), "Ada").await;
    let kinds = [
        DaemonKind::Dns,
        DaemonKind::Login,
        DaemonKind::Registry,
        DaemonKind::Gateway,
        DaemonKind::World,
        DaemonKind::Zone,
        DaemonKind::Ai,
        DaemonKind::Chat,
        DaemonKind::Billing,
        DaemonKind::Gm,
        DaemonKind::Logs,
        DaemonKind::Backend,
        DaemonKind::Cli,
    ];
    for kind in kinds {
        let name = if kind == DaemonKind::Zone { "west".to_owned() } else { format!("{kind}-1") };
        let mut client = replica.client(kind, &name, WORLD);
        for (call, _) in CALLS.iter().filter(|(_, allowed)| !allowed.contains(&kind)) {
            let refused = call.make(&mut client, &ada, 1).await;
            assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied, "{call:?} by {kind}");
        }
    }
    assert_untouched(&replica, &ada).await;
    replica.running.stop().await.unwrap();
}

async fn certificate_of_another_world_is_refused(place: &TestEnv) {
    let replica = place.start("dbcache-1").await;
    let ada = create_claimed(&mut replica.world(), "Ada").await;
    for world in [2, 0] {
        for (kind, name) in [(DaemonKind::Zone, "west"), (DaemonKind::World, "world-1")] {
            let mut client = replica.client(kind, name, world);
            for (call, _) in CALLS.iter().filter(|(_, allowed)| allowed.contains(&kind)) {
                let refused = call.make(&mut client, &ada, 1).await;
                // The database decides about soft state later; see `assert_untouched`.
                if *call == Call::SaveSoft && world != 0 {
                    refused.unwrap();
                    continue;
                }
                let forbidden = status(Code::PermissionDenied, "forbidden");
                assert_eq!(refusal(refused), forbidden, "{call:?} by a {kind} of world {world}");
            }
        }
    }
    // The certificate of world 2 names its own world, but a character of world 1.
    let mut foreign = replica.client(DaemonKind::Zone, "west", 2);
    let once = Some(OnceKey { world: 2, space: 1, spawn: 1, generation: 1 });
    let reward = Some(Reward { character: ada.id, epoch: ada.epoch, coins: 1, experience: 1 });
    let loot = HardAction { once, reward, reason: "loot".to_owned(), ..HardAction::default() };
    assert_eq!(refusal(commit(&mut foreign, loot).await), status(Code::PermissionDenied, "forbidden"));
    assert_untouched(&replica, &ada).await;
    replica.running.stop().await.unwrap();
}

async fn certificate_of_another_zone_is_refused(place: &TestEnv) {
    let replica = place.start("dbcache-1").await;
    let ada = create_claimed(&mut replica.world(), "Ada").await;
    let mut east = replica.zone("east");
    for call in [Call::Transfer, Call::Release, Call::Commit, Call::LookupAction] {
        let refused = call.make(&mut east, &ada, 1).await;
        assert_eq!(refusal(refused), status(Code::PermissionDenied, "forbidden"), "{call:?}");
    }
    let seen = load(&mut east, ada.id).await;
    let expected = Character {
        id: ada.id,
        world: WORLD,
        owner: "west".to_owned(),
        owner_incarnation: 1,
        epoch: ada.epoch,
        ..Character::default()
    };
    assert_eq!(seen, expected, "a zone sees only the ownership of a character of another zone");
    // Neither does its soft state keep that of the owner from the database.
    assert!(save(&mut replica.zone("west"), vec![soft(&ada, 5)]).await.is_empty());
    assert!(save(&mut east, vec![soft(&ada, 66)]).await.is_empty());
    assert_eq!(load(&mut replica.world(), ada.id).await.position.unwrap().x_mm, 5);
    assert!(save(&mut replica.zone("west"), vec![soft(&ada, 67)]).await.is_empty());
    assert_eq!(save(&mut east, vec![soft(&ada, 68)]).await, [ada.id]);
    // Nor may another world process or another holder lead.
    let usurper = Call::Lead.make(&mut replica.client(DaemonKind::World, "world-9", WORLD), &ada, 1).await;
    assert_eq!(refusal(usurper), status(Code::PermissionDenied, "forbidden"));
    assert_conserved(&replica, 1).await;
    replica.running.stop().await.unwrap();
}

fn loot(generation: u64, count: u32, reward: Option<Reward>) -> HardAction {
    HardAction {
        once: Some(OnceKey { world: WORLD, space: 1, spawn: 1, generation }),
        mints: vec![MintItem { template: 1, count, to: Some(ground()), at: Some(place()) }],
        reward,
        reason: "loot".to_owned(),
        ..HardAction::default()
    }
}

async fn mint_and_burn_are_limited_by_reason_and_amount(place: &TestEnv) {
    let replica = place.start("dbcache-1").await;
    let (mut world, mut west, mut east) = (replica.world(), replica.zone("west"), replica.zone("east"));
    let ada = create_claimed(&mut world, "Ada").await;
    let forbidden = status(Code::PermissionDenied, "forbidden");
    assert!(commit(&mut west, loot(1, 100, None)).await.unwrap().applied);
    assert_eq!(refusal(commit(&mut west, loot(2, 101, None)).await), forbidden);
    let quest = HardAction { reason: "quest".to_owned(), ..loot(2, 1, None) };
    let refused = commit(&mut west, quest).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("allowed reasons: loot"), "{}", refused.message());
    let reward = |coins, experience| Some(Reward { character: ada.id, epoch: ada.epoch, coins, experience });
    assert_eq!(refusal(commit(&mut west, loot(2, 1, reward(1_001, 0))).await), forbidden);
    assert_eq!(refusal(commit(&mut west, loot(2, 1, reward(0, 1_001))).await), forbidden);

    let burn = LedgerAccount { account: Some(Account::Burn("fee".to_owned())) };
    let mint = LedgerAccount { account: Some(Account::Mint("quest".to_owned())) };
    let coins = |from, to| HardAction {
        items: Vec::new(),
        coins: vec![MoveCoins { from: Some(from), to: Some(to), amount: 1 }],
        ..drop_action(&ada, 1)
    };
    assert_eq!(refusal(commit(&mut west, coins(held_by(&ada), burn.clone())).await), forbidden);
    assert_eq!(refusal(commit(&mut west, coins(mint, held_by(&ada))).await), forbidden);
    let mut burned = drop_action(&ada, 1);
    (burned.items[0].to, burned.items[0].at) = (Some(burn), None);
    assert_eq!(refusal(commit(&mut west, burned).await), forbidden);
    let rich = CreateCharacterRequest {
        account: 2,
        world: WORLD,
        name: "Rich".to_owned(),
        start: Some(self::place()),
        coins: 1_000_001,
        limit: 8,
        ..Default::default()
    };
    assert_eq!(refusal(world.create_character(rich).await), forbidden);

    // The exception: the neighbour rewards ada for a kill in its sector.
    assert!(commit(&mut east, loot(2, 1, reward(7, 9))).await.unwrap().characters.is_empty());
    let now = load(&mut west, ada.id).await;
    assert_eq!((now.coins, now.experience), (57, 9));
    assert_conserved(&replica, 3).await;
    replica.running.stop().await.unwrap();
}

async fn stored_result_of_action_is_looked_up(place: &TestEnv) {
    let replica = place.start("dbcache-1").await;
    let mut west = replica.zone("west");
    let ada = create_claimed(&mut replica.world(), "Ada").await;
    let ask = |action: HardAction| LookupActionRequest { action: action.action };
    let before = west.lookup_action(ask(drop_action(&ada, 1))).await.unwrap().into_inner();
    assert_eq!((before.found, before.character), (false, Some(ada.clone())));
    let done = commit(&mut west, drop_action(&ada, 1)).await.unwrap();
    let after = west.lookup_action(ask(drop_action(&ada, 1))).await.unwrap().into_inner();
    assert_eq!((after.found, after.character.as_ref()), (true, done.characters.first()));
    let mut other = drop_action(&ada, 1);
    other.action.as_mut().unwrap().digest = vec![0; 16];
    assert_eq!(refusal(west.lookup_action(ask(other)).await), status(Code::AlreadyExists, "action_conflict"));
    let far = commit(&mut west, drop_action(&ada, u64::MAX >> 1)).await;
    assert_eq!(refusal(far), status(Code::OutOfRange, "action_too_far"));
    replica.running.stop().await.unwrap();
}

/// 200,000 items do not fit into one message.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ground_with_200_000_items_is_loaded_in_pages() {
    const ITEMS: usize = 200_000;
    let place = TestEnv::new("sqlite");
    let data = place.cluster.folder().join("data");
    std::fs::create_dir_all(&data).unwrap();
    let url = format!("sqlite:{}", data.join("dbcache.db").display());
    let database = Database::open(&url, Schema::Game).await.unwrap();
    fill_ground(&Game::new(database.clone(), Arc::new(NoCache)), ITEMS).await;
    database.close().await;

    let replica = place.start("dbcache-1").await;
    let mut west = replica.zone("west");
    let cells = Some(CellRect { space: 1, x0: 0, y0: 0, x1: 32, y1: 32 });
    let mut request = LoadGroundRequest { world: WORLD, cells, after: None };
    let (mut items, mut spawns) = (Vec::new(), 0);
    loop {
        let page = west.load_ground(request).await.unwrap().into_inner();
        items.extend(page.items.into_iter().map(|found| found.item.unwrap().id));
        spawns += page.generations.len();
        request.after = page.next;
        if request.after.is_none() {
            break;
        }
    }
    items.sort_unstable();
    items.dedup();
    assert_eq!((items.len(), spawns), (ITEMS, ITEMS / 250));
    replica.running.stop().await.unwrap();
}

/// Mints items on the ground, 250 for each of many spawns.
async fn fill_ground(game: &Game, items: usize) {
    let cell = CellId { space: SpaceId(1), x: 15, y: 16 };
    let mint = game::MintItem {
        template: 1,
        count: 1,
        to: Holder::Ground(WorldId(WORLD), cell),
        at: Some(place().try_into().unwrap()),
    };
    let loot = |number| game::HardAction {
        caller: Caller::Zone { world: WorldId(WORLD), name: "west".to_owned() },
        action: None,
        other_actions: Vec::new(),
        once: Some(game::OnceKey {
            world: WorldId(WORLD),
            spawn: SpawnId { space: SpaceId(1), number },
            generation: 1,
        }),
        fences: Vec::new(),
        items: Vec::new(),
        mints: vec![mint.clone(); 250],
        coins: Vec::new(),
        reward: None,
        reason: "loot".to_owned(),
    };
    let actions: Vec<_> = (1..=items as u32 / 250).map(loot).collect();
    for batch in actions.chunks(40) {
        for outcome in game.commit(batch).await.unwrap() {
            assert!(outcome.unwrap().applied);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delayed_write_of_one_replica_does_not_replace_newer_state_of_another() {
    let server = Postgres::start().await;
    let place = TestEnv::new(&server.url());
    let mut slow = place.settings("dbcache-1");
    slow.service.write_behind = Duration::from_secs(5);
    let (slow, fast) = (place.start_with(slow).await, place.start("dbcache-2").await);
    let ada = create_claimed(&mut fast.world(), "Ada").await;
    assert!(save(&mut slow.zone("west"), vec![soft(&ada, 1)]).await.is_empty());
    assert!(save(&mut fast.zone("west"), vec![soft(&ada, 2)]).await.is_empty());
    // `Load` writes what waits at this replica first.
    assert_eq!(load(&mut fast.world(), ada.id).await.position.unwrap().x_mm, 2);
    // The drain writes the older state.
    slow.running.stop().await.unwrap();
    assert_eq!(load(&mut fast.world(), ada.id).await.position.unwrap().x_mm, 2);
    fast.running.stop().await.unwrap();
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
    // Two characters pick up the same item through different replicas.
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
    assert_conserved(&one, 2).await;
    one.running.stop().await.unwrap();
    other.running.stop().await.unwrap();
}

/// `taker` picks up the first item of `ada` from the ground.
fn pickup_action(ada: &Character, taker: &Character, action: u64) -> HardAction {
    let item = MoveItem { item: ada.items[0].id, from: Some(ground()), to: Some(held_by(taker)), at: None };
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
    // A repeat of the same action succeeds.
    let done = commit(&mut west, drop_action(&ada, 1)).await.unwrap();
    assert!(done.characters[0].items.is_empty());
    assert_eq!(load(&mut world, ada.id).await.position.unwrap().x_mm, 77);
    assert_conserved(&replica, 1).await;
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
    assert_conserved(&replica, 1).await;
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
