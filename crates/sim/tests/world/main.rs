//! Tests of the simulation from outside: inputs in, events out, without a runtime or waiting.

mod bench;
mod border;
mod cells;
mod combat;
mod creatures;
mod items;
mod movement;
mod replay;
mod snapshot;
mod trades;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use shardkeep_sim::{
    Act, ActionKey, EnteringAvatar, Event, HardChange, Input, Item, Map, Outcome, Possessions, Refusal,
    Reply, Requester, Sim, rules::TICK_MS,
};
use shardkeep_types::{CellRect, CharacterId, EntityId, Epoch, ItemId, Point, Position, SpaceId, SpawnId};

const SPACE: SpaceId = SpaceId(1);
const ANN: CharacterId = CharacterId(1);
const BOB: CharacterId = CharacterId(2);

/// A simulation with a test clock.
struct World {
    sim: Sim,
    now: u64,
    requests: u64,
}

fn creature(number: u32) -> EntityId {
    EntityId::creature(SpawnId { space: SPACE, number })
}

fn at(x_mm: i32, y_mm: i32) -> Position {
    Position::flat(SPACE, x_mm, y_mm)
}

fn rect(x0: u16, y0: u16, x1: u16, y1: u16) -> CellRect {
    CellRect { space: SPACE, x0, y0, x1, y1 }
}

fn item(id: u64) -> Item {
    Item { id: ItemId(id), template: 4, count: 1 }
}

fn action(id: u64) -> ActionKey {
    ActionKey { id, digest: [id as u8; 16] }
}

fn entering(character: CharacterId, position: Position) -> EnteringAvatar {
    EnteringAvatar {
        character,
        name: Arc::from(format!("player-{character}")),
        epoch: Epoch(1),
        position,
        velocity: (0, 0),
        facing: 0,
        health: 100,
        last_input: 0,
        cooldown_ms: 0,
        possessions: Possessions::default(),
    }
}

impl World {
    /// Four by four owned cells of open ground without entities.
    fn open() -> Self {
        Self::on(Map::open("test", 4, 4, Point::flat(16_000, 16_000)), rect(0, 0, 4, 4))
    }

    fn on(map: Map, owned: CellRect) -> Self {
        let mut world =
            Self { sim: Sim::new(SPACE, Arc::new(map), 7, 1_000_000), now: 1_000_000, requests: 0 };
        let populate = Input::Populate { cells: owned, generations: BTreeMap::new() };
        world.tick([Input::Sectors(vec![owned]), ground(owned), populate]);
        world
    }

    /// Applies the inputs, then runs a tick.
    fn tick(&mut self, inputs: impl IntoIterator<Item = Input>) -> Vec<Event> {
        let mut events: Vec<Event> = inputs.into_iter().flat_map(|input| self.sim.apply(input)).collect();
        self.now += TICK_MS;
        events.extend(self.sim.tick(self.now));
        events
    }

    fn ticks(&mut self, count: u64) -> Vec<Event> {
        (0..count).flat_map(|_| self.tick([])).collect()
    }

    fn enter(&mut self, character: CharacterId, position: Position) {
        self.enter_with(character, position, Possessions::default());
    }

    fn enter_with(&mut self, character: CharacterId, position: Position, possessions: Possessions) {
        let entering = EnteringAvatar { possessions, ..entering(character, position) };
        self.tick([Input::Enter(Box::new(entering))]);
    }

    fn walk(&mut self, character: CharacterId, sequence: u32, velocity: (i32, i32)) -> Vec<Event> {
        self.tick([Input::Move { character, sequence, velocity, facing: 0 }])
    }

    fn position(&self, character: CharacterId) -> (i32, i32) {
        let at = self.sim.position(EntityId::avatar(character)).expect("the avatar is here");
        (at.x_mm, at.y_mm)
    }

    /// Sends a request and returns what it causes before the next tick.
    fn act(&mut self, character: CharacterId, act: Act) -> Vec<Event> {
        self.requests += 1;
        let requester = Requester { character, request: self.requests };
        self.sim.apply(Input::Act { requester, act })
    }

    fn committed(&mut self, number: u64, possessions: Vec<(CharacterId, Possessions)>) -> Vec<Event> {
        let outcome = Outcome::Done { applied: true, minted: vec![], possessions };
        self.sim.apply(Input::Committed { number, outcome })
    }
}

fn ground(cells: CellRect) -> Input {
    Input::Ground { cells, items: vec![] }
}

fn replies(events: &[Event]) -> Vec<(CharacterId, Result<Reply, Refusal>)> {
    let reply = |event: &Event| match event {
        Event::Reply { requester, reply } => Some((requester.character, reply.clone())),
        _ => None,
    };
    events.iter().filter_map(reply).collect()
}

fn commits(events: &[Event]) -> Vec<(u64, HardChange)> {
    let commit = |event: &Event| match event {
        Event::Commit { number, change } => Some((*number, change.clone())),
        _ => None,
    };
    events.iter().filter_map(commit).collect()
}
