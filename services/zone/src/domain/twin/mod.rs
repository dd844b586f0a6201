//! A deterministic twin of a world: zones, a gateway, a world and a database, on a virtual clock and a network that
//! delays, loses and repeats messages. The seed determines everything. The spaces are the real ones. Gateway, world and
//! database are small models of the other daemons.

mod bot;
mod database;
mod run;
mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use shardkeep_link::{ClientMessage, GatewayId, LinkEvent, ServerMessage};
use shardkeep_sim::{Map, Outcome, Possessions, Sim, SpawnPoint, SpawnState, template};
use shardkeep_types::{
    AccountId, CellRect, CharacterId, DaemonKind, Epoch, InstanceId, Point, Position, Random, SessionId,
    SpaceId, Term, WorldId,
};

use self::{
    bot::Bot,
    database::{Database, Owner},
};
use crate::{
    config::Config,
    domain::{
        command::Command,
        effect::{Answer, Effect},
        handover::SourceEvent,
        mirror::{Mirror, Snapshot},
        partition::{Sector, SpaceInfo, Table},
        payload::{Admission, ReplyTo, StoredAvatar},
        space::{Space, Surroundings},
    },
};

const TICK_US: u64 = 50_000;
/// How long a call of a neighbour waits for its answer.
const OFFER_TIMEOUT_US: u64 = 1_000_000;
/// How long the world waits before it replaces a zone that does not answer.
const DETECTION_US: u64 = 1_000_000;
const SPAWNS_TIMEOUT_US: u64 = 500_000;
/// The age of a snapshot: its interval, a tick, and the delay of the message.
const SNAPSHOT_AGE_US: u64 = 1_060_000;
const RETRY_US: u64 = 200_000;
/// The map: four cells in a row. The border is in the middle.
const CELLS: u16 = 4;
pub(super) const BORDER_MM: i32 = 64_000;

/// Properties of the network, and planted faults that the checks must find.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setup {
    pub(super) seed: u64,
    /// Largest delay of a message, in microseconds.
    pub(super) delay_us: u32,
    /// Share of lost and of repeated calls between zones, in percent. Links and the database lose nothing.
    pub(super) loss_percent: u32,
    /// Zones are killed and stopped.
    pub(super) failures: bool,
    /// Zones are killed and never stopped.
    pub(super) kills_only: bool,
    /// Sectors move between living zones.
    pub(super) moves: bool,
    pub(super) bots: u64,
    /// Planted fault: the database checks no owner and no epoch.
    pub(super) unfenced: bool,
    /// Planted fault: spawns move without their creatures.
    pub(super) without_creatures: bool,
    /// Planted fault: an action is acknowledged before it is committed.
    pub(super) early_acknowledgement: bool,
}

#[derive(Debug)]
enum Delivery {
    Tick,
    Link(LinkEvent),
    Command(Command),
    /// A call of a zone or of the world, with the address of its answer.
    Call {
        from: Caller,
        command: CallBody,
    },
}

#[derive(Debug, Clone)]
enum Caller {
    World(CharacterId),
    /// A zone that gives spawns away.
    Spawns {
        zone: usize,
        incarnation: u64,
        numbers: Vec<u32>,
    },
    /// The offer of a zone.
    Zone {
        zone: usize,
        incarnation: u64,
        character: CharacterId,
        epoch: Epoch,
    },
    Nobody,
}

#[derive(Debug)]
enum CallBody {
    Admit(Box<Admission>),
    Offer(Box<crate::domain::payload::OfferedAvatar>),
    Settle(crate::domain::payload::Settlement),
    TakeSnapshot(Snapshot),
}

/// Something that happens at a virtual time.
#[derive(Debug)]
enum Happening {
    /// Only for this incarnation of a zone.
    Zone {
        zone: usize,
        incarnation: u64,
        delivery: Delivery,
    },
    Database {
        zone: usize,
        owner: Owner,
        request: Request,
    },
    Bind {
        session: SessionId,
        zone: String,
        epoch: Epoch,
    },
    Ready {
        session: SessionId,
        bind_epoch: Epoch,
    },
    ToClient {
        session: SessionId,
        messages: Vec<ServerMessage>,
    },
    BotActs(SessionId),
    /// The world replaces a zone that it takes for dead.
    Replace {
        zone: usize,
        incarnation: u64,
    },
    Restart(usize),
    Resume(usize),
    AdmitAgain(CharacterId),
    Fault,
    Mirrored {
        to: usize,
        from: Owner,
        snapshot: Snapshot,
    },
    MoveSectors,
}

#[derive(Debug)]
enum Request {
    Commit { job: crate::domain::payload::Job, fences: crate::domain::payload::Fences },
    Recall(crate::domain::payload::Job),
    Save(Vec<crate::domain::payload::SoftState>),
    Release(crate::domain::payload::SoftState),
    Load(CharacterId),
    Transfer { to: Owner, state: crate::domain::payload::SoftState },
}

