//! The rules of the game in numbers, for game designers. Distances in mm, times in ms.

/// Simulated time of one step.
pub const TICK_MS: u64 = 50;
/// Steps per second.
pub const TICK_HZ: u64 = 1_000 / TICK_MS;
/// Parts of a millimetre in which positions are stored. A velocity of 1 mm/s is one part per tick, so that no
/// movement is rounded, and a client that extrapolates stays exact.
pub(crate) const PARTS_PER_MM: i32 = TICK_HZ as i32;
/// A late tick moves entities by at most this many steps.
pub(crate) const MAX_STEPS: u64 = 4;

pub const AVATAR_SPEED: i32 = 6_000;
pub const AVATAR_HEALTH: u32 = 100;
/// Health that an avatar gains each second after a pause without damage.
pub(crate) const AVATAR_REGENERATION: u32 = 2;
pub(crate) const REGENERATION_PAUSE_MS: u64 = 5_000;
/// How long an avatar stays dead before it respawns at the start.
pub(crate) const AVATAR_RESPAWN_MS: u64 = 3_000;
pub(crate) const CREATURE_RESPAWN_MS: u64 = 20_000;

/// The reach of an avatar for attacks and items.
pub const REACH: i32 = 2_500;
pub const ATTACK_COOLDOWN_MS: u64 = 600;
pub(crate) const ATTACK_DAMAGE: (u32, u32) = (8, 15);
/// The most damage that an effect of a neighbour does.
pub(crate) const MAX_EFFECT_DAMAGE: u32 = 50;
/// The reach for effects across a border. It is longer, because the position of a ghost is slightly old.
pub(crate) const GHOST_REACH: i32 = 5_000;
pub(crate) const EFFECT_REPEAT_MS: u64 = 500;
pub(crate) const EFFECT_GIVE_UP_MS: u64 = 3_000;
/// How long the results of effects are stored, so that a repeat is not applied.
pub(crate) const EFFECT_MEMORY_MS: u64 = 10_000;
/// How long a ghost stays that its zone no longer mentions.
pub(crate) const GHOST_LIFETIME_MS: u64 = 3_000;

/// Action ids further above the last one are refused, as by the database.
pub const MAX_ACTION_GAP: u64 = 65_536;
/// The most stacks that a character holds, as in the database.
pub const MAX_STACKS: usize = 10_000;
/// The most pending hard actions of one avatar. More are refused.
pub const MAX_PENDING_ACTIONS: usize = 8;
/// Near a border, a player may see an item that this zone does not know yet. The pick-up waits this long for the
/// neighbour's message; the next constant bounds how many wait.
pub(crate) const PICKUP_WAIT_MS: u64 = 500;
pub(crate) const MAX_PENDING_PICKUPS: usize = 256;
/// The most repeats of one request that wait for the same outcome.
pub(crate) const MAX_REPEATS: usize = 16;

pub const TRADE_DISTANCE: i32 = 5_000;
/// The most items in one side of a trade.
pub const MAX_TRADE_ITEMS: usize = 16;

/// An avatar is handed over at this distance from the sectors of its zone, so that a short step over the border costs
/// nothing. It is also handed over when it stays nearer than that for the delay, because the other zone owns the ground
/// there.
pub const HANDOVER_MARGIN_MM: i32 = 6_000;
pub(crate) const HANDOVER_DELAY_MS: u64 = 1_000;
/// How long an intent of the AI lasts without renewal.
pub(crate) const INTENT_LIFETIME_MS: u64 = 3_000;
/// How far a creature perceives, and how many avatars at most.
pub const PERCEPTION_RANGE: i32 = 20_000;
pub const MAX_PERCEIVED: usize = 8;

/// The most entries in one cell message. The rest of a crowd waits for later ticks.
pub const PACKET_ENTRIES: usize = 80;
/// The most entries in a keyframe. It must fit into a record of the client protocol (64 KiB) with names of full
/// length.
pub const KEYFRAME_ENTRIES: usize = 1_000;
/// Ticks between two keyframes of a watched cell.
pub(crate) const KEYFRAME_TICKS: u64 = 2 * TICK_HZ;
/// Ticks between two messages of the outer ring.
pub(crate) const OUTER_TICKS: u64 = 4;
/// Ticks between two messages about the player's avatar, even if it is unchanged.
pub(crate) const OWN_STATE_TICKS: u64 = TICK_HZ;
