//! Answers to clients.

use std::time::Duration;

use prost::Message;
use shardkeep_link::ServerMessage;
use shardkeep_wire::payload::{self, ErrorCode};

/// The delay that clients are told when a service is unavailable for a moment.
const RETRY: Duration = Duration::from_secs(1);

pub(crate) fn reply(opcode: u16, request: u64, payload: &impl Message) -> ServerMessage {
    ServerMessage::reply(opcode, request, payload.encode_to_vec())
}

/// The reply that refuses a request.
pub(crate) fn refusal(request: u64, code: ErrorCode, detail: &str) -> ServerMessage {
    let error = payload::Error::of(code, detail);
    let error = if code == ErrorCode::Unavailable { error.retry_after(RETRY) } else { error };
    ServerMessage::refusal(request, error.encode_to_vec())
}
