//! The messages to the loop of a space, besides link events, and those to the loop of the zone.

use std::sync::Arc;

use shardkeep_rpc::{ai, world};
use shardkeep_types::SpaceId;
use tokio::sync::{mpsc, oneshot};

use crate::domain::{
    command::Command,
    effect::Answer,
    mirror::Snapshot,
    partition::{Table, ZoneName},
    payload::ReplyTo,
};

/// Bound of the queue of a loop. Overflow: the sender waits.
pub(crate) const MESSAGE_QUEUE: usize = 1_024;

/// A message to one space.
pub(crate) enum Message {
    Command(Command),
    /// A call of another daemon, which waits for the answer. An answer to a caller that stopped waiting is dropped. The
    /// caller repeats the call; all calls are idempotent.
    Call {
        command: Box<dyn FnOnce(ReplyTo) -> Command + Send>,
        answer: oneshot::Sender<Answer>,
    },
    /// A stream to an AI is open.
    AiStream(mpsc::Sender<ai::Perceptions>),
}

/// A message to the zone.
pub(crate) enum ZoneMessage {
    /// The state of a space in another zone.
    Mirrored {
        zone: ZoneName,
        space: SpaceId,
        snapshot: Snapshot,
    },
    Partition(Arc<Table>),
    /// A stream to the leading world is open, for the reports of all spaces.
    PresenceStream(mpsc::Sender<world::PresenceReport>),
}
