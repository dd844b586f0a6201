//! One decision of one creature: evaluates its tree against what it perceives and remembers.

use crate::{
    action,
    decision::{DecisionContext, Intent, Perception},
    grid::WalkGrid,
    memory::Memory,
    path::Pathfinder,
    profile::CreatureProfile,
    tree::{Behaviour, Node},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    pub behaviour: Behaviour,
    pub intent: Intent,
}

/// Decides for the next interval.
pub fn think(
    perception: &Perception,
    memory: &mut Memory,
    elapsed_ms: u32,
    grid: &WalkGrid,
    finder: &mut Pathfinder,
) -> Choice {
    let profile = CreatureProfile::of(perception.template);
    memory.advance_time(perception.at, elapsed_ms);
    let mut context = DecisionContext { perception, profile, memory, grid, finder };
    context.update_returning();
    let (behaviour, intent) = evaluate(profile.tree, &mut context).unwrap_or((Behaviour::Rest, Intent::Idle));
    Choice { behaviour, intent }
}

/// The first behaviour of the tree that has something to do.
fn evaluate(node: &Node, context: &mut DecisionContext<'_>) -> Option<(Behaviour, Intent)> {
    match node {
        Node::First(children) => children.iter().find_map(|child| evaluate(child, context)),
        Node::When(condition, child) => context.holds(*condition).then(|| evaluate(child, context)).flatten(),
        Node::Do(behaviour) => action::act(*behaviour, context).map(|intent| (*behaviour, intent)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shardkeep_types::{CharacterId, EntityId};

    use super::*;
    use crate::grid::tests::metres;
    use crate::{decision::Neighbour, grid::Point};

    const RABBIT: u32 = 1;
    const BOAR: u32 = 2;
    const WOLF: u32 = 3;

    /// A field of 200 × 200 m with a wall of 10 m in the middle.
    fn field() -> WalkGrid {
        let mut blocked = vec![0u8; 200 * 200 / 8];
        for y in 95..105 {
            let bit = y * 200 + 100;
            blocked[bit / 8] |= 1 << (bit % 8);
        }
        WalkGrid::new(1000, 200, 200, blocked).unwrap()
    }

    fn avatar(number: u64, at: Point) -> Neighbour {
        Neighbour { entity: EntityId::avatar(CharacterId(number)), at }
    }

    fn creature(template: u32, at: Point) -> Perception {
        Perception { template, at, home: at, health: 1000, attacker: None, near: vec![] }
    }

    /// Lives for `steps` quarters of a second, moving as intended; returns what it did.
    fn live(perception: &mut Perception, memory: &mut Memory, steps: u32) -> Vec<Behaviour> {
        let (grid, mut finder) = (field(), Pathfinder::default());
        let mut done = Vec::new();
        for _ in 0..steps {
            let choice = think(perception, memory, 250, &grid, &mut finder);
            done.push(choice.behaviour);
            if let Intent::Move(to, speed) = choice.intent {
                assert!(grid.line_is_open(perception.at, to), "{:?} walks into a wall", choice.behaviour);
                perception.at = stepped(perception.at, to, speed / 4);
            }
        }
        done
    }

    fn stepped(from: Point, to: Point, step: u32) -> Point {
        let length = (from.distance_squared(to) as f64).sqrt();
        let part = (f64::from(step) / length.max(1.0)).min(1.0);
        let along = |a: i32, b: i32| a + (f64::from(b - a) * part) as i32;
        Point::new(along(from.x, to.x), along(from.y, to.y))
    }

    #[test]
    fn undisturbed_creature_wanders_and_rests_near_home() {
        let mut perception = creature(BOAR, metres(50.0, 50.0));
        let done = live(&mut perception, &mut Memory::new(3), 2_000);
        let rests = done.iter().filter(|behaviour| **behaviour == Behaviour::Rest).count();
        assert!((200..1_800).contains(&rests), "rested for {rests} of 2000 intervals");
        assert!(!done.contains(&Behaviour::Return));
        assert!(perception.at.within(perception.home, 13_000));
    }

    #[test]
    fn same_seed_gives_same_behaviour() {
        let lives = [9, 9, 10].map(|seed| {
            let mut perception = creature(WOLF, metres(50.0, 50.0));
            (live(&mut perception, &mut Memory::new(seed), 500), perception.at)
        });
        assert_eq!(lives[0], lives[1]);
        assert_ne!(lives[0], lives[2]);
    }

    #[test]
    fn wolf_chases_intruder_around_wall_and_strikes() {
        let mut perception = creature(WOLF, metres(96.0, 100.0));
        perception.near.push(avatar(1, metres(104.0, 100.0)));
        let done = live(&mut perception, &mut Memory::new(1), 60);
        assert_eq!(done[0], Behaviour::Chase);
        assert_eq!(done.last(), Some(&Behaviour::Strike));
    }

    #[test]
    fn boar_attacks_only_its_attacker_and_flees_when_hurt() {
        let mut perception = creature(BOAR, metres(50.0, 50.0));
        perception.near.push(avatar(1, metres(51.0, 50.0)));
        assert!(!live(&mut perception, &mut Memory::new(1), 50).contains(&Behaviour::Strike));
        perception.attacker = Some(EntityId::avatar(CharacterId(1)));
        perception.near[0].at = stepped(perception.at, metres(60.0, 60.0), 1_000);
        assert_eq!(live(&mut perception, &mut Memory::new(1), 1), [Behaviour::Strike]);
        perception.health = 100;
        assert_eq!(live(&mut perception, &mut Memory::new(1), 1), [Behaviour::Flee]);
    }

    #[test]
    fn rabbit_flees_and_returns_home() {
        let mut perception = creature(RABBIT, metres(60.0, 60.0));
        perception.near.push(avatar(1, metres(57.0, 60.0)));
        let mut memory = Memory::new(5);
        let before = perception.at;
        assert_eq!(live(&mut perception, &mut memory, 4), [Behaviour::Flee; 4]);
        assert!(!perception.at.within(before, 2_000));
        perception.near.clear();
        perception.at = metres(60.0, 110.0);
        let done = live(&mut perception, &mut memory, 60);
        assert_eq!(done[0], Behaviour::Return);
        assert_eq!(done.last().map(|last| *last == Behaviour::Return), Some(false), "home at last");
    }

    #[test]
    fn chase_ends_at_leash_and_is_not_restarted() {
        let mut perception = creature(WOLF, metres(50.0, 50.0));
        let intruder = EntityId::avatar(CharacterId(1));
        perception.attacker = Some(intruder);
        perception.at = metres(94.0, 50.0);
        perception.near.push(avatar(1, metres(96.0, 50.0)));
        let done = live(&mut perception, &mut Memory::new(1), 20);
        assert!(!done.contains(&Behaviour::Chase), "the bait stands beyond the leash: {done:?}");
        perception.at = metres(96.0, 50.0);
        let mut memory = Memory::new(1);
        assert_eq!(live(&mut perception, &mut memory, 1), [Behaviour::Return]);
        perception.near[0].at = perception.at;
        assert_eq!(
            live(&mut perception, &mut memory, 1),
            [Behaviour::Return],
            "it does not turn around on the way"
        );
    }

    #[test]
    fn stuck_creature_replans_its_path() {
        let (grid, mut finder) = (field(), Pathfinder::default());
        let mut perception = creature(WOLF, metres(90.0, 100.0));
        perception.near.push(avatar(1, metres(102.0, 100.0)));
        let mut memory = Memory::new(2);
        for _ in 0..20 {
            think(&perception, &mut memory, 250, &grid, &mut finder);
        }
        assert!((2..=5).contains(&finder.searches()), "{} paths in five seconds", finder.searches());
    }

    proptest! {
        #[test]
        fn any_perception_gives_an_intent_on_open_ground(
            template in 0u32..5,
            at in (any::<i32>(), any::<i32>()),
            home in (0i32..200_000, 0i32..200_000),
            other in (any::<i32>(), any::<i32>()),
            health in any::<u32>(),
            elapsed in any::<u32>(),
            seed in any::<u64>(),
        ) {
            let intruder = avatar(1, Point::new(other.0, other.1));
            let perception = Perception {
                template,
                at: Point::new(at.0, at.1),
                home: Point::new(home.0, home.1),
                health,
                attacker: Some(intruder.entity),
                near: vec![intruder],
            };
            let (grid, mut finder, mut memory) = (field(), Pathfinder::default(), Memory::new(seed));
            for _ in 0..3 {
                let choice = think(&perception, &mut memory, elapsed, &grid, &mut finder);
                if let Intent::Move(to, _) = choice.intent {
                    prop_assert!(grid.is_open_at(to));
                }
            }
        }
    }
}
