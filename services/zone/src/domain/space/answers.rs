//! Turns events of the simulation into messages to players, and into work for other parts of the zone.

use prost::Message;
use shardkeep_link::ServerMessage;
use shardkeep_sim::{Event, Refusal, Reply};
use shardkeep_types::CharacterId;
use shardkeep_wire::{
    opcode,
    payload::{self, ErrorCode},
};

use super::Space;
use crate::{
    domain::{
        effect::Effect,
        outbox::{event, inventory_page, inventory_pages, own_state, refusal, trade},
        publish,
        requests::request_of,
    },
    metrics,
};

impl Space {
    pub(super) fn sim_event(&mut self, happened: Event) {
        match happened {
            Event::Cell(update) => self.publish(&update),
            Event::AvatarState { character, state } => {
                // A link-dead player gets it after the resume.
                if self.players.get(character).is_some_and(|player| !player.link_dead) {
                    self.outbox.set_state(character, own_state(&state));
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
                self.outbox
                    .push(character, event(opcode::VITALS, &payload::Vitals { health, max_health, died }));
            }
            Event::Died { character, killer, position } => self.record_death(character, killer, position),
            Event::Placed { character, .. } => self.send_position(character),
            Event::Trade { character, view } => {
                self.outbox.push(character, event(opcode::TRADE_CHANGED, &trade(&view)));
            }
            Event::Commit { number, change } => self.begin_commit(number, change),
            Event::Effect(effect) => self.border.effect(&effect),
            Event::EffectResult(result) => self.border.result(&result),
            Event::SpawnsLost(lost) => self.spawns_lost(lost),
            Event::ItemTaken { item, cell } => self.border.taken(item, cell, &self.table),
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
                inventory: self.sim.possessions(requester.character).map(|own| inventory_page(own, 0)),
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
        let Some(own) = self.sim.possessions(character) else { return };
        for page in inventory_pages(own) {
            self.outbox.push(character, event(opcode::INVENTORY_CHANGED, &page));
        }
    }

    fn send_position(&mut self, character: CharacterId) {
        if let Some(placed) = self.placed(character) {
            self.outbox.push(character, placed);
        }
    }

    fn placed(&self, character: CharacterId) -> Option<ServerMessage> {
        let (avatar, player) = (self.sim.avatar(character)?, self.players.get(character)?);
        let at = avatar.own.position;
        let placed = payload::Placed {
            zone: self.me.name.clone(),
            x_mm: at.x_mm,
            y_mm: at.y_mm,
            epoch: player.epoch.0,
            space: at.space.0,
            layer: at.layer.0.into(),
            z_mm: at.z_mm,
        };
        Some(event(opcode::PLACED, &placed))
    }

    /// Subscribes a player to the cells around the avatar.
    pub(super) fn subscribe_to_cells(&mut self, character: CharacterId) {
        let (Some(player), Some(avatar)) = (self.players.get(character), self.sim.avatar(character)) else {
            return;
        };
        let (Some(gateway), session) = (player.gateway.clone(), player.session) else { return };
        let (map, cell) = (self.sim.map(), avatar.own.position.cell());
        let groups = publish::view(self.world, cell, map.width, map.height);
        self.effects.push(Effect::Subscribe { gateway, session, groups });
    }

    /// Sends players whose session was bound or resumed everything that is not in groups, then declares them ready.
    pub(super) fn resync(&mut self) {
        for (character, bind_epoch) in self.players.take_resyncs() {
            let Some(avatar) = self.sim.avatar(character) else { continue };
            let vitals = payload::Vitals {
                health: avatar.own.health,
                max_health: avatar.own.max_health,
                died: avatar.own.health == 0,
            };
            let state = own_state(&avatar.own);
            let view = avatar.trade.and_then(|id| self.sim.trade_view(id, character));
            let Some(player) = self.players.get(character) else { continue };
            let (session, gateway) = (player.session, player.gateway.clone());
            // A client drops cells of other spaces than that of its last `Placed`, so `Placed` comes first.
            if let (Some(gateway), Some(placed)) = (gateway.clone(), self.placed(character)) {
                self.effects.push(Effect::Send { gateway, session, messages: vec![placed] });
            }
            self.subscribe_to_cells(character);
            self.send_inventory(character);
            self.outbox.push(character, event(opcode::VITALS, &vitals));
            if let Some(view) = view {
                self.outbox.push(character, event(opcode::TRADE_CHANGED, &trade(&view)));
            }
            self.outbox.set_state(character, state);
            if let Some(gateway) = gateway {
                self.effects.push(Effect::Ready { gateway, session, bind_epoch });
            }
        }
    }

    pub(super) fn flush(&mut self) {
        for (character, messages) in self.outbox.take() {
            let Some(player) = self.players.get(character) else { continue };
            if let Some(gateway) = player.gateway.clone() {
                self.effects.push(Effect::Send { gateway, session: player.session, messages });
            }
        }
    }
}
