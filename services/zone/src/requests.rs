//! What players ask for, from bytes to wishes. Everything that makes no sense is refused here, with a reason.

use prost::Message;
use sha2::{Digest, Sha256};
use shardkeep_cluster::link::{ClientMessage, MessageKind, ServerMessage};
use shardkeep_sim::{Act, Action, Ask, Input};
use shardkeep_types::{CharacterId, EntityId, ItemId};
use shardkeep_wire::{
    movement::Move,
    opcode,
    payload::{self, ErrorCode},
};

use crate::{metrics, outbox, shard::Shard};

/// A message that is no request, or one that asks for nothing this zone knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RequestError {
    #[error("the payload is malformed")]
    Malformed,
    #[error("this is nothing a zone does")]
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

/// The reply needs the opcode, so it goes along with the number of the request.
pub(crate) fn ask(character: CharacterId, message: &ClientMessage) -> Ask {
    Ask { character, request: u64::from(message.opcode) << 32 | (message.request & 0xffff_ffff) }
}

/// Opcode and number of the request behind an [`Ask`].
pub(crate) fn asked(ask: Ask) -> (u16, u64) {
    ((ask.request >> 32) as u16, ask.request & 0xffff_ffff)
}

/// A wish to move, or a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    Move(Move),
    Inventory,
    Act(Act),
}

pub(crate) fn decode(message: &ClientMessage) -> Result<Wish, RequestError> {
    match (message.kind, message.opcode) {
        (MessageKind::State, opcode::MOVE) => {
            Move::decode(&message.payload).map(Wish::Move).map_err(|_| RequestError::Malformed)
        }
        (MessageKind::Request, opcode::GET_INVENTORY) => Ok(Wish::Inventory),
        (MessageKind::Request, _) => act(message).map(Wish::Act),
        _ => Err(RequestError::Unknown),
    }
}

fn act(message: &ClientMessage) -> Result<Act, RequestError> {
    Ok(match message.opcode {
        opcode::PICK_UP => {
            let payload::PickUp { action_id, entity_id } = read(message)?;
            Act::PickUp { action: action(message, action_id)?, entity: EntityId(entity_id) }
        }
        opcode::DROP => {
            let payload::Drop { action_id, item_id } = read(message)?;
            Act::Drop { action: action(message, action_id)?, item: ItemId(item_id) }
        }
        opcode::ATTACK => Act::Attack { target: EntityId(read::<payload::Attack>(message)?.target) },
        opcode::TRADE_INVITE => {
            Act::Invite { entity: EntityId(read::<payload::TradeInvite>(message)?.entity_id) }
        }
        opcode::TRADE_ANSWER => {
            let payload::TradeAnswer { trade_id, accept } = read(message)?;
            Act::Answer { trade: trade_id, accept }
        }
        opcode::TRADE_OFFER => {
            let payload::TradeOffer { trade_id, item_ids, coins } = read(message)?;
            Act::Offer { trade: trade_id, items: item_ids.into_iter().map(ItemId).collect(), coins }
        }
        opcode::TRADE_CONFIRM => {
            let payload::TradeConfirm { action_id, trade_id, revision } = read(message)?;
            Act::Confirm { action: action(message, action_id)?, trade: trade_id, revision }
        }
        opcode::TRADE_CANCEL => Act::Cancel { trade: read::<payload::TradeCancel>(message)?.trade_id },
        _ => return Err(RequestError::Unknown),
    })
}

fn read<P: Message + Default>(message: &ClientMessage) -> Result<P, RequestError> {
    P::decode(&*message.payload).map_err(|_| RequestError::Malformed)
}

/// The digest covers opcode and payload: the same id for another request is another digest.
fn action(message: &ClientMessage, id: u64) -> Result<Action, RequestError> {
    if id == 0 || i64::try_from(id).is_err() {
        return Err(RequestError::Malformed);
    }
    let hash =
        Sha256::new().chain_update(message.opcode.to_le_bytes()).chain_update(&message.payload).finalize();
    let mut digest = [0; 16];
    digest.copy_from_slice(&hash[..16]);
    Ok(Action { id, digest })
}

impl Shard {
    /// One message of the player of an avatar that is here.
    pub(crate) fn message(&mut self, character: CharacterId, message: &ClientMessage) {
        match decode(message) {
            Ok(Wish::Move(Move { sequence, velocity: [vx, vy], facing })) => {
                metrics::input("move");
                let velocity = (vx.into(), vy.into());
                self.inputs.push(Input::Move { character, sequence, velocity, facing });
            }
            Ok(Wish::Inventory) => {
                metrics::input("inventory");
                let reply = match self.sim.possessions(character) {
                    Some(own) => {
                        let inventory = outbox::inventory(own).encode_to_vec();
                        ServerMessage::reply(message.opcode, message.request, inventory)
                    }
                    None => outbox::refusal(message.request, ErrorCode::Unavailable, "not here yet"),
                };
                self.outbox.push(character, reply);
            }
            Ok(Wish::Act(act)) => {
                metrics::input("act");
                self.inputs.push(Input::Act { ask: ask(character, message), act });
            }
            Err(error) => {
                metrics::refused(error.label());
                if message.kind == MessageKind::Request {
                    let refusal = outbox::refusal(message.request, ErrorCode::Malformed, &error.to_string());
                    self.outbox.push(character, refusal);
                }
            }
        }
    }
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
    fn asks_remember_what_they_answer() {
        let message = request(opcode::DROP, &payload::Drop { action_id: 1, item_id: 2 });
        assert_eq!(asked(ask(CharacterId(3), &message)), (opcode::DROP, 7));
    }

    #[test]
    fn a_digest_tells_requests_apart() {
        let digest = |message: &ClientMessage| match decode(message) {
            Ok(Wish::Act(Act::Drop { action, .. } | Act::PickUp { action, .. })) => action.digest,
            other => panic!("{other:?}"),
        };
        let one = request(opcode::DROP, &payload::Drop { action_id: 1, item_id: 2 });
        let same = request(opcode::DROP, &payload::Drop { action_id: 1, item_id: 2 });
        let other = request(opcode::PICK_UP, &payload::PickUp { action_id: 1, entity_id: 2 });
        assert_eq!(digest(&one), digest(&same));
        assert_ne!(digest(&one), digest(&other));
    }

    #[test]
    fn nonsense_is_named() {
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
