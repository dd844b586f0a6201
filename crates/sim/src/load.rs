//! A load for measuring ticks: many avatars that run and turn, with watchers everywhere.

use std::{collections::BTreeMap, sync::Arc};

use shardkeep_types::{CellId, CellRect, CharacterId, Epoch, Layer, Point, Position, SpaceId};

use crate::{
    EnteringAvatar, Event, Input, Map, Possessions, Random, Ring, Sim,
    rules::{AVATAR_SPEED, TICK_MS},
};

const SPACE: SpaceId = SpaceId(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Avatars spread over the whole map.
    Spread,
    /// All avatars in one cell.
    Clustered,
}

/// A simulation of the whole meadow with many avatars. Each turns about once a second.
#[derive(Debug, Clone)]
pub struct Load {
    sim: Sim,
    now: u64,
    avatars: u64,
    random: Random,
    shape: Shape,
    sequence: u32,
}

impl Load {
    pub fn new(avatars: u64, shape: Shape) -> Self {
        let map = Arc::new(Map::meadow());
        let cells = CellRect { space: SPACE, x0: 0, y0: 0, x1: map.width, y1: map.height };
        let mut random = Random::new(avatars);
        let mut inputs = vec![
            Input::Sectors(vec![cells]),
            Input::Ground { cells, items: Vec::new() },
            Input::Populate { cells, generations: BTreeMap::new() },
        ];
        let watch = |cell: CellId, ring| Input::Watch { cell, ring, on: true };
        inputs.extend(cells.cells().flat_map(|cell| [watch(cell, Ring::Near), watch(cell, Ring::Outer)]));
        for id in 1..=avatars {
            let position = spawn_position(&map, shape, &mut random);
            inputs.push(Input::Enter(Box::new(avatar(CharacterId(id), position))));
        }
        let now = 1_000_000;
        let mut sim = Sim::new(SPACE, map, 1, now);
        inputs.into_iter().for_each(|input| drop(sim.apply(input)));
        sim.tick(now);
        Self { sim, now, avatars, random, shape, sequence: 0 }
    }

    pub fn sim(&self) -> &Sim {
        &self.sim
    }

    /// Runs one tick with its share of turns.
    pub fn tick(&mut self) -> Vec<Event> {
        self.now += TICK_MS;
        self.sequence += 1;
        let first = self.sequence == 1;
        for id in 1..=self.avatars {
            if first || self.random.within(1, 20) == 1 {
                let turn = self.turn(CharacterId(id));
                self.sim.apply(turn);
            }
        }
        self.sim.tick(self.now)
    }

    /// A turn into a random direction. A cluster stays together because its avatars run back and forth.
    fn turn(&mut self, character: CharacterId) -> Input {
        let span = 2 * AVATAR_SPEED.unsigned_abs();
        let mut part = || self.random.within(0, span) as i32 - AVATAR_SPEED;
        let velocity = match self.shape {
            Shape::Spread => (part(), part()),
            Shape::Clustered => (part() / 8, part() / 8),
        };
        Input::Move { character, sequence: self.sequence, velocity, facing: 0 }
    }
}

fn spawn_position(map: &Map, shape: Shape, random: &mut Random) -> Position {
    let mut along = |from: i32, span: i32| from + random.within(0, span.unsigned_abs() - 1) as i32;
    let at = match shape {
        Shape::Spread => (along(0, map.width_mm()), along(0, map.height_mm())),
        Shape::Clustered => (along(map.start.x_mm - 8_000, 16_000), along(map.start.y_mm + 4_000, 16_000)),
    };
    map.nearest_walkable(Point::flat(at.0, at.1)).in_space(SPACE, Layer(0))
}

fn avatar(character: CharacterId, position: Position) -> EnteringAvatar {
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
