//! Tests of the parts together: a leading world with two zones, and short methods for events in it.

mod entry;
mod layout;
mod reconcile;

use prost::Message;
use shardkeep_types::{AccountId, CellId, Generation, SpaceId};
use shardkeep_wire::payload::Error;

use super::*;
use crate::domain::zone::{
    Health,
    fixture::{owner, zone},
};

const TTL: Duration = Duration::from_secs(3600);

struct Game {
    app: App,
    now: Instant,
    /// The layout in the database.
    stored: Option<Layout>,
}

impl Game {
    /// Zones `a` and `b` share the meadow, which has room for `capacity` avatars.
    fn new(capacity: u32) -> Self {
        let now = Instant::now();
        let mut app = App::new(WorldConfig { capacity, ..WorldConfig::default() });
        app.zones_changed(now, vec![zone("a", 1, Health::Up), zone("b", 1, Health::Up)]);
        let mut game = Self { app, now, stored: None };
        game.lead(1);
        game.effects();
        game
    }

    fn lead(&mut self, term: u64) {
        self.app.lease_reply(self.now, self.now, TTL, LeaseAnswer::Granted(Term(term)));
    }

    fn advance(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        self.app.tick(self.now);
    }

    /// Opens a session; session id and account are `number`.
    fn open(&mut self, number: u8) -> SessionId {
        self.present(number, number, 0, 1, SessionActivity::Unknown).unwrap();
        session(number)
    }

    fn present(
        &mut self,
        id: u8,
        account: u8,
        epoch: u64,
        generation: u64,
        activity: SessionActivity,
    ) -> Result<Epoch, SessionError> {
        let presented = Session::presented(
            Epoch(epoch),
            AccountId(account.into()),
            format!("account{account}"),
            Generation(generation),
            "gate".into(),
            vec![id; 32].into(),
        );
        self.app.open_session(self.now, session(id), presented, activity)
    }

    /// The session enters with the character of the same number, and its zone admits it.
    fn enter(&mut self, id: SessionId) -> Vec<Effect> {
        self.app.enter(self.now, id, 77, character(id));
        let placement = placements(&self.effects()).remove(0);
        self.admit(&placement, "a", 1)
    }

    fn admit(&mut self, placement: &Placement, zone: &str, epoch: u64) -> Vec<Effect> {
        let avatar = avatar(placement.session(), zone, epoch);
        self.app.placed(self.now, placement, Ok(avatar));
        self.effects()
    }

    /// The effects so far. The database loads and stores the layout at once.
    fn effects(&mut self) -> Vec<Effect> {
        let mut rest = Vec::new();
        loop {
            let effects = self.app.take_effects();
            if effects.is_empty() {
                return rest;
            }
            for effect in effects {
                match effect {
                    Effect::Start(Work::LoadLayout { term }) => {
                        self.app.layout_loaded(self.now, term, self.stored.clone());
                    }
                    Effect::Start(Work::StoreLayout { term, change }) => {
                        self.app.layout_stored(term, change.revision + 1);
                        self.stored = self.app.zones.partition().map(|partition| partition.layout().clone());
                    }
                    effect => rest.push(effect),
                }
            }
        }
    }
}

fn session(number: u8) -> SessionId {
    SessionId([number; 16])
}

fn character(session: SessionId) -> CharacterId {
    CharacterId(100 + u64::from(session.0[0]))
}

fn avatar(session: SessionId, at: &str, epoch: u64) -> Avatar {
    Avatar::new(
        character(session),
        format!("Hero{}", session.0[0]),
        session,
        AccountId(session.0[0].into()),
        CellId { space: SpaceId::FIRST, x: 15, y: 16 },
        owner(at, 1),
        Epoch(epoch),
    )
}

fn placements(effects: &[Effect]) -> Vec<Placement> {
    let placement = |effect: &Effect| match effect {
        Effect::Start(Work::PlaceAvatar(placement)) => Some(placement.clone()),
        _ => None,
    };
    effects.iter().filter_map(placement).collect()
}

fn release_character(effects: &[Effect]) -> Vec<(CharacterId, SessionId)> {
    let release_character = |effect: &Effect| match effect {
        Effect::Start(Work::ReleaseCharacter { character, session, .. }) => Some((*character, *session)),
        _ => None,
    };
    effects.iter().filter_map(release_character).collect()
}

fn binds(effects: &[Effect]) -> Vec<(SessionId, String, u64)> {
    let bind = |effect: &Effect| match effect {
        Effect::Bind { session, zone, epoch, .. } => Some((*session, zone.clone(), epoch.0)),
        _ => None,
    };
    effects.iter().filter_map(bind).collect()
}

/// The messages to one session, in order.
fn sent(effects: &[Effect], to: SessionId) -> Vec<ServerMessage> {
    let sent = |effect: &Effect| match effect {
        Effect::Send { session, message, .. } if *session == to => Some(message.clone()),
        _ => None,
    };
    effects.iter().filter_map(sent).collect()
}

fn error_code(message: &ServerMessage) -> ErrorCode {
    assert_eq!(message.opcode, opcode::ERROR, "{message:?}");
    Error::decode(&*message.payload).unwrap().code()
}
