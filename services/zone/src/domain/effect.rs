//! The output of a space: messages over links, calls of other daemons, answers to callers.

use std::sync::Arc;

use shardkeep_journal::Batch;
use shardkeep_link::{GatewayId, PublishKind, ServerMessage};
use shardkeep_sim::{EntityView, Perception, SpawnState};
use shardkeep_types::{CellRect, CharacterId, Epoch, GroupKey, Position, SessionId};
use shardkeep_wire::payload::ErrorCode;

use crate::domain::{
    mirror::Snapshot,
    payload::{
        Destination, Fences, Frame, Job, OfferedAvatar, PresenceReport, ReplyTo, Settlement, SoftState,
    },
};

#[derive(Debug)]
pub(crate) enum Effect {
    Send {
        gateway: GatewayId,
        session: SessionId,
        messages: Vec<ServerMessage>,
    },
    /// Replaces the groups of a session.
    Subscribe {
        gateway: GatewayId,
        session: SessionId,
        groups: Vec<GroupKey>,
    },
    Bind {
        gateway: GatewayId,
        session: SessionId,
        zone: String,
        epoch: Epoch,
    },
    Ready {
        gateway: GatewayId,
        session: SessionId,
        bind_epoch: Epoch,
    },
    Close {
        gateway: GatewayId,
        session: SessionId,
        code: ErrorCode,
        detail: &'static str,
    },
    Publish {
        group: GroupKey,
        epoch: Epoch,
        kind: PublishKind,
        message: ServerMessage,
    },
    /// The avatar of a session is here. A neighbour has offered it, or the world has admitted it.
    Entered {
        session: SessionId,
        character: CharacterId,
        epoch: Epoch,
    },
    Left(SessionId),
    Answer {
        to: ReplyTo,
        answer: Answer,
    },
    /// Commits a hard action. `fences` are the characters of this zone that it changes.
    Commit {
        job: Job,
        fences: Fences,
    },
    /// Asks for the stored result of an earlier action.
    Recall {
        job: Job,
    },
    LoadGround(CellRect),
    Save(Vec<SoftState>),
    Release(SoftState),
    Load(CharacterId),
    Offer {
        to: Arc<Destination>,
        offered: Box<OfferedAvatar>,
    },
    Transfer {
        to: Arc<Destination>,
        state: SoftState,
    },
    Settle {
        to: Arc<Destination>,
        settlement: Settlement,
    },
    /// Asks the zone that owns their homes to take these spawns.
    GiveSpawns {
        to: Destination,
        spawns: Vec<SpawnState>,
    },
    /// For the buddy, which gives it to others if this zone dies.
    Mirror {
        to: Destination,
        snapshot: Snapshot,
    },
    OpenNeighbour {
        zone: String,
        grpc_address: String,
    },
    CloseNeighbour {
        zone: String,
    },
    Frame {
        zone: String,
        frame: Frame,
    },
    Presence(PresenceReport),
    /// Records of the simulation, for its journal.
    Journal(Batch),
    Perceptions {
        tick: u64,
        elapsed_ms: u32,
        creatures: Vec<Perception>,
    },
}

/// The answer to a call of another daemon.
#[derive(Debug)]
pub(crate) enum Answer {
    Admitted(Result<Position, CommandError>),
    Done(Result<(), CommandError>),
    /// A refusal has a reason.
    Offered(Result<(), String>),
    Settled,
    Observed(Box<Observation>),
}

/// The view of a space for operators.
#[derive(Debug)]
pub(crate) struct Observation {
    pub(crate) sectors: Vec<CellRect>,
    pub(crate) entities: Vec<EntityView>,
    pub(crate) width_mm: u32,
    pub(crate) height_mm: u32,
}

/// Why a zone did not do what another daemon asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CommandError {
    #[error("{0}")]
    Invalid(&'static str),
    #[error("{0}")]
    NotFound(&'static str),
    /// A repeat does not help.
    #[error("{0}")]
    Precondition(String),
    #[error("{0}")]
    Full(&'static str),
    /// A repeat may succeed.
    #[error("{0}")]
    Unavailable(&'static str),
}
