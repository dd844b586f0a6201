//! What players hear from their zone beside cells: replies, events, and the state of the own avatar.

use std::collections::BTreeMap;

use bytes::BytesMut;
use prost::Message;
use shardkeep_link::ServerMessage;
use shardkeep_sim::{Event, OwnState, Possessions, Refusal, Reply, TradeSideView, TradeState, TradeView};
use shardkeep_types::{CharacterId, EntityId};
use shardkeep_wire::{
    movement::{Avatar, class},
    opcode,
    payload::{self, ErrorCode},
};

use crate::{metrics, publish, requests::request_of, shard::Shard};

/// What a client is told to wait before it asks again.
const RETRY_MS: u32 = 1_000;

/// Messages of this tick by player, in order. It is emptied every tick; links have their own bounds.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    reliable: BTreeMap<CharacterId, Vec<ServerMessage>>,
    state: BTreeMap<CharacterId, ServerMessage>,
}

impl Outbox {
    pub(crate) fn push(&mut self, to: CharacterId, message: ServerMessage) {
        self.reliable.entry(to).or_default().push(message);
    }
}

pub(crate) fn refusal(request: u64, code: ErrorCode, detail: &str) -> ServerMessage {
    let retry_after_ms = if code == ErrorCode::Unavailable { RETRY_MS } else { 0 };
    let error = payload::Error { code: code.into(), detail: detail.to_owned(), retry_after_ms };
    ServerMessage::refusal(request, error.encode_to_vec())
}

pub(crate) fn inventory(own: &Possessions) -> payload::Inventory {
    payload::Inventory {
        items: own.items.iter().map(item).collect(),
        coins: own.coins,
        experience: own.experience,
        last_action: own.last_action,
    }
}

fn item(item: &shardkeep_sim::Item) -> payload::Item {
    payload::Item { id: item.id.0, template: item.template, count: item.count }
}

fn event(opcode: u16, payload: &impl Message) -> ServerMessage {
    ServerMessage::event(opcode, payload.encode_to_vec())
}

