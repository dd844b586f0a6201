//! The decisions of the world: effects in order, and work that takes time.

use shardkeep_link::{GatewayId, ServerMessage};
use shardkeep_types::{AccountId, CharacterId, Epoch, InstanceId, Position, SessionId, Term};
use shardkeep_wire::payload::ErrorCode;

use crate::domain::{layout::LayoutChange, placements::Placement, presence::Avatar};

/// An effect. The actor carries effects out in order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Effect {
    Send { gateway: GatewayId, session: SessionId, message: ServerMessage },
    // To the group of the whole world.
    Subscribe { gateway: GatewayId, session: SessionId },
    // The world serves the session that the gateway has bound to it.
    Ready { gateway: GatewayId, session: SessionId, bind_epoch: Epoch },
    Bind { gateway: GatewayId, session: SessionId, zone: String, epoch: Epoch },
    Close { gateway: GatewayId, session: SessionId, code: ErrorCode, detail: String },
    Start(Work),
    // Sends the stored layout to the zones.
    Partition,
    // Sends a change of presence to watchers.
    Presence { present: Vec<Avatar>, gone: Vec<CharacterId> },
    // Sends a line to all sessions.
    Announce(String),
    // Ends all streams, so that their clients ask the new leader.
    EndTerm,
    // Lines of the log of player events.
    ReportEnter { account: AccountId, session: SessionId, character: CharacterId, zone: String },
    ReportLeave { account: AccountId, session: SessionId, character: Option<CharacterId>, why: &'static str },
}

/// Work that takes time. Its result comes back to the world.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Work {
    ListCharacters { session: SessionId, request: u64, account: AccountId },
    CreateCharacter { session: SessionId, request: u64, account: AccountId, name: String, start: Position },
    // Brings a character into the zone at its position, or back into the zone that has it.
    PlaceAvatar(Placement),
    // Frees a character that its session has left, wherever it is.
    ReleaseCharacter { character: CharacterId, session: SessionId, reason: &'static str },
    Reown { dead: InstanceId, successor: InstanceId },
    LoadLayout { term: Term },
    StoreLayout { term: Term, change: LayoutChange },
}