struct Zone {
    incarnation: u64,
    space: Option<Space>,
    /// The snapshots that it keeps for the other zone.
    mirror: Mirror,
    /// Deliveries that wait because the process is stopped.
    stopped: Option<VecDeque<Delivery>>,
    callers: BTreeMap<ReplyTo, Caller>,
    last_reply: u64,
}

/// A session at the gateway.
struct Session {
    character: CharacterId,
    zone: Option<usize>,
    epoch: Epoch,
    ready: bool,
    held: Vec<ClientMessage>,
    bot: Bot,
}

pub(super) struct Twin {
    setup: Setup,
    now_us: u64,
    base: Instant,
    random: Random,
    happenings: BTreeMap<(u64, u64), Happening>,
    /// Arrival of the last message on each ordered channel.
    channels: BTreeMap<(usize, usize), u64>,
    numbers: u64,
    zones: Vec<Zone>,
    table: Arc<Table>,
    database: Database,
    sessions: BTreeMap<SessionId, Session>,
    gateway: GatewayId,
    /// Hand-overs that the database committed.
    pub(super) transfers: u64,
    pub(super) acknowledged: u64,
    /// Virtual time between a request and its reply, in microseconds.
    pub(super) latencies: Vec<u64>,
    /// The longest time between two positions of an avatar that moves, as its client receives them.
    pub(super) longest_stop_us: u64,
    pub(super) faults: Vec<String>,
    /// The number of times that sectors have moved. It determines who owns which half.
    moved: usize,
    /// The health of each creature, by spawn and generation, and when it was seen.
    creatures: BTreeMap<(u32, u64), Vec<(u64, u32)>>,
    /// When a zone was killed last.
    killed_at_us: Option<u64>,
    /// How often a snapshot brought back an earlier health.
    pub(super) restored: u64,
    /// Creatures that were seen hurt after a move of their sector.
    pub(super) hurt_after_move: u64,
    quiet: bool,
    traced: bool,
}

fn zone_name(zone: usize) -> String {
    format!("zone-{zone}")
}

fn map() -> Arc<Map> {
    let mut map = Map::open("twin", CELLS, 1, Point::flat(16_000, 16_000));
    for number in 0..u32::from(CELLS) {
        let home = Point::flat(20_000 + number.cast_signed() * 32_000, 15_000);
        map.spawns.push(SpawnPoint { number, template: template::BOAR, home });
    }
    Arc::new(map)
}

impl Setup {
    /// With lost calls a snapshot may be older, and a stopped zone continues with its own old state.
    fn watches_creatures(&self) -> bool {
        !self.failures || self.kills_only && self.loss_percent == 0
    }
}

impl Twin {
    pub(super) fn new(setup: Setup) -> Self {
        let mut twin = Self {
            setup,
            now_us: 0,
            base: Instant::now(),
            random: Random::new(setup.seed),
            happenings: BTreeMap::new(),
            channels: BTreeMap::new(),
            numbers: 0,
            zones: Vec::new(),
            table: Arc::default(),
            database: Database::new(setup.unfenced),
            sessions: BTreeMap::new(),
            gateway: "gateway-1".into(),
            transfers: 0,
            acknowledged: 0,
            latencies: Vec::new(),
            longest_stop_us: 0,
            faults: Vec::new(),
            moved: 0,
            creatures: BTreeMap::new(),
            killed_at_us: None,
            restored: 0,
            hurt_after_move: 0,
            quiet: false,
            traced: std::env::var_os("SHARDKEEP_TWIN_TRACE").is_some(),
        };
        for zone in 0..2 {
            twin.zones.push(Zone {
                incarnation: 0,
                space: None,
                mirror: Mirror::default(),
                stopped: None,
                callers: BTreeMap::new(),
                last_reply: 0,
            });
            twin.start_zone(zone);
        }
        twin.publish_halves();
        for number in 1..=setup.bots {
            twin.add_player(number);
        }
        if setup.moves {
            twin.happen_in(2_500_000, Happening::MoveSectors);
        }
        if setup.failures {
            twin.happen_in(2_000_000, Happening::Fault);
        }
        twin
    }

    fn add_player(&mut self, number: u64) {
        let (character, session) = (CharacterId(number), session_of(number));
        let x_mm = self.random.between(40_000, 88_000);
        let at = Position::flat(SpaceId::FIRST, x_mm, 16_000);
        let items = (0..3).map(|item| shardkeep_types::ItemId(number * 10 + item));
        self.database.create(character, session, at, items);
        let bot = Bot::new(self.random.draw());
        let new = Session { character, zone: None, epoch: Epoch(0), ready: false, held: Vec::new(), bot };
        self.sessions.insert(session, new);
        let zone = usize::from(x_mm >= BORDER_MM);
        self.database.claim(character, self.owner(zone));
        self.happen_in(10_000, Happening::AdmitAgain(character));
        self.happen_in(100_000, Happening::BotActs(session));
    }

