//! Decodes the requests of players, and refuses malformed ones with a reason.

use prost::Message;
use sha2::{Digest, Sha256};
use shardkeep_link::{ClientMessage, MessageKind};
use shardkeep_sim::{Act, ActionKey, Requester};
use shardkeep_types::{CharacterId, EntityId, ItemId};
use shardkeep_wire::{movement::Move, opcode, payload};

/// Why a message is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RequestError {
    #[error("the payload is malformed")]
    Malformed,
    #[error("a zone does not serve this opcode")]
    Unknown,
}

impl RequestError {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Unknown => "unknown_opcode",
        }
    }
}

/// The requester of a message. It contains the opcode, because the reply needs it.
pub(crate) fn requester(character: CharacterId, message: &ClientMessage) -> Requester {
    Requester { character, request: u64::from(message.opcode) << 32 | (message.request & 0xffff_ffff) }
}

/// Opcode and number of the request behind a [`Requester`].
pub(crate) fn request_of(requester: Requester) -> (u16, u64) {
    ((requester.request >> 32) as u16, requester.request & 0xffff_ffff)
}

/// A decoded message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PlayerRequest {
    Move(Move),
    /// The page that begins with the item of this index.
    Inventory {
        first: usize,
    },
    Act(Act),
}

pub(crate) fn decode(message: &ClientMessage) -> Result<PlayerRequest, RequestError> {
    match (message.kind, message.opcode) {
        (MessageKind::State, opcode::MOVE) => {
            Move::decode(&message.payload).map(PlayerRequest::Move).map_err(|_| RequestError::Malformed)
        }
        (MessageKind::Request, opcode::GET_INVENTORY) => {
            let payload::GetInventory { first } = decode_payload(message)?;
            Ok(PlayerRequest::Inventory { first: usize::try_from(first).unwrap_or(usize::MAX) })
        }
        (MessageKind::Request, _) => act(message).map(PlayerRequest::Act),
        _ => Err(RequestError::Unknown),
    }
}

fn act(message: &ClientMessage) -> Result<Act, RequestError> {
    Ok(match message.opcode {
        opcode::PICK_UP => {
            let payload::PickUp { action_id, entity_id } = decode_payload(message)?;
            Act::PickUp { action: action(message, action_id)?, entity: EntityId(entity_id) }
        }
        opcode::DROP => {
            let payload::Drop { action_id, item_id } = decode_payload(message)?;
            Act::Drop { action: action(message, action_id)?, item: ItemId(item_id) }
        }
        opcode::ATTACK => {
            Act::Attack { target: EntityId(decode_payload::<payload::Attack>(message)?.target) }
        }
        opcode::TRADE_INVITE => {
            Act::Invite { entity: EntityId(decode_payload::<payload::TradeInvite>(message)?.entity_id) }
        }
        opcode::TRADE_ANSWER => {
            let payload::TradeAnswer { trade_id, accept } = decode_payload(message)?;
            Act::Answer { trade: trade_id, accept }
        }
        opcode::TRADE_OFFER => {
            let payload::TradeOffer { trade_id, item_ids, coins } = decode_payload(message)?;
            Act::Offer { trade: trade_id, items: item_ids.into_iter().map(ItemId).collect(), coins }
        }
        opcode::TRADE_CONFIRM => {
            let payload::TradeConfirm { action_id, trade_id, revision } = decode_payload(message)?;
            Act::Confirm { action: action(message, action_id)?, trade: trade_id, revision }
        }
        opcode::TRADE_CANCEL => {
            Act::Cancel { trade: decode_payload::<payload::TradeCancel>(message)?.trade_id }
        }
        _ => return Err(RequestError::Unknown),
    })
}

fn decode_payload<P: Message + Default>(message: &ClientMessage) -> Result<P, RequestError> {
    P::decode(&*message.payload).map_err(|_| RequestError::Malformed)
}

/// The digest covers opcode and payload, so that another request with the same id is recognised.
fn action(message: &ClientMessage, id: u64) -> Result<ActionKey, RequestError> {
    if id == 0 || i64::try_from(id).is_err() {
        return Err(RequestError::Malformed);
    }
    let hash =
        Sha256::new().chain_update(message.opcode.to_le_bytes()).chain_update(&message.payload).finalize();
    let mut digest = [0; 16];
    digest.copy_from_slice(&hash[..16]);
    Ok(ActionKey { id, digest })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(opcode: u16, payload: &impl Message) -> ClientMessage {
        ClientMessage {
            opcode,
            kind: MessageKind::Request,
            request: 7,
            payload: payload.encode_to_vec().into(),
        }
    }

    #[test]
    fn requester_keeps_opcode_and_request_number() {
        let message = request(opcode::DROP, &payload::Drop { action_id: 1, item_id: 2 });
        assert_eq!(request_of(requester(CharacterId(3), &message)), (opcode::DROP, 7));
    }

    #[test]
    fn digest_differs_between_requests() {
        let digest = |message: &ClientMessage| match decode(message) {
            Ok(PlayerRequest::Act(Act::Drop { action, .. } | Act::PickUp { action, .. })) => action.digest,
            other => panic!("{other:?}"),
        };
        let one = request(opcode::DROP, &payload::Drop { action_id: 1, item_id: 2 });
        let same = request(opcode::DROP, &payload::Drop { action_id: 1, item_id: 2 });
        let other = request(opcode::PICK_UP, &payload::PickUp { action_id: 1, entity_id: 2 });
        assert_eq!(digest(&one), digest(&same));
        assert_ne!(digest(&one), digest(&other));
    }

    #[test]
    fn invalid_request_gives_specific_error() {
        let zero = request(opcode::DROP, &payload::Drop { action_id: 0, item_id: 2 });
        assert_eq!(decode(&zero), Err(RequestError::Malformed));
        let broken = ClientMessage {
            payload: vec![0xff].into(),
            ..request(opcode::ATTACK, &payload::Attack { target: 1 })
        };
        assert_eq!(decode(&broken), Err(RequestError::Malformed));
        assert_eq!(decode(&request(0x1fff, &payload::Attack { target: 1 })), Err(RequestError::Unknown));
    }
}