fn trade(view: &TradeView) -> payload::Trade {
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

fn own_state(state: &OwnState) -> ServerMessage {
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

impl Shard {
    pub(crate) fn sim_event(&mut self, event: Event) {
        match event {
            Event::Cell(update) => self.publish(&update),
            Event::AvatarState { character, state } => {
                // Who is away gets it on coming back.
                if self.players.get(character).is_some_and(|player| !player.link_dead) {
                    self.outbox.state.insert(character, own_state(&state));
                }
            }
            Event::View { character, .. } => {
                self.presence.changed(character);
                self.subscribe_to_cells(character);
            }
            Event::Outside { character, cell } => self.begin_handover(character, cell),
            Event::Reply { requester, reply } => {
                let message = self.reply(requester, reply);
                self.outbox.push(requester.character, message);
            }
            Event::Possessions { character } => self.send_inventory(character),
            Event::Vitals { character, health, max_health, died } => {
                self.outbox.push(
                    character,
                    self::event(opcode::VITALS, &payload::Vitals { health, max_health, died }),
                );
            }
            Event::Placed { character, .. } => self.send_position(character),
            Event::Trade { character, view } => {
                if view.state == TradeState::Done {
                    let (trade, partner) = (view.trade, view.partner.0);
                    shardkeep_daemon::event!("trade", character = character.0, trade, partner);
                }
                self.outbox.push(character, self::event(opcode::TRADE_CHANGED, &trade(&view)));
            }
            Event::Commit { number, change } => self.begin_commit(number, change),
            Event::Effect(effect) => self.neighbours.effect(&effect, &self.sim, &self.table),
            Event::EffectResult(result) => self.neighbours.result(&result),
            Event::ItemTaken { item, cell } => self.neighbours.taken(item, cell, &self.table),
            Event::GroundStale { cell } => self.reload_ground(cell),
            Event::TooFast { .. } => metrics::refused("too_fast"),
        }
    }

    fn reply(&self, requester: shardkeep_sim::Requester, reply: Result<Reply, Refusal>) -> ServerMessage {
        let (opcode, request) = request_of(requester);
        let bytes = match reply {
            Ok(Reply::Attack { damage, killed }) => payload::AttackResult { damage, killed }.encode_to_vec(),
            Ok(Reply::Committed { action }) => payload::Committed {
                action_id: action,
                inventory: self.sim.possessions(requester.character).map(inventory),
            }
            .encode_to_vec(),
            Ok(Reply::Invited { trade }) => payload::TradeInvited { trade_id: trade }.encode_to_vec(),
            Ok(Reply::Trade(view)) => trade(&view).encode_to_vec(),
            Err(refusal) => return self.refuse(request, refusal),
        };
        ServerMessage::reply(opcode, request, bytes)
    }

    fn refuse(&self, request: u64, why: Refusal) -> ServerMessage {
        metrics::refused(why.label());
        let code = match why {
            Refusal::NotFound => ErrorCode::NotFound,
            Refusal::Refused(_) => ErrorCode::Refused,
            Refusal::Conflict => ErrorCode::ActionConflict,
            Refusal::Unavailable => ErrorCode::Unavailable,
        };
        refusal(request, code, &why.to_string())
    }

    fn send_inventory(&mut self, character: CharacterId) {
        if let Some(own) = self.sim.possessions(character) {
            self.outbox.push(character, event(opcode::INVENTORY_CHANGED, &inventory(own)));
        }
    }

    fn send_position(&mut self, character: CharacterId) {
        let (Some(avatar), Some(player)) = (self.sim.avatar(character), self.players.get(character)) else {
            return;
        };
        let placed = payload::Placed {
            zone: self.me.name.clone(),
            x_mm: avatar.own.position.x_mm,
            y_mm: avatar.own.position.y_mm,
            epoch: player.epoch.0,
        };
        self.outbox.push(character, event(opcode::PLACED, &placed));
    }

    /// Subscribes the player to the cells around the avatar.
    pub(crate) fn subscribe_to_cells(&self, character: CharacterId) {
        let (Some(player), Some(avatar)) = (self.players.get(character), self.sim.avatar(character)) else {
            return;
        };
        let Some(gateway) = &player.gateway else { return };
        let (map, cell) = (self.sim.map(), avatar.own.position.cell());
        let groups = publish::view(self.world, cell, map.width, map.height);
        self.hub.subscribe(gateway, player.session, &groups, true);
    }

    /// Players whose session was bound or came back: everything that is not in groups, then ready.
    pub(crate) fn resync(&mut self) {
        let due: Vec<_> =
            self.players.iter().filter(|player| player.resync.is_some()).map(|it| it.character).collect();
        for character in due {
            let Some(avatar) = self.sim.avatar(character) else { continue };
            let vitals = payload::Vitals {
                health: avatar.own.health,
                max_health: avatar.own.max_health,
                died: avatar.own.health == 0,
            };
            let state = own_state(&avatar.own);
            let view = avatar.trade.and_then(|id| self.sim.trade_view(id, character));
            let Some(player) = self.players.get_mut(character) else { continue };
            let Some(bind_epoch) = player.resync.take() else { continue };
            let (session, gateway) = (player.session, player.gateway.clone());
            self.subscribe_to_cells(character);
            self.send_position(character);
            self.send_inventory(character);
            self.outbox.push(character, event(opcode::VITALS, &vitals));
            if let Some(view) = view {
                self.outbox.push(character, event(opcode::TRADE_CHANGED, &trade(&view)));
            }
            self.outbox.state.insert(character, state);
            if let Some(gateway) = gateway {
                self.hub.ready(&gateway, session, bind_epoch);
            }
        }
    }

    /// Replies and events go apart from state, which a full link may drop.
    pub(crate) fn flush(&mut self) {
        let reliable = std::mem::take(&mut self.outbox.reliable);
        let state =
            std::mem::take(&mut self.outbox.state).into_iter().map(|(to, message)| (to, vec![message]));
        for (character, messages) in reliable.into_iter().chain(state) {
            let Some(player) = self.players.get(character) else { continue };
            if let Some(gateway) = &player.gateway {
                self.hub.send(gateway, &[player.session], messages);
            }
        }
    }
}
