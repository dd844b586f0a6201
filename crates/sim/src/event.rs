//! What comes out of a tick. The zone service carries it to clients, database and neighbours.

use std::sync::Arc;

use shardkeep_types::{CellId, CharacterId, EntityId, Position};

use crate::input::{Effect, EffectResult, HardChange, Item, Requester};

/// Which of a cell's two groups: everything at full rate, or the slower one for those farther away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Ring {
    Near,
    Outer,
}

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

/// What watchers of a cell have to know after a tick.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CellUpdate {
    pub cell: CellId,
    pub ring: Ring,
    pub form: CellForm,
    pub tick: u32,
    pub entries: Vec<Entry>,
}

/// What is told of one entity; absent fields are as before.
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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

/// What a player knows of the own avatar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnState {
    pub tick: u32,
    /// The last Move applied.
    pub last_input: u32,
    pub position: Position,
    pub velocity: (i16, i16),
    pub facing: u8,
    pub health: u32,
    pub max_health: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TradeState {
    Invited,
    Open,
    Committing,
    Done,
    Cancelled,
}

/// A trade as one of the two sees it.
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
    /// The database has committed; the possessions are those after it.
    Committed {
        action: u64,
    },
    Invited {
        trade: u64,
    },
    Trade(Box<TradeView>),
}

/// Why a request was not done; always the client's or the moment's doing, never ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("no such thing in sight")]
    NotFound,
    #[error("{0}")]
    Refused(&'static str),
    #[error("the action id was used for another request, or is too old")]
    Conflict,
    #[error("try again")]
    Unavailable,
}

impl Refusal {
    /// For metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Refused(_) => "refused",
            Self::Conflict => "conflict",
            Self::Unavailable => "unavailable",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Cell(CellUpdate),
    AvatarState {
        character: CharacterId,
        state: OwnState,
    },
    /// The avatar sees from another cell now.
    View {
        character: CharacterId,
        cell: CellId,
    },
    /// The avatar stands in a cell of another zone; repeated until it leaves or comes back.
    Outside {
        character: CharacterId,
        cell: CellId,
    },
    Reply {
        requester: Requester,
        reply: Result<Reply, Refusal>,
    },
    /// Its possessions are others now; see [`crate::Sim::possessions`].
    Possessions {
        character: CharacterId,
    },
    Vitals {
        character: CharacterId,
        health: u32,
        max_health: u32,
        died: bool,
    },
    /// It stands somewhere else all at once.
    Placed {
        character: CharacterId,
        position: Position,
    },
    Trade {
        character: CharacterId,
        view: Box<TradeView>,
    },
    /// To be committed, and answered with [`crate::Input::Committed`] of the same number however long it takes.
    Commit {
        number: u64,
        change: HardChange,
    },
    /// To the zone that owns the target; repeated until its result comes or it is too late.
    Effect(Effect),
    /// To the zone that owns the actor.
    EffectResult(EffectResult),
    /// An item was taken from the ground of a neighbour's cell; its owner cannot know.
    ItemTaken {
        item: EntityId,
        cell: CellId,
    },
    /// The ground of this cell may hold what is not known here.
    GroundStale {
        cell: CellId,
    },
    /// A client wished to be faster than it can.
    TooFast {
        character: CharacterId,
    },
}
