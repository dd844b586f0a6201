//! The rules of the game in numbers: everything a designer would turn. Distances in mm, times in ms.

/// Simulated time of one step.
pub const TICK_MS: u64 = 50;
/// Steps per second.
pub const TICK_HZ: u64 = 1_000 / TICK_MS;
/// Parts of a millimetre in which positions are kept: a velocity of 1 mm/s is one part a tick, so that no walk is
/// rounded and a client that extrapolates stays exact.
pub(crate) const PARTS_PER_MM: i32 = TICK_HZ as i32;
/// Most an overdue tick moves anything, in steps.
pub(crate) const MAX_STEPS: u64 = 4;

pub const AVATAR_SPEED: i32 = 6_000;
pub const AVATAR_HEALTH: u32 = 100;
/// Health an avatar gains each second while nobody has hurt it for a while.
pub(crate) const AVATAR_REGENERATION: u32 = 2;
pub(crate) const REGENERATION_PAUSE_MS: u64 = 5_000;
/// How long a dead avatar lies before it rises at the start.
pub(crate) const AVATAR_RESPAWN_MS: u64 = 3_000;
pub(crate) const CREATURE_RESPAWN_MS: u64 = 20_000;

/// How far an avatar strikes, and reaches for items.
pub const REACH: i32 = 2_500;
pub const ATTACK_COOLDOWN_MS: u64 = 600;
pub(crate) const ATTACK_DAMAGE: (u32, u32) = (8, 15);
/// Most damage that a neighbour's word can do to a creature here.
pub(crate) const MAX_EFFECT_DAMAGE: u32 = 50;
/// A ghost's place is a little old, so effects across a border are judged more loosely.
pub(crate) const GHOST_REACH: i32 = 5_000;
pub(crate) const EFFECT_REPEAT_MS: u64 = 500;
pub(crate) const EFFECT_GIVE_UP_MS: u64 = 3_000;
/// How long effects are remembered so that a repeat is not applied.
pub(crate) const EFFECT_MEMORY_MS: u64 = 10_000;
/// A ghost that its zone no longer mentions.
pub(crate) const GHOST_LIFETIME_MS: u64 = 3_000;

/// Most hard actions of one avatar on their way to the database; more are refused.
pub const MAX_PENDING_ACTIONS: usize = 8;
/// Near a border a player may see an item before this zone has heard of it; so long, and for so many, it waits for
/// word.
pub(crate) const PICKUP_WAIT_MS: u64 = 500;
pub(crate) const MAX_PENDING_PICKUPS: usize = 256;
/// Most repeats of one request that wait for its outcome together.
pub(crate) const MAX_REPEATS: usize = 16;

pub const TRADE_DISTANCE: i32 = 5_000;
/// Most items in one side of a trade.
pub const MAX_TRADE_ITEMS: usize = 16;

/// An avatar this long outside its zone's sectors is handed over; so a step over the border and back is free.
pub(crate) const HANDOVER_DELAY_MS: u64 = 300;
/// An intent of the AI that is not renewed.
pub(crate) const INTENT_LIFETIME_MS: u64 = 3_000;
/// How far a creature perceives, and how many it tells apart.
pub const PERCEPTION_RANGE: i32 = 20_000;
pub const MAX_PERCEIVED: usize = 8;

/// The most entries in one cell message; the rest of a crowd waits for later ticks.
pub const PACKET_ENTRIES: usize = 80;
/// A keyframe holds more, but must fit a record of the client protocol (64 KiB) with names of full length.
pub const KEYFRAME_ENTRIES: usize = 1_000;
/// Each watched cell gets a keyframe this often.
pub(crate) const KEYFRAME_TICKS: u64 = 2 * TICK_HZ;
/// The outer ring runs at this fraction of the rate.
pub(crate) const OUTER_TICKS: u64 = 4;
/// The player's own avatar is told at least this often.
pub(crate) const OWN_STATE_TICKS: u64 = TICK_HZ;
