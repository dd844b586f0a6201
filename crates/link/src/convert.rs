//! Client messages in calls between daemons, which carry them as `proto/link.proto` describes them.

use shardkeep_rpc::{Malformed, link as proto};

use crate::message::ClientMessage;

impl From<ClientMessage> for proto::ClientMessage {
    fn from(message: ClientMessage) -> Self {
        Self {
            opcode: message.opcode.into(),
            kind: message.kind as u32,
            request: message.request,
            payload: message.payload,
        }
    }
}

impl TryFrom<proto::ClientMessage> for ClientMessage {
    type Error = Malformed;

    fn try_from(message: proto::ClientMessage) -> Result<Self, Malformed> {
        Ok(Self {
            opcode: u16::try_from(message.opcode).map_err(|error| Malformed::new("opcode", error))?,
            kind: message.kind.try_into()?,
            request: message.request,
            payload: message.payload,
        })
    }
}
