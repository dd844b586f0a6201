//! Which space of this zone has which session and which character, so that events of gateways and calls of other daemons
//! find their space.

use std::{
    collections::{HashMap, hash_map},
    time::{Duration, Instant},
};

use shardkeep_link::GatewayId;
use shardkeep_types::{CharacterId, Epoch, SessionId, SpaceId};

use crate::domain::bindings::{Binding, Bindings};

/// How long a session keeps the route to the space that its avatar has left. The space forwards inputs that are still
/// under way.
const LEFT_LIFETIME: Duration = Duration::from_secs(120);

/// The place of one session.
#[derive(Debug)]
struct Seat {
    character: CharacterId,
    /// The space that gets the messages of the session.
    current: SpaceId,
    /// The space to which the avatar is moving, and its ownership epoch there. A binding with this epoch or a higher one
    /// makes it the current space.
    coming: Option<(SpaceId, Epoch)>,
    left_at: Option<Instant>,
}

#[derive(Debug, Default)]
pub(crate) struct Routes {
    seats: HashMap<SessionId, Seat>,
    sessions: HashMap<CharacterId, SessionId>,
    /// Bindings of sessions without a seat.
    unplaced: Bindings,
}

impl Routes {
    /// An avatar will enter a space with this ownership epoch. Returns a binding that has arrived before.
    pub(crate) fn expect(
        &mut self,
        session: SessionId,
        character: CharacterId,
        space: SpaceId,
        epoch: Epoch,
    ) -> Option<Binding> {
        self.sessions.insert(character, session);
        match self.seats.entry(session) {
            hash_map::Entry::Occupied(mut seat) => {
                let seat = seat.get_mut();
                seat.character = character;
                seat.left_at = None;
                let is_new = seat.current != space || seat.coming.is_some();
                if is_new && seat.coming.is_none_or(|(_, coming)| coming <= epoch) {
                    seat.coming = Some((space, epoch));
                }
                None
            }
            hash_map::Entry::Vacant(vacant) => {
                vacant.insert(Seat { character, current: space, coming: None, left_at: None });
                self.unplaced.take(session)
            }
        }
    }

    /// The avatar has left the space.
    pub(crate) fn left(&mut self, now: Instant, session: SessionId, space: SpaceId) {
        if let Some(seat) = self.seats.get_mut(&session)
            && seat.current == space
            && seat.coming.is_none()
        {
            seat.left_at = Some(now);
        }
    }

    /// The space that gets this binding. `None`: the session has no seat, and the binding is kept until it has one.
    pub(crate) fn bound(&mut self, now: Instant, session: SessionId, binding: &Binding) -> Option<SpaceId> {
        let Some(seat) = self.seats.get_mut(&session) else {
            self.unplaced.insert(session, binding.clone(), now);
            return None;
        };
        if let Some((space, _)) = seat.coming.filter(|(_, epoch)| *epoch <= binding.bind_epoch) {
            seat.current = space;
            seat.coming = None;
        }
        Some(seat.current)
    }

    /// The space that gets the messages of a session.
    pub(crate) fn of_session(&self, session: SessionId) -> Option<SpaceId> {
        self.seats.get(&session).map(|seat| seat.current)
    }

    /// The spaces that hear what happens to a session: the current one, and the one to which its avatar is moving.
    pub(crate) fn concerned(&self, session: SessionId) -> impl Iterator<Item = SpaceId> + use<> {
        let seat = self.seats.get(&session);
        let current = seat.map(|seat| seat.current);
        let coming = seat.and_then(|seat| seat.coming).map(|(space, _)| space);
        current.into_iter().chain(coming.filter(|space| Some(*space) != current))
    }

    /// The spaces in which a character may be, the most likely one last.
    pub(crate) fn of_character(&self, character: CharacterId) -> impl Iterator<Item = SpaceId> + use<> {
        let session = self.sessions.get(&character).copied();
        session.into_iter().flat_map(|session| self.concerned(session)).collect::<Vec<_>>().into_iter()
    }

    /// The session is over.
    pub(crate) fn session_ended(&mut self, now: Instant, session: SessionId) {
        self.unplaced.remove_if(|unplaced, _| unplaced == session);
        if let Some(seat) = self.seats.get_mut(&session) {
            seat.left_at.get_or_insert(now);
        }
    }

    /// A gateway is down, or will announce all its bindings again.
    pub(crate) fn forget_gateway(&mut self, gateway: &GatewayId) {
        self.unplaced.remove_if(|_, binding| binding.gateway == *gateway);
    }

