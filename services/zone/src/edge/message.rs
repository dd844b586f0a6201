//! The messages to the loop of a zone, besides link events.

use shardkeep_rpc::{ai, world};
use tokio::sync::{mpsc, oneshot};

use crate::domain::{command::Command, effect::Answer, payload::ReplyTo};

/// Bound of the queue of the loop. Overflow: the sender waits.
pub(crate) const MESSAGE_QUEUE: usize = 1_024;
pub(crate) enum Message {
    Command(Command),
    /// A call of another daemon, which waits for the answer. An answer to a caller that stopped waiting is dropped. The
    /// caller repeats the call; all calls are idempotent.
    Call {
        command: Box<dyn FnOnce(ReplyTo) -> Command + Send>,
        answer: oneshot::Sender<Answer>,
    },
    /// A stream to the leading world is open.
    PresenceStream(mpsc::Sender<world::PresenceReport>),
    /// A stream to an AI is open.
    AiStream(mpsc::Sender<ai::Perceptions>),
}
