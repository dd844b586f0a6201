//! The inputs of a simulation: requests of players, results from the database, messages of neighbours and of the AI.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};
use shardkeep_types::{CellId, CellRect, CharacterId, EntityId, Epoch, ItemId, Point, Position, SpawnId};

use crate::{ring::Ring, template::Stack};

/// One stack of items, in an inventory or on the ground.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    pub id: ItemId,
    pub template: u32,
    pub count: u32,
}

/// Hard state of a character. Only the database changes it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Possessions {
    pub items: Vec<Item>,
    pub coins: i64,
    pub experience: u64,
    /// The highest action id with a stored result.
    pub last_action: u64,
}

/// An avatar that enters a zone, from the database or from a neighbour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnteringAvatar {
    pub character: CharacterId,
    pub name: Arc<str>,
    /// The ownership epoch. It fences commits.
    pub epoch: Epoch,
    pub position: Position,
    pub velocity: (i32, i32),
    pub facing: u8,
    /// 0: the avatar is dead and will respawn at the start.
    pub health: u32,
    pub last_input: u32,
    pub cooldown_ms: u64,
    pub possessions: Possessions,
}

/// A request and the character that waits for its reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Requester {
    pub character: CharacterId,
    pub request: u64,
}

/// Identifies an action that moves property, so that a repeat is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionKey {
    pub id: u64,
    pub digest: [u8; 16],
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Act {
    Attack { target: EntityId },
    PickUp { action: ActionKey, entity: EntityId },
    Drop { action: ActionKey, item: ItemId },
    Invite { entity: EntityId },
    Answer { trade: u64, accept: bool },
    Offer { trade: u64, items: Vec<ItemId>, coins: i64 },
    Confirm { action: ActionKey, trade: u64, revision: u32 },
    Cancel { trade: u64 },
}

/// The outcome of a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    Done {
        /// False for a repeat, which got the stored result.
        applied: bool,
        minted: Vec<ItemId>,
        possessions: Vec<(CharacterId, Possessions)>,
    },
    /// The database refused it: a holder or a balance is not as the action assumes.
    Refused,
    /// The action id belongs to another request, or is too old.
    Conflict,
    /// The commit was not tried, and nothing has changed.
    Unavailable,
}

/// An entity of a neighbour near the border. Avatars can also pick up a neighbour's items.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GhostState {
    pub entity: EntityId,
    pub template: u16,
    pub name: Arc<str>,
    pub position: Position,
    pub velocity: (i32, i32),
    pub health: u32,
    pub max_health: u32,
}

/// An attack of an actor on a target in another zone. Idempotent by (actor, number).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effect {
    pub actor: EntityId,
    /// Ownership epoch of an avatar, so that it can be rewarded.
    pub actor_epoch: Epoch,
    pub number: u64,
    pub target: EntityId,
    pub damage: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EffectResult {
    pub actor: EntityId,
    pub number: u64,
    pub applied: bool,
    pub damage: u32,
    pub killed: bool,
}

/// A spawn and its creature, as one zone hands them over to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpawnState {
    /// The number of the spawn on its map.
    pub number: u32,
    /// The epoch of the home's cell while the zone simulated it. Of two states, the one with the higher epoch counts.
    pub epoch: Epoch,
    pub generation: u64,
    /// When the next creature appears, while the creature is dead.
    pub respawns_in_ms: Option<u64>,
    pub creature: Option<CreatureState>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreatureState {
    pub position: Point,
    pub velocity: (i32, i32),
    pub facing: u8,
    pub health: u32,
    pub cooldown_ms: u64,
    /// The last entity that hurt it.
    pub attacker: Option<EntityId>,
    pub goal: Goal,
    pub goal_ms: u64,
}

