//! The state of a simulation.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use shardkeep_types::{CellId, CharacterId, EntityId, Epoch, Layer, Point, Position, Random, SpaceId};

use crate::{
    body::{Bodies, Body, EntityDetails, Hold},
    cells::{Cells, GroundItem},
    event::{Event, Kind, OwnState, Refusal, RemovalReason, Reply},
    input::{ActionKey, Effect, EffectResult, GhostState, HardChange, Possessions, Requester},
    map::Map,
    pending_commits::{PendingCommit, PendingCommits},
    rules::{AVATAR_HEALTH, TICK_MS},
    trade::Trade,
};

/// The state of a spawn point. It outlives the creatures that appear there one after another.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Spawn {
    /// The generation that lives or will live next; 0 while this zone does not own the cell.
    pub(crate) generation: u64,
    /// When the next creature appears, while the creature is dead.
    pub(crate) respawns_at: Option<u64>,
    /// The epoch of the state with which another zone handed it over.
    pub(crate) taken: Epoch,
}

/// A pick-up near a border of an item that this zone does not know yet.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PendingPickup {
    pub(crate) requester: Requester,
    pub(crate) action: ActionKey,
    pub(crate) entity: EntityId,
    pub(crate) until: u64,
}

/// An effect that a neighbour has not answered yet.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SentEffect {
    pub(crate) effect: Effect,
    /// The player's request behind it. Creatures have none.
    pub(crate) requester: Option<Requester>,
    pub(crate) since: u64,
    pub(crate) repeat_at: u64,
}

/// Counters since the start, for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub entries: u64,
    /// Entries that waited for a later tick because their cell was crowded.
    pub deferred: u64,
    pub deaths: u64,
}

/// An entity and its position, for neighbours and observers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntityView {
    pub state: GhostState,
    pub kind: Kind,
    /// The entity belongs to another zone and is mirrored here.
    pub ghost: bool,
}

/// The world of one zone. The seed, the inputs, and the times of the ticks determine everything.
#[derive(Debug, Clone)]
pub struct Sim {
    pub(crate) space: SpaceId,
    pub(crate) map: Arc<Map>,
    pub(crate) map_hash: u64,
    pub(crate) now: u64,
    /// Number of the tick, `now / TICK_MS`.
    pub(crate) tick: u64,
    /// How many steps this tick covers.
    pub(crate) steps: i32,
    pub(crate) random: Random,
    pub(crate) bodies: Bodies,
    pub(crate) cells: Cells,
    pub(crate) spawns: Vec<Spawn>,
    pub(crate) trades: BTreeMap<u64, Trade>,
    pub(crate) commits: PendingCommits,
    pub(crate) sent: BTreeMap<(EntityId, u64), SentEffect>,
    /// Items on the ground of neighbours' cells, and when a neighbour last mentioned them.
    pub(crate) remote_ground_items: BTreeMap<EntityId, (Position, u64)>,
    pub(crate) received: BTreeMap<(EntityId, u64), (u64, EffectResult)>,
    pub(crate) pending_pickups: Vec<PendingPickup>,
    pub(crate) events: Vec<Event>,
    pub(crate) counts: Counts,
    pub(crate) numbers: u64,
}

impl Sim {
    /// A space without owned cells. `now` is the time in milliseconds, as for [`tick`](Self::tick).
    pub fn new(space: SpaceId, map: Arc<Map>, seed: u64, now: u64) -> Self {
        Self {
            space,
            cells: Cells::new(space, &map),
            spawns: vec![Spawn::default(); map.spawns.len()],
            map_hash: map.hash(),
            map,
            now,
            tick: now / TICK_MS,
            steps: 1,
            random: Random::new(seed),
            bodies: Bodies::default(),
            trades: BTreeMap::new(),
            commits: PendingCommits::default(),
            sent: BTreeMap::new(),
            remote_ground_items: BTreeMap::new(),
            received: BTreeMap::new(),
            pending_pickups: Vec::new(),
            events: Vec::new(),
            counts: Counts::default(),
            numbers: 0,
        }
    }

