//! The output of a simulation. The zone service delivers it to clients, the database and neighbouring zones.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use shardkeep_types::{CellId, CharacterId, EntityId, Position};

use crate::{
    input::{Effect, EffectResult, HardChange, Item, Requester, SpawnState},
    ring::Ring,
};

/// How a cell update relates to those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CellForm {
    /// Replaces everything that watchers know of the cell.
    Keyframe,
    /// Completes the keyframe before it, which did not fit one message.
    Part,
    /// Changes what watchers know of the cell.
    Delta,
}

/// The changes of one cell in this tick, for its watchers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CellUpdate {
    pub cell: CellId,
    pub ring: Ring,
    pub form: CellForm,
    pub tick: u32,
    pub entries: Vec<Entry>,
}

/// The changes of one entity. Absent fields are unchanged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub entity: EntityId,
    pub appears: Option<Appearance>,
    /// Offset from the cell's corner in mm.
    pub position: Option<(u16, u16)>,
    /// mm/s.
    pub velocity: Option<(i16, i16)>,
    /// 1/256 turns counter-clockwise from +x.
    pub facing: Option<u8>,
    /// 0 dead to 255 full.
    pub health: Option<u8>,
    pub gone: Option<RemovalReason>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appearance {
    pub kind: Kind,
    pub template: u16,
    pub name: Arc<str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Kind {
    Avatar = 1,
    Creature = 2,
    Item = 3,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum RemovalReason {
    ToOtherCell = 1,
    Left = 2,
    Died = 3,
}

/// The state of an avatar for its player.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnState {
    pub tick: u32,
    /// Sequence of the last `Move` that took effect.
    pub last_input: u32,
    pub position: Position,
    pub velocity: (i16, i16),
    pub facing: u8,
    pub health: u32,
    pub max_health: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TradeState {
    Invited,
    Open,
    Committing,
    Done,
    Cancelled,
}

/// A trade from the view of one participant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TradeView {
    pub trade: u64,
    pub partner: CharacterId,
    pub partner_name: Arc<str>,
    pub state: TradeState,
    pub own_side: TradeSideView,
    pub partner_side: TradeSideView,
    pub revision: u32,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TradeSideView {
    pub items: Vec<Item>,
    pub coins: i64,
    pub confirmed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    Attack {
        damage: u32,
        killed: bool,
    },
    /// The database has committed the action.
    Committed {
        action: u64,
    },
    Invited {
        trade: u64,
    },
    Trade(Box<TradeView>),
}

/// Why a request was refused. The cause is the client or the moment, never a fault of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("there is no such entity near the avatar")]
    NotFound,
    #[error("{0}")]
    Refused(&'static str),
    #[error("the action id belongs to another request, or is too old: continue above last_action")]
    Conflict,
    #[error("try again")]
    Unavailable,
}

impl Refusal {
    /// The name in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Refused(_) => "refused",
            Self::Conflict => "conflict",
            Self::Unavailable => "unavailable",
        }
    }
}

/// The answer to a request; `None` when it comes later.
pub(crate) type Answer = Result<Option<Reply>, Refusal>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Cell(CellUpdate),
    AvatarState {
        character: CharacterId,
        state: OwnState,
    },
    /// The avatar has entered another cell.
    View {
        character: CharacterId,
        cell: CellId,
    },
    /// The avatar is in a cell of another zone. Repeated until it leaves or returns.
    Outside {
        character: CharacterId,
        cell: CellId,
    },
    Reply {
        requester: Requester,
        reply: Result<Reply, Refusal>,
    },
    /// The possessions have changed; see [`crate::Sim::possessions`].
    Possessions {
        character: CharacterId,
    },
    Vitals {
        character: CharacterId,
        health: u32,
        max_health: u32,
        died: bool,
    },
    /// An avatar died.
    Died {
        character: CharacterId,
        killer: EntityId,
        position: Position,
    },
    /// The avatar was moved to another position at once.
    Placed {
        character: CharacterId,
        position: Position,
    },
    Trade {
        character: CharacterId,
        view: Box<TradeView>,
    },
    /// The zone commits the change and answers with [`crate::Input::Committed`] of the same number, however long it takes.
    Commit {
        number: u64,
        change: HardChange,
    },
    /// For the zone that owns the target. Repeated until its result arrives or time runs out.
    Effect(Effect),
    /// For the zone that owns the actor.
    EffectResult(EffectResult),
    /// The zone does not own the homes of these spawns any more. Their creatures are not simulated here any more.
    SpawnsLost(Vec<SpawnState>),
    /// An avatar of this zone has taken an item from a cell of a neighbour, which does not know yet.
    ItemTaken {
        item: EntityId,
        cell: CellId,
    },
    /// The ground of this cell may hold items that its zone does not know.
    GroundStale {
        cell: CellId,
    },
    /// A client asked for a higher speed than allowed.
    TooFast {
        character: CharacterId,
    },
}