/// The goal of the AI for a creature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    pub creature: EntityId,
    pub goal: Goal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Goal {
    Idle,
    Move { x_mm: i32, y_mm: i32, speed: i32 },
    Attack { target: EntityId },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Input {
    /// All cells that this zone owns from now on. A creature belongs to the zone that owns its home, wherever it walks.
    Sectors(Vec<CellRect>),
    /// The items on the ground of these cells.
    Ground {
        cells: CellRect,
        items: Vec<(Item, Position)>,
    },
    /// Spawns with their home in these cells come alive, unless another zone has handed them over. `generations` has the
    /// last generation of each spawn that has minted loot.
    Populate {
        cells: CellRect,
        generations: BTreeMap<u32, u64>,
    },
    /// The zone that owned the homes before hands its spawns over. A spawn that lives
    /// here already is ignored, unless the state is of a later epoch than the one with which it came.
    Spawns(Vec<SpawnState>),
    /// The cell has its first watcher, or has lost its last one. A watch begins with a keyframe.
    Watch {
        cell: CellId,
        ring: Ring,
        on: bool,
    },
    Keyframe {
        cell: CellId,
        ring: Ring,
    },
    Enter(Box<EnteringAvatar>),
    Leave {
        character: CharacterId,
    },
    /// The avatar moves on and can be hurt, but begins nothing, until it thaws or leaves.
    Suspend {
        character: CharacterId,
    },
    /// The avatar does not change until it thaws or leaves.
    Freeze {
        character: CharacterId,
    },
    Thaw {
        character: CharacterId,
    },
    /// The player is link-dead: the avatar stops.
    Stop {
        character: CharacterId,
    },
    Teleport {
        character: CharacterId,
        to: Position,
    },
    Move {
        character: CharacterId,
        sequence: u32,
        velocity: (i32, i32),
        facing: u8,
    },
    Act {
        requester: Requester,
        act: Act,
    },
    Committed {
        number: u64,
        outcome: Outcome,
    },
    /// The possessions from the database, after another zone has changed them.
    Possessions {
        character: CharacterId,
        possessions: Possessions,
    },
    Ghost(GhostState),
    GhostGone(EntityId),
    /// A neighbour's avatar has picked up this item from the ground of this zone.
    ItemTaken(EntityId),
    Effect(Effect),
    EffectResult(EffectResult),
    Intents(Vec<Intent>),
}

/// A change for the database to commit; see [`crate::Event::Commit`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum HardChange {
    PickUp {
        player: CharacterId,
        action: ActionKey,
        item: ItemId,
        from: CellId,
    },
    Drop {
        player: CharacterId,
        action: ActionKey,
        item: Item,
        at: Position,
    },
    Trade {
        sides: [TradeContribution; 2],
    },
    /// Minted once for each (spawn, generation).
    Loot {
        spawn: SpawnId,
        generation: u64,
        at: Position,
        stacks: Vec<Stack>,
        reward: Option<Reward>,
    },
    /// Asks for the stored result of an earlier action and changes nothing.
    Recall {
        player: CharacterId,
        action: ActionKey,
    },
}

impl HardChange {
    /// The characters whose possessions it changes.
    pub fn characters(&self) -> impl Iterator<Item = CharacterId> {
        let (one, two) = match self {
            Self::PickUp { player, .. } | Self::Drop { player, .. } | Self::Recall { player, .. } => {
                (Some(*player), None)
            }
            Self::Trade { sides: [a, b] } => (Some(a.player), Some(b.player)),
            Self::Loot { reward, .. } => (reward.as_ref().map(|reward| reward.player), None),
        };
        one.into_iter().chain(two)
    }

    /// The items that it moves.
    pub(crate) fn items(&self) -> impl Iterator<Item = ItemId> {
        let (one, sides) = match self {
            Self::PickUp { item, .. } => (Some(*item), None),
            Self::Drop { item, .. } => (Some(item.id), None),
            Self::Trade { sides } => (None, Some(sides)),
            Self::Loot { .. } | Self::Recall { .. } => (None, None),
        };
        one.into_iter().chain(sides.into_iter().flatten().flat_map(|side| side.items.iter().copied()))
    }

    /// The action of a single character behind it.
    pub(crate) fn action(&self) -> Option<(CharacterId, ActionKey)> {
        match self {
            Self::PickUp { player, action, .. }
            | Self::Drop { player, action, .. }
            | Self::Recall { player, action } => Some((*player, *action)),
            Self::Trade { .. } | Self::Loot { .. } => None,
        }
    }

    /// The name in the ledger, in metrics and in logs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::PickUp { .. } => "pickup",
            Self::Drop { .. } => "drop",
            Self::Trade { .. } => "trade",
            Self::Loot { .. } => "loot",
            Self::Recall { .. } => "recall",
        }
    }
}

/// The offer of one side of a trade.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TradeContribution {
    pub player: CharacterId,
    pub action: ActionKey,
    pub items: Vec<ItemId>,
    pub coins: i64,
}

/// The reward of the player that killed a creature, besides the loot on the ground.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reward {
    pub player: CharacterId,
    /// The player's ownership epoch at the attack. A player with another epoch gets no reward.
    pub epoch: Epoch,
    pub experience: u64,
    pub coins: i64,
}
