//! Events from gateways: sessions bound, lost, resumed and ended, groups watched, messages delivered.

use prost::Message;
use shardkeep_link::{
    ClientMessage, GatewayId, LinkEvent, MessageKind, ServerMessage, SessionChange, SessionEvent,
};
use shardkeep_sim::Input;
use shardkeep_types::{CharacterId, Epoch, GroupKey, SessionId};
use shardkeep_wire::{movement::Move, opcode, payload::ErrorCode};

use super::Space;
use crate::{
    domain::{
        bindings::Binding,
        effect::Effect,
        outbox,
        players::PlayerPhase,
        publish,
        requests::{PlayerRequest, decode, requester},
    },
    metrics,
};

impl Space {
    pub(super) fn handle_link_event(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Up { gateway, fresh } => {
                if fresh {
                    // The gateway announces all bindings again.
                    self.bindings.remove_if(|_, binding| binding.gateway == gateway);
                    self.forget_watches(&gateway);
                }
            }
            LinkEvent::Down { gateway } => self.gateway_down(&gateway),
            LinkEvent::Deliver { gateway, session, session_epoch, messages } => {
                self.deliver(&gateway, session, session_epoch, messages);
            }
            LinkEvent::Session { gateway, event } => self.session_event(&gateway, &event),
            LinkEvent::Watched { group, gateway } => {
                self.watchers.add(group, gateway);
                self.watch(group, true);
            }
            LinkEvent::Unwatched { group, gateway } => {
                if self.watchers.remove(group, &gateway) {
                    self.watch(group, false);
                }
            }
            LinkEvent::KeyframeWanted { group } => {
                if let Some((cell, ring)) = publish::cell_of(group, self.world) {
                    self.apply(Input::Keyframe { cell, ring });
                }
            }
            LinkEvent::Bound { gateway, session, session_epoch, bind_epoch, account, link_dead } => {
                let binding = Binding { gateway, account, session_epoch, bind_epoch, link_dead };
                if self.players.of_session(session).is_some() {
                    self.bound(session, &binding);
                } else {
                    self.bindings.insert(session, binding, self.now);
                }
            }
        }
    }

    pub(super) fn bound(&mut self, session: SessionId, binding: &Binding) {
        let Some(player) = self.attach(session, &binding.gateway, binding.session_epoch) else { return };
        player.link_dead = binding.link_dead;
        let character = player.character;
        self.players.request_resync(character, binding.bind_epoch);
        if binding.link_dead {
            self.apply(Input::Stop { character });
        }
    }

    fn session_event(&mut self, gateway: &GatewayId, event: &SessionEvent) {
        if event.kind == SessionChange::Left {
            self.bindings.remove_if(|session, _| session == event.session);
        }
        let Some(player) = self.attach(event.session, gateway, event.session_epoch) else { return };
        let character = player.character;
        match event.kind {
            SessionChange::Joined | SessionChange::Resumed => {
                player.link_dead = false;
                let epoch = player.epoch;
                self.players.request_resync(character, epoch);
            }
            SessionChange::LinkDead => {
                player.link_dead = true;
                self.apply(Input::Stop { character });
            }
            SessionChange::Left => self.begin_release(character, "the session is over"),
        }
    }

    fn gateway_down(&mut self, gateway: &GatewayId) {
        let now = self.now;
        let mut unbound = Vec::new();
        for player in self.players.iter_mut().filter(|player| player.gateway.as_ref() == Some(gateway)) {
            player.gateway = None;
            player.unbound_since = now;
            unbound.push(player.character);
        }
        unbound.into_iter().for_each(|character| self.apply(Input::Stop { character }));
        self.bindings.remove_if(|_, binding| binding.gateway == *gateway);
        self.forget_watches(gateway);
    }

    fn watch(&mut self, group: GroupKey, on: bool) {
        if let Some((cell, ring)) = publish::cell_of(group, self.world) {
            self.apply(Input::Watch { cell, ring, on });
        }
    }

    /// Ends the watches of a gateway that is down, or that announces all its watches again.
    fn forget_watches(&mut self, gateway: &GatewayId) {
        for group in self.watchers.remove_gateway(gateway) {
            self.watch(group, false);
        }
    }

    fn deliver(
        &mut self,
        gateway: &GatewayId,
        session: SessionId,
        session_epoch: Epoch,
        messages: Vec<ClientMessage>,
    ) {
        if self.players.of_session(session).is_none() {
            self.forward(session, messages);
            return;
        }
        let Some(player) = self.attach(session, gateway, session_epoch) else { return };
        match player.phase {
            PlayerPhase::HandingOver(_) => {
                // The avatar moves until the next zone has it. That zone answers the requests.
                let character = player.character;
                let (moves, requests) =
                    messages.into_iter().partition(|message| message.opcode == opcode::MOVE);
                player.hold(requests);
                for message in moves {
                    self.message(character, &message);
                }
            }
            PlayerPhase::Playing | PlayerPhase::Releasing { .. } => {
                let character = player.character;
                for message in messages {
                    self.message(character, &message);
                }
            }
        }
    }

    /// Forwards inputs of an avatar that was handed over.
    fn forward(&mut self, session: SessionId, messages: Vec<ClientMessage>) {
        if let Some(arrival) = self.arrivals.values_mut().find(|arrival| arrival.is_for(session)) {
            arrival.hold(messages);
        } else if let Some(handed_over) = self.handed_over.get_mut(&session) {
            let (to, settlement) = handed_over.forward(messages, None);
            self.effects.push(Effect::Settle { to, settlement });
        } else {
            for _ in messages {
                metrics::refused("unknown_session");
            }
        }
    }

    /// Handles one message of a player whose avatar is in this zone.
    pub(super) fn message(&mut self, character: CharacterId, message: &ClientMessage) {
        match decode(message) {
            Ok(PlayerRequest::Move(Move { sequence, velocity: [vx, vy], facing })) => {
                metrics::input("move");
                let velocity = (vx.into(), vy.into());
                self.apply(Input::Move { character, sequence, velocity, facing });
            }
            Ok(PlayerRequest::Inventory { first }) => {
                metrics::input("inventory");
                let reply = match self.sim.possessions(character) {
                    Some(own) => {
                        let page = outbox::inventory_page(own, first).encode_to_vec();
                        ServerMessage::reply(message.opcode, message.request, page)
                    }
                    None => {
                        outbox::refusal(message.request, ErrorCode::Unavailable, "the avatar is entering")
                    }
                };
                self.outbox.push(character, reply);
            }
            Ok(PlayerRequest::Act(act)) => {
                metrics::input("act");
                self.apply(Input::Act { requester: requester(character, message), act });
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