    pub fn space(&self) -> SpaceId {
        self.space
    }

    /// The time of the last tick, in milliseconds.
    pub fn now(&self) -> u64 {
        self.now
    }

    pub fn map(&self) -> &Map {
        &self.map
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The soft state of an avatar, and what a hand-over carries.
    pub fn avatar(&self, character: CharacterId) -> Option<AvatarView<'_>> {
        let (body, avatar) = self.bodies.avatar(character)?;
        Some(AvatarView {
            own: self.own_state(body, avatar.last_input),
            desired_velocity: avatar.desired_velocity,
            cooldown_ms: avatar.next_attack_at.saturating_sub(self.now),
            possessions: &avatar.possessions,
            trade: avatar.trade,
            held: body.is_held(),
        })
    }

    pub fn possessions(&self, character: CharacterId) -> Option<&Possessions> {
        self.bodies.avatar(character).map(|(_, avatar)| &avatar.possessions)
    }

    /// Whether a hard action of this character has no outcome yet.
    pub fn is_committing(&self, character: CharacterId) -> bool {
        self.commits.count_of(character) > 0
    }

    /// The name of an avatar, of this zone or a neighbour's.
    pub fn avatar_name(&self, character: CharacterId) -> Option<Arc<str>> {
        match &self.bodies.details[self.bodies.find(EntityId::avatar(character))?] {
            EntityDetails::Avatar(avatar) => Some(avatar.name.clone()),
            EntityDetails::Ghost(ghost) => Some(ghost.name.clone()),
            EntityDetails::Creature(_) => None,
        }
    }

    /// The position of an entity, ghosts included.
    pub fn position(&self, entity: EntityId) -> Option<Position> {
        let at = self.bodies.find(entity)?;
        Some(self.position_of(&self.bodies.hot[at]))
    }

    pub fn owns(&self, cell: CellId) -> bool {
        self.cells.index(cell).is_some_and(|index| self.cells.all[index].owned)
    }

    /// Every avatar and creature on the map of this zone, ghosts included.
    pub fn seen(&self) -> impl Iterator<Item = EntityView> {
        self.bodies
            .hot
            .iter()
            .zip(&self.bodies.details)
            .map(|(body, details)| self.entity_view(body, details))
    }

