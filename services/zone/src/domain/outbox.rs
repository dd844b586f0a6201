//! Messages to players, except cells: replies, events, and the state of their avatar.

use std::collections::BTreeMap;

use bytes::BytesMut;
use prost::Message;
use shardkeep_link::ServerMessage;
use shardkeep_sim::{OwnState, Possessions, TradeSideView, TradeState, TradeView};
use shardkeep_types::{CharacterId, EntityId};
use shardkeep_wire::{
    movement::{Avatar, class},
    opcode,
    payload::{self, ErrorCode},
};

use crate::metrics;

/// How long a client waits before it repeats a request.
const RETRY_MS: u32 = 1_000;

/// The largest payload that fits into one record of the client protocol.
const MAX_PAYLOAD: usize = 60 << 10;
/// Items in one page of an inventory: at most 24 bytes each, so that a page is well below [`MAX_PAYLOAD`].
pub(crate) const INVENTORY_PAGE: usize = 1_024;

/// Messages of this tick by player, in order. Each tick empties it; links have separate bounds.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    reliable: BTreeMap<CharacterId, Vec<ServerMessage>>,
    state: BTreeMap<CharacterId, ServerMessage>,
}

impl Outbox {
    /// Queues a reply or an event. A message that exceeds the limit is logged and counted. A refusal replaces it if it is
    /// a reply, because its client waits.
    pub(crate) fn push(&mut self, to: CharacterId, message: ServerMessage) {
        let length = message.payload.len();
        if length <= MAX_PAYLOAD {
            self.reliable.entry(to).or_default().push(message);
            return;
        }
        let opcode = message.opcode;
        tracing::error!(character = %to, opcode, length, limit = MAX_PAYLOAD, "a message to a player is too large: it is not sent");
        metrics::message_too_large();
        if message.request != 0 {
            let refused = refusal(message.request, ErrorCode::Refused, "the answer is too large to be sent");
            self.reliable.entry(to).or_default().push(refused);
        }
    }

    /// Replaces the state message of a player.
    pub(crate) fn set_state(&mut self, to: CharacterId, message: ServerMessage) {
        self.state.insert(to, message);
    }

    /// Takes all messages. State follows in separate batches, because a full link may drop it.
    pub(crate) fn take(&mut self) -> Vec<(CharacterId, Vec<ServerMessage>)> {
        let state = std::mem::take(&mut self.state).into_iter().map(|(to, message)| (to, vec![message]));
        std::mem::take(&mut self.reliable).into_iter().chain(state).collect()
    }
}

pub(crate) fn refusal(request: u64, code: ErrorCode, detail: &str) -> ServerMessage {
    let retry_after_ms = if code == ErrorCode::Unavailable { RETRY_MS } else { 0 };
    let error = payload::Error { code: code.into(), detail: detail.to_owned(), retry_after_ms };
    ServerMessage::refusal(request, error.encode_to_vec())
}

/// The page of an inventory that begins with the item of this index.
pub(crate) fn inventory_page(own: &Possessions, first: usize) -> payload::Inventory {
    let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
    payload::Inventory {
        items: own.items.iter().skip(first).take(INVENTORY_PAGE).map(item).collect(),
        coins: own.coins,
        experience: own.experience,
        last_action: own.last_action,
        first: count(first),
        total: count(own.items.len()),
    }
}

/// Every page of an inventory; one empty page without items.
pub(crate) fn inventory_pages(own: &Possessions) -> impl Iterator<Item = payload::Inventory> {
    (0..own.items.len().max(1)).step_by(INVENTORY_PAGE).map(|first| inventory_page(own, first))
}

fn item(item: &shardkeep_sim::Item) -> payload::Item {
    payload::Item { id: item.id.0, template: item.template, count: item.count }
}

pub(crate) fn event(opcode: u16, payload: &impl Message) -> ServerMessage {
    ServerMessage::event(opcode, payload.encode_to_vec())
}

pub(crate) fn trade(view: &TradeView) -> payload::Trade {
    let side = |side: &TradeSideView| payload::TradeSide {
        items: side.items.iter().map(item).collect(),
        coins: side.coins,
        confirmed: side.confirmed,
    };
    let state = match view.state {
        TradeState::Invited => payload::TradeState::TradeInvited,
        TradeState::Open => payload::TradeState::TradeOpen,
        TradeState::Committing => payload::TradeState::TradeCommitting,
        TradeState::Done => payload::TradeState::TradeDone,
        TradeState::Cancelled => payload::TradeState::TradeCancelled,
    };
    payload::Trade {
        trade_id: view.trade,
        partner: EntityId::avatar(view.partner).0,
        partner_name: view.partner_name.to_string(),
        state: state.into(),
        own_side: Some(side(&view.own_side)),
        partner_side: Some(side(&view.partner_side)),
        revision: view.revision,
    }
}

pub(crate) fn own_state(state: &OwnState) -> ServerMessage {
    let health = |health: u32| u16::try_from(health).unwrap_or(u16::MAX);
    let avatar = Avatar {
        tick: state.tick,
        sequence: state.last_input,
        position: [state.position.x_mm, state.position.y_mm],
        velocity: state.velocity.into(),
        facing: state.facing,
        health: health(state.health),
        max_health: health(state.max_health),
    };
    let mut out = BytesMut::with_capacity(Avatar::LENGTH);
    avatar.encode(&mut out);
    ServerMessage::state(opcode::AVATAR, class::OWN, 0, out.freeze())
}

#[cfg(test)]
mod tests {
    use shardkeep_sim::Item;
    use shardkeep_types::ItemId;

    use super::*;

    fn possessions(stacks: u64) -> Possessions {
        let items =
            (0..stacks).map(|id| Item { id: ItemId(u64::MAX - id), template: u32::MAX, count: u32::MAX });
        Possessions { items: items.collect(), coins: i64::MAX, experience: u64::MAX, last_action: u64::MAX }
    }

    #[test]
    fn every_page_of_the_largest_inventory_fits_into_a_message() {
        let own = possessions(shardkeep_sim::rules::MAX_STACKS as u64);
        let pages: Vec<_> = inventory_pages(&own).collect();
        assert!(pages.iter().all(|page| page.encoded_len() <= MAX_PAYLOAD));
        let ids = pages.iter().flat_map(|page| &page.items).map(|item| item.id);
        assert!(ids.eq(own.items.iter().map(|item| item.id.0)));
        assert!(pages.iter().all(|page| page.total as usize == own.items.len()));
        assert_eq!(inventory_pages(&possessions(0)).count(), 1);
    }

    #[test]
    fn too_large_reply_becomes_a_refusal_and_too_large_event_is_dropped() {
        let (mut outbox, to) = (Outbox::default(), CharacterId(1));
        outbox.push(to, ServerMessage::reply(opcode::GET_INVENTORY, 7, vec![0; MAX_PAYLOAD + 1]));
        outbox.push(to, ServerMessage::event(opcode::INVENTORY_CHANGED, vec![0; MAX_PAYLOAD + 1]));
        outbox.push(to, ServerMessage::event(opcode::VITALS, vec![0; MAX_PAYLOAD]));
        let sent: Vec<_> =
            outbox.take().remove(0).1.iter().map(|message| (message.opcode, message.request)).collect();
        assert_eq!(sent, [(opcode::ERROR, 7), (opcode::VITALS, 0)]);
    }
}