    fn owner(&self, zone: usize) -> Owner {
        (zone_name(zone), self.zones[zone].incarnation)
    }

    fn zone_named(&self, name: &str) -> Option<usize> {
        (0..self.zones.len()).find(|zone| zone_name(*zone) == name)
    }

    fn is_alive(&self, zone: usize) -> bool {
        self.zones[zone].space.is_some() && self.zones[zone].stopped.is_none()
    }

    fn now(&self) -> Instant {
        self.base + Duration::from_micros(self.now_us)
    }

    fn wall_ms(&self) -> u64 {
        1_000_000 + self.now_us / 1_000
    }

    fn happen_in(&mut self, delay_us: u64, happening: Happening) {
        self.numbers += 1;
        self.happenings.insert((self.now_us + delay_us, self.numbers), happening);
    }

    fn delay(&mut self) -> u64 {
        1 + u64::from(self.random.within(0, self.setup.delay_us))
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.random.within(1, 100) <= percent
    }

    /// Delivers in the order of sending, as a stream does. Place 9 is the gateway.
    fn in_order(&mut self, from: usize, to: usize, happening: Happening) {
        let arrival = self.now_us + self.delay();
        let last = self.channels.entry((from, to)).or_insert(0);
        *last = arrival.max(*last);
        let delay = *last - self.now_us;
        self.happen_in(delay, happening);
    }

    fn send_to_zone(&mut self, zone: usize, delivery: Delivery) {
        let incarnation = self.zones[zone].incarnation;
        self.in_order(9, zone, Happening::Zone { zone, incarnation, delivery });
    }

    fn start_zone(&mut self, zone: usize) {
        let incarnation = self.now_us + 1;
        let me = InstanceId { kind: DaemonKind::Zone, name: zone_name(zone), incarnation };
        let config = Config { save_interval: Duration::from_millis(500), ..Config::default() };
        let sim = Sim::new(SpaceId::FIRST, map(), self.setup.seed, self.wall_ms());
        let mut space = Space::new(me, WorldId(1), config, sim, self.now());
        let surroundings = Surroundings {
            database_answers: true,
            draining: false,
            is_only_zone: false,
            avatars_elsewhere: 0,
        };
        space.surroundings(self.now(), surroundings);
        self.zones[zone].incarnation = incarnation;
        self.zones[zone].space = Some(space);
        self.zones[zone].stopped = None;
        self.zones[zone].callers.clear();
        let up = LinkEvent::Up { gateway: self.gateway.clone(), fresh: true };
        self.send_to_zone(zone, Delivery::Link(up));
        self.send_to_zone(zone, Delivery::Command(Command::PresenceLost));
        // A gateway announces its bindings again over a fresh link.
        let bound = self.sessions.iter().filter(|(_, bound)| bound.zone == Some(zone));
        let bound: Vec<SessionId> = bound.map(|(session, _)| *session).collect();
        bound.into_iter().for_each(|session| self.announce(session));
        self.happen_in(1, Happening::Zone { zone, incarnation, delivery: Delivery::Tick });
    }

    /// Gives each live zone one half of the map, or all of it to one of them.
    fn publish_halves(&mut self) {
        let alive: Vec<usize> = (0..2).filter(|zone| self.is_alive(*zone)).collect();
        let half = |zone: usize| if zone == 0 { (0, CELLS / 2) } else { (CELLS / 2, CELLS) };
        let sector = |part: usize| {
            let planned = [[0, 1], [0, 0], [1, 1], [1, 0]][self.moved % 4][part];
            let owner = if alive.contains(&planned) { planned } else { alive[0] };
            let (x0, x1) = half(part);
            Sector {
                cells: CellRect { space: SpaceId::FIRST, x0, y0: 0, x1, y1: 1 },
                zone: zone_name(owner),
                incarnation: self.zones[owner].incarnation,
                epoch: self.table.epoch + 1,
                grpc_address: zone_name(owner),
            }
        };
        let sectors = vec![sector(0), sector(1)];
        let epoch = self.table.epoch + 1;
        let zones = alive.iter().map(|zone| (self.owner(*zone), zone_name(*zone))).collect();
        let info = SpaceInfo { map: "twin".into(), closing: false };
        let (term, spaces) = (Term(1), BTreeMap::from([(SpaceId::FIRST, info)]));
        self.table = Arc::new(Table { term, epoch, sectors, spaces, alive: zones });
        for zone in alive {
            let orphans = self.zones[zone].mirror.orphans(&self.table, |_| Some(Map::clone(&map())));
            self.give_orphans(orphans);
            self.send_to_zone(zone, Delivery::Command(Command::Partition(self.table.clone())));
        }
    }

    fn tell_client(&mut self, session: SessionId, messages: Vec<ServerMessage>) {
        let delay = self.delay();
        self.happen_in(delay, Happening::ToClient { session, messages });
    }
}

fn session_of(number: u64) -> SessionId {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    SessionId(bytes)
}
