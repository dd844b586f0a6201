//! For tests of the core: a leading world with two zones, and short methods for events in it.

use std::time::{Duration, Instant};

use prost::Message;
use shardkeep_link::ServerMessage;
use shardkeep_types::{AccountId, CellId, CharacterId, Epoch, Generation, SessionId, Term};
use shardkeep_wire::{
    opcode,
    payload::{Error, ErrorCode},
};

use crate::{
    config::WorldConfig,
    core::{Core, MEADOW},
    directory::SessionActivity,
    effect::{Effect, Placement, Work},
    leadership::LeaseAnswer,
    partition::{Health, Owner, ZoneView},
    presence::Avatar,
    sessions::{PresentedSession, SessionError},
};

pub(crate) const TTL: Duration = Duration::from_secs(3600);

pub(crate) struct Game {
    pub(crate) core: Core,
    pub(crate) now: Instant,
}

impl Game {
    /// Zones `a` and `b` share the meadow, which has room for `capacity` avatars.
    pub(crate) fn new(capacity: u32) -> Self {
        let now = Instant::now();
        let mut core = Core::new(WorldConfig { capacity, ..WorldConfig::default() });
        core.zones_changed(now, vec![zone_view("a", 1, Health::Up), zone_view("b", 1, Health::Up)]);
        let mut game = Self { core, now };
        game.lead(1);
        game.effects();
        game
    }

    pub(crate) fn lead(&mut self, term: u64) {
        let answer = LeaseAnswer { leader: true, term: Term(term), holder: "me".into() };
        self.core.apply_lease_answer(self.now, self.now, TTL, &answer);
    }

    pub(crate) fn advance(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        self.core.tick(self.now);
    }

    /// Opens a session; session id and account are `number`.
    pub(crate) fn open(&mut self, number: u8) -> SessionId {
        self.present(number, number, 0, 1, &SessionActivity::default()).unwrap();
        session(number)
    }

    pub(crate) fn present(
        &mut self,
        id: u8,
        account: u8,
        epoch: u64,
        generation: u64,
        activity: &SessionActivity,
    ) -> Result<Epoch, SessionError> {
        let presented = PresentedSession {
            session: session(id),
            epoch: Epoch(epoch),
            account: AccountId(account.into()),
            account_name: format!("account{account}"),
            generation: Generation(generation),
            gateway: "gate".into(),
            key: vec![id; 32].into(),
        };
        self.core.open_session(self.now, presented, activity)
    }

    /// The session enters with the character of the same number, and its zone admits it.
    pub(crate) fn enter(&mut self, id: SessionId) -> Vec<Effect> {
        self.core.enter(self.now, id, 77, character(id));
        let placement = placements(&self.effects()).remove(0);
        self.admit(&placement, "a", 1)
    }

    pub(crate) fn admit(&mut self, placement: &Placement, zone: &str, epoch: u64) -> Vec<Effect> {
        let avatar = avatar(placement.session, zone, epoch);
        self.core.placed(self.now, placement, Ok(avatar));
        self.effects()
    }

    pub(crate) fn effects(&mut self) -> Vec<Effect> {
        self.core.take_effects()
    }
}

pub(crate) fn session(number: u8) -> SessionId {
    SessionId([number; 16])
}

pub(crate) fn character(session: SessionId) -> CharacterId {
    CharacterId(100 + u64::from(session.0[0]))
}

pub(crate) fn avatar(session: SessionId, zone: &str, epoch: u64) -> Avatar {
    Avatar {
        character: character(session),
        name: format!("Hero{}", session.0[0]),
        session,
        account: AccountId(session.0[0].into()),
        cell: CellId { map: MEADOW, x: 15, y: 16 },
        zone: owner(zone, 1),
        epoch: Epoch(epoch),
    }
}

pub(crate) fn owner(name: &str, incarnation: u64) -> Owner {
    Owner { name: name.into(), incarnation }
}

pub(crate) fn zone_view(name: &str, incarnation: u64, health: Health) -> ZoneView {
    ZoneView { owner: owner(name, incarnation), health, grpc_address: format!("{name}:1") }
}

pub(crate) fn placements(effects: &[Effect]) -> Vec<Placement> {
    let placement = |effect: &Effect| match effect {
        Effect::Start(Work::PlaceAvatar(placement)) => Some(placement.clone()),
        _ => None,
    };
    effects.iter().filter_map(placement).collect()
}

pub(crate) fn release_character(effects: &[Effect]) -> Vec<(CharacterId, SessionId)> {
    let release_character = |effect: &Effect| match effect {
        Effect::Start(Work::ReleaseCharacter { character, session, .. }) => Some((*character, *session)),
        _ => None,
    };
    effects.iter().filter_map(release_character).collect()
}

pub(crate) fn binds(effects: &[Effect]) -> Vec<(SessionId, String, u64)> {
    let bind = |effect: &Effect| match effect {
        Effect::Bind { session, zone, epoch, .. } => Some((*session, zone.clone(), epoch.0)),
        _ => None,
    };
    effects.iter().filter_map(bind).collect()
}

/// The messages to one session, in order.
pub(crate) fn sent(effects: &[Effect], to: SessionId) -> Vec<ServerMessage> {
    let sent = |effect: &Effect| match effect {
        Effect::Send { session, message, .. } if *session == to => Some(message.clone()),
        _ => None,
    };
    effects.iter().filter_map(sent).collect()
}

pub(crate) fn error_code(message: &ServerMessage) -> ErrorCode {
    assert_eq!(message.opcode, opcode::ERROR, "{message:?}");
    Error::decode(&*message.payload).unwrap().code()
}
