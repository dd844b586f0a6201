//! Payload types, generated from `proto/client/`, and helpers that put them into messages.

use bytes::{Bytes, BytesMut};

use crate::{
    message::{self, Head, Message},
    opcode,
};

#[allow(unreachable_pub, clippy::all, reason = "generated")]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/shardkeep.client.v1.rs"));
}

pub use generated::*;

/// The payload does not match the opcode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("payload of opcode {opcode:#06x}: {reason}")]
pub struct PayloadError {
    pub opcode: u16,
    pub reason: String,
}

impl PayloadError {
    pub fn label(&self) -> &'static str {
        "payload"
    }
}

/// Appends a whole message with a protobuf payload. Allocates only when the buffer grows.
pub fn encode(out: &mut BytesMut, opcode: u16, head: Head, payload: &impl prost::Message) {
    message::encode_header(out, opcode, head, payload.encoded_len());
    payload.encode(out).expect("a BytesMut grows");
}

impl Message<Bytes> {
    pub fn with(opcode: u16, head: Head, payload: &impl prost::Message) -> Self {
        Self { opcode, head, payload: payload.encode_to_vec().into() }
    }

    pub fn request(opcode: u16, request: u32, payload: &impl prost::Message) -> Self {
        Self::with(opcode, Head::Request(request), payload)
    }

    pub fn reply(opcode: u16, request: u32, payload: &impl prost::Message) -> Self {
        Self::with(opcode, Head::Reply(request), payload)
    }

    pub fn event(opcode: u16, payload: &impl prost::Message) -> Self {
        Self::with(opcode, Head::Event, payload)
    }

    /// An error that answers `request` instead of its reply.
    pub fn error_reply(request: u32, error: &Error) -> Self {
        Self::reply(opcode::ERROR, request, error)
    }

    /// An error event: the last message of a connection.
    pub fn error_event(error: &Error) -> Self {
        Self::event(opcode::ERROR, error)
    }
}

impl<B: AsRef<[u8]>> Message<B> {
    /// Decodes the payload as the protobuf message of the opcode.
    pub fn decode<P: prost::Message + Default>(&self) -> Result<P, PayloadError> {
        P::decode(self.payload.as_ref())
            .map_err(|error| PayloadError { opcode: self.opcode, reason: error.to_string() })
    }
}

impl Error {
    pub fn of(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self { code: code as i32, detail: detail.into(), retry_after_ms: 0 }
    }

    #[must_use]
    pub fn retry_after(mut self, wait: std::time::Duration) -> Self {
        self.retry_after_ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encode_matches_message_to_bytes() {
        let payload = Speak { channel: Channel::Say as i32, text: "hello".into(), to: String::new() };
        let mut out = BytesMut::new();
        encode(&mut out, opcode::SPEAK, Head::Request(7), &payload);
        let message = Message::request(opcode::SPEAK, 7, &payload);
        assert_eq!(out, message.to_bytes());
        assert_eq!(message.decode::<Speak>(), Ok(payload));
    }

    #[test]
    fn payload_error_names_opcode() {
        let message = Message::new(opcode::SPEAK, Head::Request(1), &[0xff, 0xff][..]);
        assert!(message.decode::<Speak>().unwrap_err().to_string().contains("0x2000"));
    }
}
