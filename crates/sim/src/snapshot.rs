//! Snapshots: the whole state of a space in bytes, from which another process continues it.
//!
//! A snapshot leaves out what only watchers need: subscriptions, unsent changes, and the state that each player has
//! received. Watchers of a restored space begin with keyframes. Equal states have equal bytes, so that the hash of the
//! bytes is the hash of the state.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};
use shardkeep_types::{EntityId, Position, Random, SpaceId};

use crate::{
    Map, Sim,
    body::{Bodies, EntityDetails},
    cells::{Cells, GroundItem},
    event::Kind,
    input::EffectResult,
    pending_commits::{PendingCommit, PendingCommits},
    sim::{Counts, PendingPickup, SentEffect, Spawn},
    trade::Trade,
};

/// Identifies the simulation: its rules, and the form of its inputs and snapshots. It is a hash of the source code of this
/// crate, so builds for different targets and profiles have the same value.
pub const SCHEMA: u64 = include!(concat!(env!("OUT_DIR"), "/schema.rs"));

/// Bodies of a valid snapshot are within this distance of the corner of the map, so that no sum overflows.
const MAX_COORDINATE: i32 = i32::MAX / 4;

/// Why a snapshot is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    #[error(
        "the snapshot is of another version of the simulation: its schema is {found:016x}, expected {SCHEMA:016x}"
    )]
    OtherSchema { found: u64 },
    #[error("the snapshot is of another map: its hash is {found:016x}, expected {expected:016x}")]
    OtherMap { found: u64, expected: u64 },
    #[error("the snapshot is damaged: {0}")]
    Damaged(&'static str),
}

/// The parts of a simulation in the order of the snapshot. `State` has the same parts, owned.
#[derive(Serialize)]
struct StateRef<'a> {
    schema: u64,
    map: u64,
    space: SpaceId,
    now: u64,
    tick: u64,
    random: &'a Random,
    bodies: &'a Bodies,
    cells: Vec<(u32, bool, &'a [GroundItem])>,
    spawns: &'a [Spawn],
    trades: &'a BTreeMap<u64, Trade>,
    commits: &'a BTreeMap<u64, PendingCommit>,
    sent: &'a BTreeMap<(EntityId, u64), SentEffect>,
    remote_ground_items: &'a BTreeMap<EntityId, (Position, u64)>,
    received: &'a BTreeMap<(EntityId, u64), (u64, EffectResult)>,
    pending_pickups: &'a [PendingPickup],
    numbers: u64,
}

#[derive(Deserialize)]
struct State {
    space: SpaceId,
    now: u64,
    tick: u64,
    random: Random,
    bodies: Bodies,
    cells: Vec<(u32, bool, Vec<GroundItem>)>,
    spawns: Vec<Spawn>,
    trades: BTreeMap<u64, Trade>,
    commits: BTreeMap<u64, PendingCommit>,
    sent: BTreeMap<(EntityId, u64), SentEffect>,
    remote_ground_items: BTreeMap<EntityId, (Position, u64)>,
    received: BTreeMap<(EntityId, u64), (u64, EffectResult)>,
    pending_pickups: Vec<PendingPickup>,
    numbers: u64,
}

impl Sim {
    /// The state in bytes, for [`restore`](Self::restore). Take it between two calls of the simulation.
    pub fn snapshot(&self) -> Vec<u8> {
        // Naming every field makes the compiler ask whether a new one belongs to the snapshot.
        let Self {
            space,
            map: _,
            map_hash,
            now,
            tick,
            steps: _,
            random,
            bodies,
            cells,
            spawns,
            trades,
            commits,
            sent,
            remote_ground_items,
            received,
            pending_pickups,
            events: _,
            counts: _,
            numbers,
        } = self;
        let state = StateRef {
            schema: SCHEMA,
            map: *map_hash,
            space: *space,
            now: *now,
            tick: *tick,
            random,
            bodies,
            cells: cells.owned_states(),
            spawns,
            trades,
            commits: commits.all(),
            sent,
            remote_ground_items,
            received,
            pending_pickups,
            numbers: *numbers,
        };
        bytes_of(&state)
    }

