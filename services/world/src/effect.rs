//! The decisions of the core: effects in order, and work that takes time.

use shardkeep_link::{GatewayId, ServerMessage};
use shardkeep_types::{AccountId, CharacterId, Epoch, Position, SessionId};
use shardkeep_wire::payload::ErrorCode;

use crate::{partition::Owner, presence::Delta};

/// An effect. The actor carries effects out in order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Effect {
    Send {
        gateway: GatewayId,
        session: SessionId,
        message: ServerMessage,
    },
    /// Subscribes the session to the group of the whole world.
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
    /// Sends the partition table to the zones.
    Partition,
    /// Sends a change of presence to watchers.
    Presence(Delta),
    /// Sends a line to all sessions.
    Announce(String),
    /// The term is over: ends all streams, so that their clients ask the new leader.
    EndTerm,
    Report(PlayerEvent),
}

/// Work that takes time. Its result comes back to the core.
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
    /// Brings a character into the zone at its position, or back into the zone that has it.
    PlaceAvatar(Placement),
    /// Frees a character that its session has left, wherever it is.
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

/// A line of the log of player events.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PlayerEvent {
    pub(crate) kind: PlayerEventKind,
    pub(crate) account: AccountId,
    pub(crate) session: SessionId,
    pub(crate) character: Option<CharacterId>,
    pub(crate) detail: String,
}
