//! The chat of one world in one replica. It has no clock and no socket: events come in, and [`Effect`]s come out in
//! order.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use prost::Message;
use shardkeep_link::{ClientMessage, GatewayId, MessageKind, ServerMessage};
use shardkeep_names::{fold, is_plain_line};
use shardkeep_rpc::world::PresenceReport;
use shardkeep_types::{AccountId, CharacterId, Epoch, SessionId};
use shardkeep_wire::{
    limit::TokenBucket,
    opcode,
    payload::{Channel, ChatMessage, Speak, Spoken},
};

use crate::{
    avatars::{Avatar, AvatarIndex},
    config::ChatConfig,
    envelope::{ChatEvent, Envelope, Line, Mute, MuteList},
    history::History,
    mutes::{Mutes, TooManyMutes},
    refusal::Refusal,
    replica_sequences::ReplicaSequences,
};

/// Longest line, in characters.
const MAX_TEXT_CHARS: usize = 255;

/// The current time, on the monotonic clock and on the wall clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    pub(crate) at: Instant,
    /// Milliseconds since the Unix epoch.
    pub(crate) wall_ms: u64,
}

/// An effect to carry out, in order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Effect {
    Send {
        gateway: GatewayId,
        sessions: Vec<SessionId>,
        message: ServerMessage,
    },
    /// Adds a session to the group of the world channel, or removes it.
    Subscribe {
        gateway: GatewayId,
        session: SessionId,
    },
    Unsubscribe {
        gateway: GatewayId,
        session: SessionId,
    },
    /// Sends to the group of the world channel.
    Broadcast(ServerMessage),
    /// Sends to the other replicas.
    Publish(Envelope),
    /// Logs a line for moderators.
    ChatEvent {
        line: Line,
        account: AccountId,
        session: SessionId,
    },
    Refused(Refusal),
}

/// A session that is bound to this replica.
struct Binding {
    gateway: GatewayId,
    epoch: Epoch,
    bucket: TokenBucket,
}

pub(crate) struct Room {
    name: String,
    incarnation: u64,
    sequence: u64,
    /// Lines per second, and lines at once.
    rate: u32,
    burst: u32,
    pub(crate) avatars: AvatarIndex,
    pub(crate) mutes: Mutes,
    pub(crate) history: History,
    bindings: HashMap<SessionId, Binding>,
    replica_sequences: ReplicaSequences,
    effects: Vec<Effect>,
}

impl Room {
    /// `name` and `incarnation` identify this replica.
    pub(crate) fn new(name: String, incarnation: u64, config: &ChatConfig) -> Self {
        Self {
            name,
            incarnation,
            sequence: 0,
            rate: config.rate,
            burst: config.burst,
            avatars: AvatarIndex::default(),
            mutes: Mutes::default(),
            history: History::new(config.history),
            bindings: HashMap::new(),
            replica_sequences: ReplicaSequences::default(),
            effects: Vec::new(),
        }
    }

    pub(crate) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    pub(crate) fn sessions(&self) -> usize {
        self.bindings.len()
    }

    /// A gateway binds a session to this replica, or repeats that it is bound.
    pub(crate) fn joined(&mut self, gateway: &GatewayId, session: SessionId, epoch: Epoch) {
        let binding = self.bindings.entry(session).or_insert_with(|| Binding {
            gateway: gateway.clone(),
            epoch,
            bucket: TokenBucket::default(),
        });
        if epoch < binding.epoch {
            return;
        }
        (binding.gateway, binding.epoch) = (gateway.clone(), epoch);
        if self.avatars.of_session(session).is_some() {
            self.effects.push(Effect::Subscribe { gateway: gateway.clone(), session });
        }
    }

    pub(crate) fn left(&mut self, gateway: &GatewayId, session: SessionId) {
        if self.bindings.get(&session).is_some_and(|binding| binding.gateway == *gateway) {
            self.bindings.remove(&session);
        }
    }

    /// The link to a gateway is lost. A living gateway binds its sessions again.
    pub(crate) fn gateway_lost(&mut self, gateway: &GatewayId) {
        self.bindings.retain(|_, binding| binding.gateway != *gateway);
    }

    /// Applies a report of the world about avatars that entered, moved or left.
    pub(crate) fn presence(&mut self, report: PresenceReport) {
        let changes = self.avatars.report(report);
        for session in changes.entered {
            if let Some(binding) = self.bindings.get(&session) {
                self.effects.push(Effect::Subscribe { gateway: binding.gateway.clone(), session });
            }
        }
        for session in changes.left {
            if let Some(binding) = self.bindings.get(&session) {
                self.effects.push(Effect::Unsubscribe { gateway: binding.gateway.clone(), session });
            }
        }
    }

