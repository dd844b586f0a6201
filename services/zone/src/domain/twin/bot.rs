//! A player of the twin: it walks across the border, drops items and picks them up, and repeats an action until it is
//! answered.

use bytes::BytesMut;
use prost::Message;
use shardkeep_link::{ClientMessage, MessageKind, ServerMessage};
use shardkeep_types::{EntityId, ItemId, Random, SpaceId, SpawnId};
use shardkeep_wire::{
    movement::{Avatar, Move},
    opcode,
    payload::{Attack, Drop, Error, ErrorCode, PickUp},
};

/// After this time without an answer the bot repeats an action.
const REPEAT_US: u64 = 1_000_000;

#[derive(Debug)]
struct Pending {
    action: u64,
    opcode: u16,
    payload: Vec<u8>,
    request: u64,
    asked_us: u64,
    sent_us: u64,
}

#[derive(Debug)]
pub(super) struct Bot {
    random: Random,
    sequence: u32,
    requests: u64,
    actions: u64,
    pending: Option<Pending>,
    /// When the last own state came that said that the avatar moves.
    moving_since: Option<u64>,
    /// The last message stopped the avatar.
    stopped: bool,
}

/// The meaning of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Acknowledged {
        action: u64,
        asked_us: u64,
    },
    /// The next position of an avatar that moves.
    Moved {
        after_us: u64,
    },
    Nothing,
}

impl Bot {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            random: Random::new(seed),
            sequence: 0,
            requests: 0,
            actions: 0,
            pending: None,
            moving_since: None,
            stopped: false,
        }
    }

    /// Since when an action waits for its answer.
    pub(super) fn waits_since(&self) -> Option<u64> {
        self.pending.as_ref().map(|pending| pending.asked_us)
    }

    /// The messages of a step. `quiet`: the bot stops and begins nothing new.
    pub(super) fn act(
        &mut self,
        now_us: u64,
        held: &[ItemId],
        ground: &[ItemId],
        quiet: bool,
    ) -> Vec<ClientMessage> {
        let mut messages = Vec::new();
        if quiet && !self.stopped {
            self.stopped = true;
            messages.push(self.walk(0));
        } else if !quiet && self.random.within(1, 25) == 1 {
            let back = self.random.within(0, 1) == 0;
            let speed = self.random.between(1_000, 6_000) as i16;
            let speed = if back { -speed } else { speed };
            messages.push(self.walk(speed));
        }
        if !quiet && self.random.within(1, 2) == 1 {
            messages.push(self.attack());
        }
        if self.pending.is_none() && !quiet && self.random.within(1, 3) == 1 {
            self.begin_action(now_us, held, ground);
        }
        self.requests += 1;
        let request = self.requests;
        if let Some(pending) = &mut self.pending
            && (pending.request == 0 || now_us >= pending.sent_us + REPEAT_US)
        {
            (pending.request, pending.sent_us) = (request, now_us);
            let payload = pending.payload.clone().into();
            messages.push(ClientMessage {
                opcode: pending.opcode,
                kind: MessageKind::Request,
                request,
                payload,
            });
        }
        messages
    }

    fn walk(&mut self, speed: i16) -> ClientMessage {
        self.sequence += 1;
        let velocity = [speed, 0];
        let mut payload = BytesMut::new();
        Move { sequence: self.sequence, velocity, facing: 0 }.encode(&mut payload);
        ClientMessage {
            opcode: opcode::MOVE,
            kind: MessageKind::State,
            request: 0,
            payload: payload.freeze(),
        }
    }

    /// Most creatures are out of reach, so most attacks are refused.
    fn attack(&mut self) -> ClientMessage {
        self.requests += 1;
        let spawn = SpawnId { space: SpaceId::FIRST, number: self.random.within(0, 3) };
        let attack = Attack { target: EntityId::creature(spawn).0 };
        let (opcode, kind) = (opcode::ATTACK, MessageKind::Request);
        ClientMessage { opcode, kind, request: self.requests, payload: attack.encode_to_vec().into() }
    }

    fn begin_action(&mut self, now_us: u64, held: &[ItemId], ground: &[ItemId]) {
        let drops = ground.is_empty() || (!held.is_empty() && self.random.within(0, 1) == 0);
        let choices = if drops { held } else { ground };
        if choices.is_empty() {
            return;
        }
        let item = choices[self.random.within(0, choices.len() as u32 - 1) as usize];
        self.actions += 1;
        let action_id = self.actions;
        let (opcode, payload) = if drops {
            (opcode::DROP, Drop { action_id, item_id: item.0 }.encode_to_vec())
        } else {
            let entity_id = EntityId::ground_item(item).0;
            (opcode::PICK_UP, PickUp { action_id, entity_id }.encode_to_vec())
        };
        let (action, asked_us) = (action_id, now_us);
        self.pending = Some(Pending { action, opcode, payload, request: 0, asked_us, sent_us: now_us });
    }

    pub(super) fn hear(&mut self, now_us: u64, message: &ServerMessage) -> Heard {
        if message.opcode == opcode::AVATAR {
            let Ok(avatar) = Avatar::decode(&message.payload) else { return Heard::Nothing };
            let moves = avatar.velocity != [0, 0];
            let before = std::mem::replace(&mut self.moving_since, moves.then_some(now_us));
            return before.map_or(Heard::Nothing, |since| Heard::Moved { after_us: now_us - since });
        }
        if message.kind != MessageKind::Reply {
            return Heard::Nothing;
        }
        let Some(pending) = self.pending.as_ref().filter(|pending| pending.request == message.request) else {
            return Heard::Nothing;
        };
        let (action, asked_us) = (pending.action, pending.asked_us);
        if message.opcode == pending.opcode {
            self.pending = None;
            return Heard::Acknowledged { action, asked_us };
        }
        let unavailable = Error::decode(&*message.payload)
            .is_ok_and(|error| error.code == i32::from(ErrorCode::Unavailable));
        if !unavailable {
            self.pending = None;
        }
        Heard::Nothing
    }
}