    /// A hash of the state without what only watchers need. Equal inputs and ticks after equal states give equal hashes.
    pub fn state_hash(&self) -> u64 {
        hash(&self.snapshot())
    }

    /// Continues the simulation of a snapshot. The map must be the same.
    pub fn restore(map: Arc<Map>, snapshot: &[u8]) -> Result<Self, SnapshotError> {
        const CUT: SnapshotError = SnapshotError::Damaged("it is cut off, or a value is out of its range");
        let (schema, rest) = postcard::take_from_bytes::<u64>(snapshot).map_err(|_| CUT)?;
        if schema != SCHEMA {
            return Err(SnapshotError::OtherSchema { found: schema });
        }
        let (found, rest) = postcard::take_from_bytes::<u64>(rest).map_err(|_| CUT)?;
        let expected = map.hash();
        if found != expected {
            return Err(SnapshotError::OtherMap { found, expected });
        }
        let (state, rest) = postcard::take_from_bytes::<State>(rest).map_err(|_| CUT)?;
        if !rest.is_empty() {
            return Err(SnapshotError::Damaged("bytes follow its end"));
        }
        state.into_sim(map, expected)
    }
}

impl State {
    fn into_sim(mut self, map: Arc<Map>, map_hash: u64) -> Result<Sim, SnapshotError> {
        let mut cells = Cells::new(self.space, &map);
        if !self.bodies.index() {
            return Err(SnapshotError::Damaged("an entity is in it twice, or without details"));
        }
        if self.spawns.len() != map.spawns.len() {
            return Err(SnapshotError::Damaged("its spawn points are not those of the map"));
        }
        if !bodies_are_valid(&self.bodies, &cells, &map) {
            return Err(SnapshotError::Damaged("an entity is outside the map, or is not what its id says"));
        }
        let mut is_valid = true;
        for (index, ready, ground) in self.cells {
            is_valid &= cells.restore(index, ready, ground);
        }
        if !is_valid {
            return Err(SnapshotError::Damaged(
                "a cell is outside the map, or an item is on the ground twice",
            ));
        }
        cells.sort(&self.bodies.hot);
        let mut commits = PendingCommits::default();
        self.commits.into_iter().for_each(|(number, commit)| commits.insert(number, commit));
        Ok(Sim {
            space: self.space,
            map,
            map_hash,
            now: self.now,
            tick: self.tick,
            steps: 1,
            random: self.random,
            bodies: self.bodies,
            cells,
            spawns: self.spawns,
            trades: self.trades,
            commits,
            sent: self.sent,
            remote_ground_items: self.remote_ground_items,
            received: self.received,
            pending_pickups: self.pending_pickups,
            events: Vec::new(),
            counts: Counts::default(),
            numbers: self.numbers,
        })
    }
}

fn bodies_are_valid(bodies: &Bodies, cells: &Cells, map: &Map) -> bool {
    let near = |at: i32| (-MAX_COORDINATE..=MAX_COORDINATE).contains(&at);
    bodies.hot.iter().zip(&bodies.details).all(|(body, details)| {
        let kind = match details {
            EntityDetails::Avatar(avatar) => {
                body.kind == Kind::Avatar && body.id == EntityId::avatar(avatar.character)
            }
            EntityDetails::Creature(creature) => {
                body.kind == Kind::Creature && creature.spawn < map.spawns.len()
            }
            EntityDetails::Ghost(_) => true,
        };
        let place = [body.x, body.y].into_iter().all(near) && (body.cell as usize) < cells.all.len();
        let motion = [body.parts.0, body.parts.1, body.vx, body.vy].into_iter().all(near);
        kind && place && motion
    })
}

impl Map {
    /// A hash of everything in the map that the simulation uses.
    pub fn hash(&self) -> u64 {
        hash(&bytes_of(self))
    }
}

/// The types of this crate have no values that postcard refuses, such as sequences of unknown length.
fn bytes_of(value: &impl Serialize) -> Vec<u8> {
    postcard::to_allocvec(value).unwrap_or_default()
}

/// The first 64 bits of BLAKE3: the same on every target.
fn hash(bytes: &[u8]) -> u64 {
    let hash = blake3::hash(bytes);
    hash.as_bytes().iter().take(8).fold(0, |sum, &byte| sum << 8 | u64::from(byte))
}
