//! Commands to the tick loop: calls of other daemons, and results of background calls.

mod dispatch;

use std::collections::BTreeMap;

use shardkeep_link::ClientMessage;
use shardkeep_rpc::{ai, dbcache::Character, world, zone as peer};
use shardkeep_sim::{EnteringAvatar, EntityView, HardChange, Item, Outcome};
use shardkeep_types::{AccountId, CellRect, CharacterId, Epoch, Position, SessionId};
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

use crate::{handover::SourceEvent, partition::Table, players::EvictionReply};

/// Bound of the command queue. Overflow: the sender waits.
pub(crate) const COMMAND_QUEUE: usize = 1_024;

pub(crate) type Reply<T> = oneshot::Sender<Result<T, Status>>;

/// An avatar that this zone owns in the database.
#[derive(Debug)]
pub(crate) struct Admission {
    pub(crate) session: SessionId,
    pub(crate) session_epoch: Epoch,
    pub(crate) account: AccountId,
    pub(crate) entering: EnteringAvatar,
}

/// An avatar that a neighbour offers.
#[derive(Debug)]
pub(crate) struct OfferedAvatar {
    pub(crate) from: String,
    pub(crate) gateway: String,
    pub(crate) admission: Admission,
}

/// The outcome of a neighbour's hand-over.
#[derive(Debug)]
pub(crate) struct Settlement {
    pub(crate) character: CharacterId,
    /// The epoch before the hand-over.
    pub(crate) epoch: Epoch,
    pub(crate) committed: bool,
    pub(crate) inputs: Vec<ClientMessage>,
    /// How many inputs were forwarded before these.
    pub(crate) from: u32,
}

#[derive(Debug)]
pub(crate) enum Command {
    Admit {
        admission: Box<Admission>,
        term: u64,
        reply: Reply<Position>,
    },
    Evict {
        character: CharacterId,
        epoch: Epoch,
        reason: String,
        reply: EvictionReply,
    },
    Teleport {
        character: CharacterId,
        to: Position,
        reply: Reply<()>,
    },
    Offer {
        offered: Box<OfferedAvatar>,
        reply: oneshot::Sender<Result<(), String>>,
    },
    Settle {
        settlement: Settlement,
        reply: oneshot::Sender<()>,
    },
    Peer {
        frame: peer::PeerFrame,
    },
    Observe {
        reply: oneshot::Sender<(Vec<CellRect>, Vec<EntityView>)>,
    },
    Partition(Table),
    /// A stream to the world is open. The first report must be complete.
    PresenceStream(mpsc::Sender<world::PresenceReport>),
    /// A stream to an AI is open. The first batch must contain the grid.
    AiStream(mpsc::Sender<ai::Perceptions>),
    Intents(ai::Intents),
    Ground {
        cells: CellRect,
        items: Vec<(Item, Position)>,
        generations: BTreeMap<u32, u64>,
    },
    Committed {
        number: u64,
        change: HardChange,
        outcome: Outcome,
        stale: bool,
    },
    Handover {
        character: CharacterId,
        epoch: Epoch,
        event: SourceEvent,
    },
    Released {
        character: CharacterId,
        epoch: Epoch,
    },
    /// A save has ended. This zone does not own the `stale` characters any more. `None`: the database did not
    /// answer.
    Saved {
        states: Vec<(CharacterId, Epoch)>,
        stale: Option<Vec<u64>>,
    },
    /// The row of a character in the database. `None`: the database did not answer.
    Loaded {
        character: CharacterId,
        row: Option<Box<Character>>,
    },
}
