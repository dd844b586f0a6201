//! Commands to a space: calls of other daemons, and results of calls that it wanted.

use std::{collections::BTreeMap, sync::Arc};

use shardkeep_sim::{HardChange, Intent, Item, Outcome};
use shardkeep_types::{CellRect, CharacterId, Epoch, Position, Term};

use crate::domain::{
    handover::SourceEvent,
    mirror::Snapshot,
    partition::Table,
    payload::{Admission, Frame, OfferedAvatar, ReplyTo, Settlement, StoredAvatar},
};

/// The answer of a zone that was asked to take spawns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SpawnsAnswer {
    Taken,
    Refused,
    /// It may have taken them.
    Unknown,
}

#[derive(Debug)]
pub(crate) enum Command {
    Admit {
        admission: Box<Admission>,
        term: Term,
        reply: ReplyTo,
    },
    Evict {
        character: CharacterId,
        epoch: Epoch,
        reason: String,
        reply: ReplyTo,
    },
    Teleport {
        character: CharacterId,
        to: Position,
        reply: ReplyTo,
    },
    Offer {
        offered: Box<OfferedAvatar>,
        reply: ReplyTo,
    },
    Settle {
        settlement: Settlement,
        reply: ReplyTo,
    },
    Observe {
        reply: ReplyTo,
    },
    Peer {
        from: String,
        frame: Frame,
    },
    /// The neighbour's queue was full, so a frame was not sent. `lost` is the part that does not repeat itself.
    FramesLost {
        zone: String,
        lost: Box<Frame>,
    },
    /// Another zone gives spawns away, or what a dead zone had.
    TakeSnapshot {
        snapshot: Snapshot,
        reply: ReplyTo,
    },
    /// The zone that owns the homes of these spawns has taken them, or not.
    SpawnsGiven {
        numbers: Vec<u32>,
        answer: SpawnsAnswer,
    },
    /// A batch with this many records is not in the journal.
    JournalLost {
        records: u64,
    },
    Partition(Arc<Table>),
    /// A stream to the world is open, or a report was lost. The next report must be complete.
    PresenceLost,
    /// A stream to an AI is open, or the last one has ended.
    AiConnected(bool),
    Intents(Vec<Intent>),
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
        stale: Option<Vec<CharacterId>>,
    },
    /// A character in the database. `None`: the database did not answer.
    Loaded {
        character: CharacterId,
        row: Option<Box<StoredAvatar>>,
    },
}
