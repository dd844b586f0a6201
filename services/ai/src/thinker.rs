//! The creatures of one stream: their grid, their memories, and the decisions for a batch.

use std::collections::HashMap;

use shardkeep_behavior::{
    Behaviour, Choice, Intent, Memory, Neighbour, Pathfinder, Perception, Point, WalkGrid, think,
};
use shardkeep_rpc::ai;
use shardkeep_types::EntityId;

use crate::{AiError, Config};

/// A creature without perceptions for this long is forgotten.
const FORGET_AFTER_MS: u64 = 60_000;
/// The longest time that one batch counts. After a stall, creatures do not catch up.
const LONGEST_INTERVAL_MS: u32 = 2_000;

pub struct Thinker {
    grid: Option<WalkGrid>,
    finder: Pathfinder,
    memories: HashMap<u64, KnownCreature>,
    /// The sum of the intervals of all batches, in milliseconds.
    age_ms: u64,
    swept_at_ms: u64,
    max_creatures: usize,
}

struct KnownCreature {
    memory: Memory,
    seen_at_ms: u64,
}

/// The answer to one batch, and its cost.
pub struct Decisions {
    pub intents: ai::Intents,
    pub paths: u32,
    pub chosen: [(Behaviour, u64); Behaviour::ALL.len()],
}

impl Thinker {
    pub fn new(config: &Config) -> Self {
        Self {
            grid: None,
            finder: Pathfinder::new(config.paths_per_batch),
            memories: HashMap::new(),
            age_ms: 0,
            swept_at_ms: 0,
            max_creatures: config.max_creatures,
        }
    }

    /// Decides for every creature of the batch.
    ///
    /// # Errors
    /// When there is no usable grid, or the batch has more creatures than the limit.
    pub fn think(&mut self, batch: ai::Perceptions) -> Result<Decisions, AiError> {
        if let Some(grid) = batch.grid {
            self.grid = Some(WalkGrid::new(grid.square_mm, grid.width, grid.height, grid.blocked)?);
        }
        let grid = self.grid.as_ref().ok_or(AiError::NoGrid)?;
        if batch.creatures.len() > self.max_creatures {
            return Err(AiError::TooMany { got: batch.creatures.len(), limit: self.max_creatures });
        }
        let elapsed = batch.elapsed_ms.min(LONGEST_INTERVAL_MS);
        self.age_ms += u64::from(elapsed);
        self.finder.reset_searches();
        let mut chosen = Behaviour::ALL.map(|behaviour| (behaviour, 0));
        let mut intents = Vec::with_capacity(batch.creatures.len());
        for perception in batch.creatures {
            let creature = perception.creature;
            let known = self.memories.entry(creature).or_insert_with(|| KnownCreature {
                memory: Memory::new(creature ^ batch.tick.rotate_left(32)),
                seen_at_ms: 0,
            });
            known.seen_at_ms = self.age_ms;
            let choice =
                think(&to_perception(perception), &mut known.memory, elapsed, grid, &mut self.finder);
            if let Some(count) = chosen.iter_mut().find(|(behaviour, _)| *behaviour == choice.behaviour) {
                count.1 += 1;
            }
            intents.push(intent(creature, choice));
        }
        self.forget();
        let paths = self.finder.searches();
        Ok(Decisions { intents: ai::Intents { tick: batch.tick, intents }, paths, chosen })
    }

    /// Forgets creatures from time to time, and at once when there are too many.
    fn forget(&mut self) {
        let over_limit = self.memories.len() > self.max_creatures;
        if !over_limit && self.age_ms - self.swept_at_ms < FORGET_AFTER_MS / 4 {
            return;
        }
        self.swept_at_ms = self.age_ms;
        // Over the limit, only the creatures of this batch stay. They are within the limit.
        let max_age_ms = if over_limit { 0 } else { FORGET_AFTER_MS };
        let now = self.age_ms;
        self.memories.retain(|_, known| now - known.seen_at_ms <= max_age_ms);
    }
}

fn to_perception(perception: ai::Perception) -> Perception {
    let near = perception.near.into_iter();
    Perception {
        template: perception.template,
        at: Point::new(perception.x_mm, perception.y_mm),
        home: Point::new(perception.home_x_mm, perception.home_y_mm),
        health: perception.health_permille,
        attacker: (perception.attacker != 0).then_some(EntityId(perception.attacker)),
        near: near
            .map(|it| Neighbour { entity: EntityId(it.entity), at: Point::new(it.x_mm, it.y_mm) })
            .collect(),
    }
}

fn intent(creature: u64, choice: Choice) -> ai::Intent {
    use ai::intent::Action;
    let mut intent =
        ai::Intent { creature, behaviour: choice.behaviour.as_str().into(), ..Default::default() };
    match choice.intent {
        Intent::Idle => intent.set_action(Action::Idle),
        Intent::Move(to, speed_mm_s) => {
            intent.set_action(Action::Move);
            (intent.x_mm, intent.y_mm, intent.speed_mm_s) = (to.x, to.y, speed_mm_s);
        }
        Intent::Attack(target) => {
            intent.set_action(Action::Attack);
            intent.target = target.0;
        }
    }
    intent
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid() -> Option<ai::WalkGrid> {
        Some(ai::WalkGrid { square_mm: 1000, width: 64, height: 64, blocked: vec![0; 512] })
    }

    fn batch(tick: u64, grid: Option<ai::WalkGrid>, creatures: std::ops::Range<u64>) -> ai::Perceptions {
        let creature = |creature| ai::Perception {
            creature,
            template: 3,
            x_mm: 32_000,
            y_mm: 32_000,
            home_x_mm: 32_000,
            home_y_mm: 32_000,
            health_permille: 1000,
            ..Default::default()
        };
        let creatures = creatures.map(creature).collect();
        ai::Perceptions { zone: "zone-1".into(), tick, elapsed_ms: 2_000, creatures, grid }
    }

    fn thinker(max_creatures: usize) -> Thinker {
        Thinker::new(&Config { max_creatures, ..Config::default() })
    }

    #[test]
    fn batch_gives_one_intent_per_creature() {
        let decisions = thinker(10).think(batch(7, grid(), 0..5)).unwrap();
        assert_eq!(decisions.intents.tick, 7);
        let creatures: Vec<u64> = decisions.intents.intents.iter().map(|intent| intent.creature).collect();
        assert_eq!(creatures, [0, 1, 2, 3, 4]);
        assert_eq!(decisions.chosen.iter().map(|(_, count)| count).sum::<u64>(), 5);
    }

    #[test]
    fn batch_without_grid_or_too_large_is_refused() {
        assert!(matches!(thinker(10).think(batch(1, None, 0..1)), Err(AiError::NoGrid)));
        assert!(matches!(
            thinker(4).think(batch(1, grid(), 0..5)),
            Err(AiError::TooMany { got: 5, limit: 4 })
        ));
    }

    #[test]
    fn creature_memories_are_bounded_and_expire() {
        let mut thinker = thinker(4);
        thinker.think(batch(1, grid(), 0..4)).unwrap();
        thinker.think(batch(2, None, 4..8)).unwrap();
        assert!(thinker.memories.len() <= 4);
        for tick in 0..40 {
            thinker.think(batch(tick, None, 4..5)).unwrap();
        }
        assert_eq!(thinker.memories.len(), 1);
    }
}