    /// The entities and ground items of this zone in or next to cells that it does not own, and those in these cells.
    /// Neighbours must know them.
    pub fn at_border<'a>(&'a self, cells: &BTreeSet<CellId>) -> impl Iterator<Item = EntityView> + use<'a> {
        let own = |details: &EntityDetails| !matches!(details, EntityDetails::Ghost(_));
        let wanted: BTreeSet<usize> = cells.iter().filter_map(|cell| self.cells.index(*cell)).collect();
        let for_ground = wanted.clone();
        let near = self.bodies.hot.iter().zip(&self.bodies.details);
        let is_wanted = move |cell: u32| wanted.contains(&(cell as usize)) || self.is_border_cell(cell);
        let bodies = near
            .filter(move |(body, details)| own(details) && is_wanted(body.cell))
            .map(|(body, details)| self.entity_view(body, details));
        let cells = self.cells.all.iter().zip(0u32..);
        let cells = cells.filter(move |(cell, index)| {
            !cell.ground.is_empty()
                && (for_ground.contains(&(*index as usize)) || self.is_border_cell(*index))
        });
        bodies.chain(cells.flat_map(|(cell, _)| cell.ground.iter().map(item_view)))
    }

    /// The cells of other zones in which avatars and creatures of this zone stand, and the cells around.
    pub fn cells_around_outsiders(&self) -> BTreeSet<CellId> {
        let own = |details: &EntityDetails| !matches!(details, EntityDetails::Ghost(_));
        let bodies = self.bodies.hot.iter().zip(&self.bodies.details);
        let outside = bodies.filter(|(body, details)| own(details) && !self.cells.owned(body.cell));
        let cells: BTreeSet<u32> = outside.map(|(body, _)| body.cell).collect();
        let around = cells.into_iter().flat_map(|cell| self.cells.around(cell as usize, 1));
        around.filter(|&index| !self.cells.owned(index as u32)).map(|index| self.cells.id(index)).collect()
    }

    /// A point of the map as a place in this space.
    pub(crate) fn place(&self, at: Point) -> Position {
        at.in_space(self.space, Layer(0))
    }

    pub(crate) fn position_of(&self, body: &Body) -> Position {
        self.place(body.point())
    }

    pub(crate) fn is_border_cell(&self, cell: u32) -> bool {
        self.cells.around(cell as usize, 1).any(|index| !self.cells.all[index].owned)
    }

    fn entity_view(&self, body: &Body, details: &EntityDetails) -> EntityView {
        let name = match details {
            EntityDetails::Avatar(avatar) => avatar.name.clone(),
            EntityDetails::Ghost(ghost) => ghost.name.clone(),
            EntityDetails::Creature(_) => Arc::from(""),
        };
        let state = GhostState {
            entity: body.id,
            template: body.template,
            name,
            position: self.position_of(body),
            velocity: (body.vx, body.vy),
            health: body.health,
            max_health: body.max_health,
        };
        EntityView { state, kind: body.kind, ghost: matches!(details, EntityDetails::Ghost(_)) }
    }

    pub(crate) fn own_state(&self, body: &Body, last_input: u32) -> OwnState {
        OwnState {
            tick: self.tick as u32,
            last_input,
            position: self.position_of(body),
            velocity: (body.vx as i16, body.vy as i16),
            facing: body.facing,
            health: body.health,
            max_health: body.max_health,
        }
    }

    pub(crate) fn reply(&mut self, requester: Requester, reply: Result<Reply, Refusal>) {
        self.events.push(Event::Reply { requester, reply });
    }

    /// A new number. It contains the time, so that no earlier run of this zone has used it.
    pub(crate) fn number(&mut self) -> u64 {
        self.numbers = (self.numbers + 1).max(self.now << 12);
        self.numbers
    }

    pub(crate) fn commit(&mut self, change: HardChange, requesters: Vec<Requester>, trade: Option<u64>) {
        let number = self.number();
        self.commits.insert(number, PendingCommit { change: change.clone(), requesters, trade });
        self.events.push(Event::Commit { number, change });
    }

    /// Removes an entity and tells its watchers the reason.
    pub(crate) fn remove_entity(&mut self, entity: EntityId, why: RemovalReason) -> Option<EntityDetails> {
        let (body, details) = self.bodies.remove(entity)?;
        self.cells.all[body.cell as usize].record_gone(entity, why);
        Some(details)
    }

    pub(crate) fn new_body(&self, id: EntityId, kind: Kind, at: Point) -> Body {
        Body {
            id,
            x: at.x_mm,
            y: at.y_mm,
            parts: (0, 0),
            vx: 0,
            vy: 0,
            health: AVATAR_HEALTH,
            max_health: AVATAR_HEALTH,
            cell: self.cells.at(at.x_mm, at.y_mm),
            template: 0,
            facing: 0,
            kind,
            hold: Hold::Free,
            near: crate::body::dirty::ALL,
            outer: crate::body::dirty::ALL,
        }
    }
}

fn item_view(ground_item: &GroundItem) -> EntityView {
    let state = GhostState {
        entity: EntityId::ground_item(ground_item.item.id),
        template: ground_item.item.template as u16,
        name: Arc::from(""),
        position: ground_item.at,
        velocity: (0, 0),
        health: 0,
        max_health: 0,
    };
    EntityView { state, kind: Kind::Item, ghost: false }
}

/// An avatar as the zone service needs it.
#[derive(Debug)]
pub struct AvatarView<'a> {
    pub own: OwnState,
    /// The velocity that the player wants. `own` has the velocity of the last tick.
    pub desired_velocity: (i32, i32),
    pub cooldown_ms: u64,
    pub possessions: &'a Possessions,
    pub trade: Option<u64>,
    /// The avatar leaves its zone: it begins nothing.
    pub held: bool,
}
