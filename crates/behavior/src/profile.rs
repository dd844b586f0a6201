//! The kinds of creatures: their trees, and the numbers that the trees use.

use crate::tree::{self, Node};

/// Distances in millimetres, speeds in millimetres per second, times in milliseconds.
#[derive(Debug)]
pub struct CreatureProfile {
    pub tree: &'static Node,
    /// Attacks avatars within this distance. 0: attacks only an avatar that hurt it.
    pub attack_distance: i32,
    /// Flees from avatars within this distance, and from its attacker when its health is low.
    pub flee_distance: i32,
    /// Health below this value, in thousandths, is low.
    pub flee_health: u32,
    /// Returns home from beyond this distance.
    pub leash: i32,
    /// Attacks from this distance.
    pub reach: i32,
    pub wander_distance: i32,
    pub walk_speed: u32,
    pub run_speed: u32,
    pub rest: (i32, i32),
}

const RABBIT: CreatureProfile = CreatureProfile {
    tree: &tree::PREY,
    attack_distance: 0,
    flee_distance: 8_000,
    flee_health: 1000,
    leash: 40_000,
    reach: 0,
    wander_distance: 10_000,
    walk_speed: 1_500,
    run_speed: 5_500,
    rest: (1_000, 5_000),
};

const BOAR: CreatureProfile = CreatureProfile {
    tree: &tree::DEFENSIVE,
    attack_distance: 0,
    flee_distance: 0,
    flee_health: 200,
    leash: 30_000,
    reach: 1_500,
    wander_distance: 8_000,
    walk_speed: 1_200,
    run_speed: 4_000,
    rest: (2_000, 8_000),
};

const WOLF: CreatureProfile = CreatureProfile {
    tree: &tree::AGGRESSIVE,
    attack_distance: 14_000,
    flee_distance: 0,
    flee_health: 0,
    leash: 45_000,
    reach: 1_500,
    wander_distance: 16_000,
    walk_speed: 1_800,
    run_speed: 5_000,
    rest: (1_500, 6_000),
};

impl CreatureProfile {
    /// The profile of a creature template: 1 rabbit, 2 boar, 3 wolf. Unknown templates behave like a boar.
    pub fn of(template: u32) -> &'static CreatureProfile {
        match template {
            1 => &RABBIT,
            3 => &WOLF,
            _ => &BOAR,
        }
    }
}