    pub(crate) fn space_ended(&mut self, space: SpaceId) {
        self.seats.retain(|_, seat| {
            if let Some((coming, _)) = seat.coming.filter(|_| seat.current == space) {
                seat.current = coming;
                seat.coming = None;
            }
            seat.current != space
        });
        self.forget_characters();
    }

    pub(crate) fn remove_expired(&mut self, now: Instant) {
        self.unplaced.remove_expired(now);
        let before = self.seats.len();
        self.seats.retain(|_, seat| {
            seat.left_at.is_none_or(|left| now.saturating_duration_since(left) < LEFT_LIFETIME)
        });
        if self.seats.len() < before {
            self.forget_characters();
        }
    }

    fn forget_characters(&mut self) {
        let seats = &self.seats;
        self.sessions
            .retain(|character, session| seats.get(session).is_some_and(|seat| seat.character == *character));
    }
}

#[cfg(test)]
mod tests {
    use shardkeep_types::AccountId;

    use super::*;

    const SESSION: SessionId = SessionId([1; 16]);
    const HERO: CharacterId = CharacterId(1);
    const ONE: SpaceId = SpaceId(1);
    const TWO: SpaceId = SpaceId(2);

    fn binding(bind_epoch: u64) -> Binding {
        Binding {
            gateway: "gateway-1".into(),
            account: AccountId(1),
            session_epoch: Epoch(1),
            bind_epoch: Epoch(bind_epoch),
            link_dead: false,
        }
    }

    #[test]
    fn binding_that_comes_before_its_avatar_is_kept() {
        let (mut routes, now) = (Routes::default(), Instant::now());
        assert_eq!(routes.bound(now, SESSION, &binding(5)), None);
        assert_eq!(routes.expect(SESSION, HERO, ONE, Epoch(5)), Some(binding(5)));
        assert_eq!(routes.bound(now, SESSION, &binding(5)), Some(ONE));
        assert_eq!(routes.of_session(SESSION), Some(ONE));
    }

    #[test]
    fn session_moves_to_another_space_with_the_binding_of_the_new_epoch() {
        let (mut routes, now) = (Routes::default(), Instant::now());
        routes.expect(SESSION, HERO, ONE, Epoch(5));
        assert_eq!(routes.expect(SESSION, HERO, TWO, Epoch(6)), None);
        assert_eq!(routes.concerned(SESSION).collect::<Vec<_>>(), [ONE, TWO]);
        assert_eq!(routes.bound(now, SESSION, &binding(5)), Some(ONE), "a repeat of the old binding");
        assert_eq!(routes.of_session(SESSION), Some(ONE));
        assert_eq!(routes.bound(now, SESSION, &binding(6)), Some(TWO));
        assert_eq!(routes.of_session(SESSION), Some(TWO));
        routes.left(now, SESSION, ONE);
        routes.remove_expired(now + LEFT_LIFETIME);
        assert_eq!(routes.of_character(HERO).collect::<Vec<_>>(), [TWO]);
    }

    #[test]
    fn avatar_that_returns_at_once_stays_with_its_space() {
        let (mut routes, now) = (Routes::default(), Instant::now());
        routes.expect(SESSION, HERO, ONE, Epoch(5));
        routes.expect(SESSION, HERO, TWO, Epoch(6));
        routes.expect(SESSION, HERO, ONE, Epoch(7));
        assert_eq!(routes.bound(now, SESSION, &binding(7)), Some(ONE));
        assert_eq!(routes.concerned(SESSION).collect::<Vec<_>>(), [ONE]);
    }

    #[test]
    fn route_outlives_avatar_that_left_for_a_while() {
        let (mut routes, now) = (Routes::default(), Instant::now());
        routes.expect(SESSION, HERO, ONE, Epoch(5));
        routes.left(now, SESSION, ONE);
        routes.remove_expired(now + LEFT_LIFETIME / 2);
        assert_eq!(routes.of_session(SESSION), Some(ONE));
        routes.remove_expired(now + LEFT_LIFETIME);
        assert_eq!(routes.of_session(SESSION), None);
        assert_eq!(routes.of_character(HERO).count(), 0);
    }

    #[test]
    fn ended_space_has_no_routes() {
        let mut routes = Routes::default();
        let other = SessionId([2; 16]);
        routes.expect(SESSION, HERO, ONE, Epoch(5));
        routes.expect(other, CharacterId(2), ONE, Epoch(5));
        routes.expect(other, CharacterId(2), TWO, Epoch(6));
        routes.space_ended(ONE);
        assert_eq!((routes.of_session(SESSION), routes.of_session(other)), (None, Some(TWO)));
        assert_eq!(routes.of_character(HERO).count(), 0);
    }
}