    /// Handles messages of a client. The gateway that delivers them holds the session, even if its binding has not
    /// come yet.
    pub(crate) fn delivered(
        &mut self,
        now: Now,
        gateway: &GatewayId,
        session: SessionId,
        epoch: Epoch,
        messages: &[ClientMessage],
    ) {
        if self
            .bindings
            .get(&session)
            .is_none_or(|binding| binding.gateway != *gateway || binding.epoch != epoch)
        {
            self.joined(gateway, session, epoch);
        }
        for message in messages.iter().filter(|message| message.kind == MessageKind::Request) {
            let reply = match self.speak(now, session, message) {
                Ok(()) => ServerMessage::reply(opcode::SPEAK, message.request, Spoken {}.encode_to_vec()),
                Err(refusal) => {
                    let reply = refusal.reply(message.request);
                    self.effects.push(Effect::Refused(refusal));
                    reply
                }
            };
            self.effects.push(Effect::Send {
                gateway: gateway.clone(),
                sessions: vec![session],
                message: reply,
            });
        }
    }

    fn speak(&mut self, now: Now, session: SessionId, message: &ClientMessage) -> Result<(), Refusal> {
        if message.opcode != opcode::SPEAK {
            return Err(Refusal::UnknownRequest);
        }
        let request = Speak::decode(&*message.payload).map_err(|_| Refusal::Malformed)?;
        let speaker = self.avatars.of_session(session).ok_or(Refusal::NotInWorld)?;
        if let Some(until) = self.mutes.until(&speaker.name, now.wall_ms) {
            return Err(Refusal::Muted { left: Duration::from_millis(until - now.wall_ms) });
        }
        let (line, account) = (self.line(now, speaker, &request)?, speaker.account);
        let binding = self.bindings.get_mut(&session).ok_or(Refusal::NotInWorld)?;
        binding.bucket.take(self.rate, self.burst, now.at).map_err(|wait| Refusal::TooFast { wait })?;
        self.deliver(&line);
        self.publish(ChatEvent::Line(line.clone()));
        self.history.push(line.clone());
        self.effects.push(Effect::ChatEvent { line, account, session });
        Ok(())
    }

    /// Checks the request and builds the line.
    fn line(&self, now: Now, speaker: &Avatar, request: &Speak) -> Result<Line, Refusal> {
        let length = request.text.chars().take(MAX_TEXT_CHARS + 1).count();
        if length > MAX_TEXT_CHARS || request.text.trim().is_empty() || !is_plain_line(&request.text) {
            return Err(Refusal::InvalidText);
        }
        let recipient = match request.channel() {
            Channel::Unspecified => return Err(Refusal::Channel),
            Channel::Whisper => Some(self.avatars.named(&request.to).ok_or(Refusal::RecipientNotFound)?),
            Channel::Say | Channel::Zone | Channel::World => None,
        };
        Ok(Line {
            channel: request.channel,
            from: speaker.name.clone(),
            from_character: speaker.character.0,
            text: request.text.clone(),
            at_ms: now.wall_ms,
            space: speaker.cell.space.0,
            cell_x: speaker.cell.x.into(),
            cell_y: speaker.cell.y.into(),
            zone: speaker.zone.clone(),
            to: recipient.map(|recipient| recipient.name.clone()).unwrap_or_default(),
            to_character: recipient.map_or(0, |recipient| recipient.character.0),
        })
    }

    /// Sends the line to its recipients that are bound to this replica.
    fn deliver(&mut self, line: &Line) {
        let received = ChatMessage {
            channel: line.channel,
            from: line.from.clone(),
            from_character: line.from_character,
            text: line.text.clone(),
            at_ms: line.at_ms,
        };
        let message = ServerMessage::event(opcode::CHAT_MESSAGE, received.encode_to_vec());
        let recipients: Vec<SessionId> = match Channel::try_from(line.channel).unwrap_or_default() {
            Channel::World => return self.effects.push(Effect::Broadcast(message)),
            Channel::Say => line.cell().map(|cell| self.avatars.near(cell).collect()).unwrap_or_default(),
            Channel::Zone => self.avatars.in_zone(&line.zone).collect(),
            Channel::Whisper => {
                let recipient = self.avatars.with_character(CharacterId(line.to_character));
                recipient.map(|recipient| recipient.session).into_iter().collect()
            }
            Channel::Unspecified => Vec::new(),
        };
        let mut by_gateway: BTreeMap<GatewayId, Vec<SessionId>> = BTreeMap::new();
        for session in recipients {
            if let Some(binding) = self.bindings.get(&session) {
                by_gateway.entry(binding.gateway.clone()).or_default().push(session);
            }
        }
        for (gateway, sessions) in by_gateway {
            self.effects.push(Effect::Send { gateway, sessions, message: message.clone() });
        }
    }

