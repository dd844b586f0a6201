//! What the core decides: effects, in order, and the work that takes time.

use shardkeep_link::{GatewayId, ServerMessage};
use shardkeep_types::{AccountId, CharacterId, Epoch, Position, SessionId};
use shardkeep_wire::payload::ErrorCode;

use crate::{partition::Owner, presence::Delta};

/// Something to do, in the order said.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Effect {
    Send {
        gateway: GatewayId,
        session: SessionId,
        message: ServerMessage,
    },
    /// Let the session hear what is said to the whole world.
    SubscribeToWorld {
        gateway: GatewayId,
        session: SessionId,
    },
    Bind {
        gateway: GatewayId,
        session: SessionId,
        zone: String,
        epoch: Epoch,
    },
    Close {
        gateway: GatewayId,
        session: SessionId,
        code: ErrorCode,
        detail: String,
    },
    Start(Work),
    /// Tell the zones the partition.
    Partition,
    /// Tell those who watch.
    Presence(Delta),
    /// A line to everybody.
    Announce(String),
    /// The term is over: whoever streams from here must ask the new leader.
    EndTerm,
    Report(PlayerEvent),
}

/// What takes time; its result comes back to the core.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Work {
    ListCharacters {
        session: SessionId,
        request: u64,
        account: AccountId,
    },
    CreateCharacter {
        session: SessionId,
        request: u64,
        account: AccountId,
        name: String,
        start: Position,
    },
    /// Brings a character into the zone of its place, or back to the zone that has it.
    PlaceAvatar(Placement),
    /// The session is done with the character, wherever it is.
    ReleaseCharacter {
        character: CharacterId,
        session: SessionId,
        reason: &'static str,
    },
    Reown {
        dead: Owner,
        successor: Owner,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Placement {
    pub(crate) attempt: u64,
    pub(crate) session: SessionId,
    pub(crate) session_epoch: Epoch,
    pub(crate) account: AccountId,
    pub(crate) character: CharacterId,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PlayerEventKind {
    Enter,
    Leave,
}

/// A line of the players' log.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PlayerEvent {
    pub(crate) kind: PlayerEventKind,
    pub(crate) account: AccountId,
    pub(crate) session: SessionId,
    pub(crate) character: Option<CharacterId>,
    pub(crate) detail: String,
}
