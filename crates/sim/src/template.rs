//! Kinds of creatures and items. The numbers are part of the client protocol.

use serde::{Deserialize, Serialize};

use crate::Random;

/// Kinds of items.
pub mod item {
    pub const APPLE: u32 = 1;
    pub const HIDE: u32 = 2;
    pub const FANG: u32 = 3;
    pub const SWORD: u32 = 4;
    pub const SHIELD: u32 = 5;
    pub const LANTERN: u32 = 6;

    /// The name of a kind of items, for logs. `None` for a kind that this version does not know.
    pub fn name(template: u32) -> Option<&'static str> {
        Some(match template {
            APPLE => "apple",
            HIDE => "hide",
            FANG => "fang",
            SWORD => "sword",
            SHIELD => "shield",
            LANTERN => "lantern",
            _ => return None,
        })
    }
}

/// Some items of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stack {
    pub template: u32,
    pub count: u32,
}

/// A kind of creature.
#[derive(Debug)]
pub struct CreatureTemplate {
    pub number: u16,
    pub name: &'static str,
    pub health: u32,
    /// Its highest speed in mm/s.
    pub speed: i32,
    pub reach: i32,
    pub damage: (u32, u32),
    pub cooldown_ms: u64,
    pub experience: u64,
    pub coins: (u32, u32),
    /// The loot of every creature of this kind.
    common: Stack,
    /// Additional loot of one in ten.
    rare: Stack,
}

pub const RABBIT: u16 = 1;
pub const BOAR: u16 = 2;
pub const WOLF: u16 = 3;

static CREATURES: [CreatureTemplate; 3] = [
    CreatureTemplate {
        number: RABBIT,
        name: "rabbit",
        health: 20,
        speed: 5_000,
        reach: 1_000,
        damage: (1, 2),
        cooldown_ms: 2_000,
        experience: 5,
        coins: (0, 2),
        common: Stack { template: item::HIDE, count: 1 },
        rare: Stack { template: item::APPLE, count: 3 },
    },
    CreatureTemplate {
        number: BOAR,
        name: "boar",
        health: 60,
        speed: 4_500,
        reach: 2_000,
        damage: (3, 6),
        cooldown_ms: 1_500,
        experience: 15,
        coins: (1, 5),
        common: Stack { template: item::HIDE, count: 2 },
        rare: Stack { template: item::SHIELD, count: 1 },
    },
    CreatureTemplate {
        number: WOLF,
        name: "wolf",
        health: 80,
        speed: 5_500,
        reach: 2_000,
        damage: (4, 9),
        cooldown_ms: 1_200,
        experience: 25,
        coins: (2, 8),
        common: Stack { template: item::FANG, count: 1 },
        rare: Stack { template: item::SWORD, count: 1 },
    },
];

impl CreatureTemplate {
    pub fn get(number: u16) -> Option<&'static Self> {
        CREATURES.iter().find(|template| template.number == number)
    }

    pub(crate) fn rabbit() -> &'static Self {
        &CREATURES[0]
    }

    /// The loot of one dead creature.
    pub(crate) fn loot(&self, random: &mut Random) -> Vec<Stack> {
        let mut stacks = vec![self.common];
        if random.within(1, 10) == 1 {
            stacks.push(self.rare);
        }
        stacks
    }
}