    fn publish(&mut self, event: ChatEvent) {
        self.sequence += 1;
        self.effects.push(Effect::Publish(Envelope {
            origin: self.name.clone(),
            incarnation: self.incarnation,
            sequence: self.sequence,
            event: Some(event),
        }));
    }

    /// Handles a message from the bus. This replica's own messages come back too, and a reconnection repeats some.
    pub(crate) fn received(&mut self, now: Now, envelope: Envelope) {
        let Envelope { origin, incarnation, sequence, event } = envelope;
        if origin == self.name || !self.replica_sequences.is_new(now.at, &origin, incarnation, sequence) {
            return;
        }
        match event {
            Some(ChatEvent::Line(line)) => {
                self.deliver(&line);
                self.history.push(line);
            }
            Some(ChatEvent::Mutes(list)) => {
                for mute in list.mutes {
                    if let Err(error) = self.mutes.set(mute, now.wall_ms) {
                        tracing::warn!(%error, "a mute of another replica is not known here");
                    }
                }
            }
            None => {}
        }
    }

    /// Applies a mute of an operator and sends it to the other replicas.
    pub(crate) fn mute(&mut self, now: Now, mut mute: Mute) -> Result<(), TooManyMutes> {
        mute.name = fold(&mute.name);
        self.mutes.set(mute.clone(), now.wall_ms)?;
        self.publish(ChatEvent::Mutes(MuteList { mutes: vec![mute] }));
        Ok(())
    }

    /// Publishes all mutes. Called again and again, for replicas that started later or were disconnected.
    pub(crate) fn publish_mutes(&mut self, now: Now) {
        let mutes = self.mutes.all(now.wall_ms);
        if !mutes.is_empty() {
            self.publish(ChatEvent::Mutes(MuteList { mutes }));
        }
    }
}

#[cfg(test)]
mod tests {
    use shardkeep_wire::payload::{Error, ErrorCode};

    use super::*;
    use crate::avatars::tests::{present, report};

    struct Game {
        room: Room,
        now: Now,
    }

    impl Game {
        /// Hero1 and Hero2 are in one cell of zone a, Hero3 is far away in zone a, and Hero4 is next to the first
        /// two in zone b.
        fn new(name: &str) -> Self {
            let mut room = Room::new(name.into(), 1, &ChatConfig::default());
            let now = Now { at: Instant::now(), wall_ms: 1_000 };
            let avatars = vec![
                present(1, 15, 5, "a"),
                present(2, 15, 5, "a"),
                present(3, 1, 1, "a"),
                present(4, 16, 5, "b"),
            ];
            room.presence(report(true, avatars, vec![]));
            Self { room, now }
        }

        fn binding(mut self, numbers: &[u8]) -> Self {
            for &number in numbers {
                self.room.joined(&"gate".into(), session(number), Epoch(1));
            }
            self.room.take_effects();
            self
        }

        fn speak(&mut self, number: u8, channel: Channel, text: &str, to: &str) -> Vec<Effect> {
            let request = Speak { channel: channel.into(), text: text.into(), to: to.into() };
            let message = ClientMessage {
                opcode: opcode::SPEAK,
                kind: MessageKind::Request,
                request: 7,
                payload: request.encode_to_vec().into(),
            };
            self.room.delivered(self.now, &"gate".into(), session(number), Epoch(1), &[message]);
            self.room.take_effects()
        }
    }

    fn session(number: u8) -> SessionId {
        SessionId([number; 16])
    }

    fn recipients(effects: &[Effect]) -> Vec<u8> {
        let received = |effect: &Effect| match effect {
            Effect::Send { sessions, message, .. } if message.opcode == opcode::CHAT_MESSAGE => {
                Some(sessions.clone())
            }
            _ => None,
        };
        let mut recipients: Vec<u8> =
            effects.iter().filter_map(received).flatten().map(|session| session.0[0]).collect();
        recipients.sort_unstable();
        recipients
    }

    fn refusal(effects: &[Effect]) -> Option<ErrorCode> {
        let refused = |effect: &Effect| match effect {
            Effect::Send { message, .. } if message.opcode == opcode::ERROR => {
                Some(Error::decode(&*message.payload).unwrap().code())
            }
            _ => None,
        };
        effects.iter().find_map(refused)
    }

    fn published(effects: &[Effect]) -> Envelope {
        let published = |effect: &Effect| match effect {
            Effect::Publish(envelope) => Some(envelope.clone()),
            _ => None,
        };
        effects.iter().find_map(published).unwrap()
    }

