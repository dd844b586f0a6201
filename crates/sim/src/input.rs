//! What comes into a tick: wishes of players, results of the database, words of neighbours and of the AI.

use std::{collections::BTreeMap, sync::Arc};

use shardkeep_types::{CellId, CellRect, CharacterId, EntityId, Epoch, ItemId, Position};

use crate::{event::Ring, template::Stack};

/// One stack of items in somebody's possession or on the ground.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item {
    pub id: ItemId,
    pub template: u32,
    pub count: u32,
}

/// Hard state of a character. The simulation never changes it; it is told by the database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Possessions {
    pub items: Vec<Item>,
    pub coins: i64,
    pub experience: u64,
    /// Highest action id the database has a result for.
    pub last_action: u64,
}

/// An avatar as it comes into a zone, from the database or from a neighbour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnteringAvatar {
    pub character: CharacterId,
    pub name: Arc<str>,
    /// Of the ownership, by which commits are fenced.
    pub epoch: Epoch,
    pub position: Position,
    pub velocity: (i32, i32),
    pub facing: u8,
    /// 0: it died; it stands up at the start.
    pub health: u32,
    pub last_input: u32,
    pub cooldown_ms: u64,
    pub possessions: Possessions,
}

/// Who waits for the reply to which request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Requester {
    pub character: CharacterId,
    pub request: u64,
}

/// Name of an action that moves property, so that a repeat is answered and not applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActionKey {
    pub id: u64,
    pub digest: [u8; 16],
}

#[derive(Debug, Clone, PartialEq, Eq)]
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

/// What became of a wanted commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Done {
        /// False: it was a repeat, answered from the stored result.
        applied: bool,
        minted: Vec<ItemId>,
        possessions: Vec<(CharacterId, Possessions)>,
    },
    /// The database says no: a holder or balance is not as the action assumed.
    Refused,
    /// The action id was used for another request, or is too old.
    Conflict,
    /// Not tried; nothing happened.
    Unavailable,
}

/// An entity of a neighbour, seen here. Items on the ground are reached over the border, too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GhostState {
    pub entity: EntityId,
    pub template: u16,
    pub name: Arc<str>,
    pub position: Position,
    pub velocity: (i32, i32),
    pub health: u32,
    pub max_health: u32,
}

/// Something an actor of one zone does to a target of another. Idempotent by (actor, number).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effect {
    pub actor: EntityId,
    /// Ownership epoch of an actor that is an avatar, so that it can be rewarded.
    pub actor_epoch: Epoch,
    pub number: u64,
    pub target: EntityId,
    pub damage: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EffectResult {
    pub actor: EntityId,
    pub number: u64,
    pub applied: bool,
    pub damage: u32,
    pub killed: bool,
}

/// What the AI wants a creature to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intent {
    pub creature: EntityId,
    pub goal: Goal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    Idle,
    Move { x_mm: i32, y_mm: i32, speed: i32 },
    Attack { target: EntityId },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The cells this zone owns from now on, all of them.
    Sectors(Vec<CellRect>),
    /// What lies on the ground of these cells, and which generation of each spawn has left its loot. Creatures
    /// appear in a cell only after this.
    Ground {
        cells: CellRect,
        items: Vec<(Item, Position)>,
        generations: BTreeMap<u64, u64>,
    },
    /// Somebody looks at the cell, or nobody any more. Looking begins with a keyframe.
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
    /// Nothing of the avatar changes until it thaws or leaves.
    Freeze {
        character: CharacterId,
    },
    Thaw {
        character: CharacterId,
    },
    /// The player is away: stand still.
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
    /// What the database says of an avatar's possessions, changed by another zone.
    Possessions {
        character: CharacterId,
        possessions: Possessions,
    },
    Ghost(GhostState),
    GhostGone(EntityId),
    /// A neighbour's avatar has taken this item from the ground here.
    ItemTaken(EntityId),
    Effect(Effect),
    EffectResult(EffectResult),
    Intents(Vec<Intent>),
}

/// What is to be committed; see [`crate::Event::Commit`].
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// Once under (spawn, generation).
    Loot {
        spawn: u64,
        generation: u64,
        at: Position,
        stacks: Vec<Stack>,
        reward: Option<Reward>,
    },
    /// Ask for the stored result of an action that was done before; it has no effect of its own.
    Recall {
        player: CharacterId,
        action: ActionKey,
    },
}

impl HardChange {
    /// The characters whose possessions it touches.
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

    /// Its name in the ledger, in metrics and in logs.
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

/// What one side of a trade gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TradeContribution {
    pub player: CharacterId,
    pub action: ActionKey,
    pub items: Vec<ItemId>,
    pub coins: i64,
}

/// What the one who killed a creature gets beside the loot on the ground.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reward {
    pub player: CharacterId,
    /// Its ownership epoch when it struck; if it is another by now, nobody is rewarded.
    pub epoch: Epoch,
    pub experience: u64,
    pub coins: i64,
}