    #[test]
    fn each_channel_reaches_its_recipients() {
        let mut game = Game::new("me").binding(&[1, 2, 3, 4]);
        assert_eq!(recipients(&game.speak(1, Channel::Say, "hi", "")), [1, 2, 4], "over the border too");
        assert_eq!(recipients(&game.speak(1, Channel::Zone, "hi", "")), [1, 2, 3]);
        assert_eq!(recipients(&game.speak(1, Channel::Whisper, "hi", "hERO3")), [3]);
        let world = game.speak(1, Channel::World, "hi", "");
        assert!(world.iter().any(|effect| matches!(effect, Effect::Broadcast(_))));
        assert!(recipients(&world).is_empty());
        assert_eq!(game.room.history.last(9).count(), 4);
    }

    #[test]
    fn lines_reach_other_replicas_and_repeats_are_dropped() {
        let (mut here, mut there) = (Game::new("here").binding(&[1]), Game::new("there").binding(&[2, 3]));
        let effects = here.speak(1, Channel::Say, "hi", "");
        assert_eq!(recipients(&effects), [1]);
        let envelope = published(&effects);
        let envelope = Envelope::decode(&*envelope.encode_to_vec()).unwrap();
        there.room.received(there.now, envelope.clone());
        assert_eq!(recipients(&there.room.take_effects()), [2]);
        there.room.received(there.now, envelope.clone());
        here.room.received(here.now, envelope);
        assert!(there.room.take_effects().is_empty() && here.room.take_effects().is_empty());
    }

    #[test]
    fn invalid_lines_and_speakers_not_in_world_are_refused() {
        let mut game = Game::new("me").binding(&[1, 9]);
        let long = "x".repeat(256);
        for text in ["", " ", "a\nb", "a\u{7}", "\u{202e}gnp.exe", "\u{2066}a\u{2069}", long.as_str()] {
            assert_eq!(refusal(&game.speak(1, Channel::Say, text, "")), Some(ErrorCode::Refused), "{text:?}");
        }
        assert_eq!(refusal(&game.speak(1, Channel::Unspecified, "hi", "")), Some(ErrorCode::Refused));
        assert_eq!(refusal(&game.speak(9, Channel::World, "hi", "")), Some(ErrorCode::Refused));
        assert_eq!(refusal(&game.speak(1, Channel::Whisper, "hi", "Nobody")), Some(ErrorCode::NotFound));
        assert_eq!(refusal(&game.speak(1, Channel::Say, &"ü".repeat(255), "")), None);
        assert_eq!(game.room.history.last(9).count(), 1);
    }

    #[test]
    fn flood_is_refused_and_mute_applies_on_every_replica() {
        let (mut here, mut there) = (Game::new("here").binding(&[1]), Game::new("there").binding(&[1]));
        let codes: Vec<_> = (0..9).map(|_| refusal(&here.speak(1, Channel::Say, "spam", ""))).collect();
        assert_eq!((codes[7], codes[8]), (None, Some(ErrorCode::TooFast)));
        let mute = Mute { name: "HERO1".into(), until_ms: 5_000, issued_ms: here.now.wall_ms };
        here.room.mute(here.now, mute).unwrap();
        here.room.publish_mutes(here.now);
        for effect in here.room.take_effects() {
            there.room.received(there.now, published(&[effect]));
        }
        assert_eq!(refusal(&there.speak(1, Channel::Say, "hi", "")), Some(ErrorCode::Refused));
        there.now.wall_ms = 5_000;
        assert_eq!(refusal(&there.speak(1, Channel::Say, "hi", "")), None);
    }

    #[test]
    fn bound_sessions_in_the_world_join_the_world_group() {
        let mut game = Game::new("me");
        let gate: GatewayId = "gate".into();
        game.room.joined(&gate, session(1), Epoch(1));
        game.room.joined(&gate, session(9), Epoch(1));
        let join = |number| Effect::Subscribe { gateway: gate.clone(), session: session(number) };
        assert_eq!(game.room.take_effects(), [join(1)]);
        game.room.presence(report(false, vec![present(9, 1, 1, "a")], vec![1]));
        assert_eq!(
            game.room.take_effects(),
            [join(9), Effect::Unsubscribe { gateway: gate.clone(), session: session(1) }]
        );
    }

    #[test]
    fn session_moved_to_new_gateway_survives_loss_of_the_old() {
        let mut game = Game::new("me").binding(&[1, 2]);
        game.room.joined(&"other".into(), session(2), Epoch(2));
        game.room.left(&"gate".into(), session(2));
        game.room.gateway_lost(&"gate".into());
        assert_eq!(game.room.sessions(), 1);
        game.room.take_effects();
        let effects = game.speak(1, Channel::Say, "hi", "");
        assert_eq!(recipients(&effects), [1, 2], "the speaker took its seat again by speaking");
    }
}
