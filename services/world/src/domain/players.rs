//! The activity of each session in this world: the entry queue, the capacity, and the way in and out.

use std::collections::HashMap;

use prost::Message;
use shardkeep_link::ServerMessage;
use shardkeep_types::{CharacterId, SessionId};
use shardkeep_wire::{
    opcode,
    payload::{ErrorCode, Left, QueuePosition},
};

use crate::domain::{
    placements::PlaceError,
    queue::Queue,
    replies::{refusal, reply},
};

/// The player's activity in this world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PlayState {
    // In the list of its characters.
    Lobby,
    // An earlier term knew the session; its activity is not known yet.
    Restored,
    // `request` is the client's unanswered Enter or Leave.
    Queued { character: CharacterId, request: u64 },
    Entering { character: CharacterId, request: u64 },
    Inside { character: CharacterId },
    Leaving { character: CharacterId, request: u64 },
}

impl PlayState {
    pub(crate) fn character(self) -> Option<CharacterId> {
        match self {
            Self::Lobby | Self::Restored => None,
            Self::Queued { character, .. }
            | Self::Entering { character, .. }
            | Self::Inside { character }
            | Self::Leaving { character, .. } => Some(character),
        }
    }

    /// The character of which the session has an avatar in a zone, is getting one, or is leaving one.
    pub(crate) fn avatar(self) -> Option<CharacterId> {
        self.character().filter(|_| !matches!(self, Self::Queued { .. }))
    }
}

/// The activity of a session when the world restarted, as its gateway reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SessionActivity {
    Unknown,
    /// Place in the queue, from 1.
    Queued(u32),
    Inside(CharacterId),
}

/// What follows for one session.
#[derive(Debug)]
pub(crate) enum PlayEffect {
    Send(ServerMessage),
    // Answers an Enter.
    Welcome { request: u64, character: CharacterId },
    // Brings the character into a zone.
    Place(CharacterId),
    // Takes the character out of its zone, because the player leaves.
    Leave(CharacterId),
}

pub(crate) type Effects = Vec<(SessionId, PlayEffect)>;

#[derive(Default)]
pub(crate) struct Players {
    play: HashMap<SessionId, PlayState>,
    queue: Queue,
    /// Sessions that have an avatar or are getting one.
    inside: usize,
    capacity: usize,
    draining: bool,
}

impl Players {
    pub(crate) fn new(capacity: u32) -> Self {
        Self { capacity: usize::try_from(capacity).unwrap_or(usize::MAX), ..Self::default() }
    }

    /// Stops admissions; sessions inside continue.
    pub(crate) fn drain(&mut self) {
        self.draining = true;
    }

    /// Forgets all sessions, because a term begins or ends.
    pub(crate) fn clear(&mut self) {
        *self = Self { capacity: self.capacity, draining: self.draining, ..Self::default() };
    }

    pub(crate) fn get(&self, id: SessionId) -> Option<PlayState> {
        self.play.get(&id).copied()
    }

    /// Sessions that have an avatar or are getting one.
    pub(crate) fn online(&self) -> usize {
        self.inside
    }

    pub(crate) fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// The sessions that are inside, with their characters.
    pub(crate) fn inside(&self) -> impl Iterator<Item = (SessionId, CharacterId)> {
        self.play.iter().filter_map(|(&id, play)| match play {
            PlayState::Inside { character } => Some((id, *character)),
            _ => None,
        })
    }

    /// Whether the session has an avatar of this character, is getting it, or is leaving it.
    pub(crate) fn has_avatar(&self, id: SessionId, character: CharacterId) -> bool {
        self.get(id).and_then(PlayState::avatar) == Some(character)
    }

    /// Adds a new session.
    pub(crate) fn add(&mut self, id: SessionId) {
        self.set(id, PlayState::Lobby);
    }

    /// Adds a session that an earlier term knew.
    pub(crate) fn restore(&mut self, id: SessionId, activity: SessionActivity) {
        self.set(id, PlayState::Restored);
        match activity {
            SessionActivity::Inside(character) => _ = self.set(id, PlayState::Inside { character }),
            // The client repeats its Enter; until then the session keeps its place.
            SessionActivity::Queued(place) => self.queue.rejoin(id, place),
            SessionActivity::Unknown => {}
        }
    }

    pub(crate) fn remove(&mut self, id: SessionId) -> Option<PlayState> {
        self.queue.remove(id);
        let play = self.play.remove(&id)?;
        self.inside -= usize::from(play.avatar().is_some());
        Some(play)
    }

    /// A gateway holds the session now, and has to hear of its place in the queue. Returns the character that is inside.
    pub(crate) fn joined(&mut self, id: SessionId) -> Option<CharacterId> {
        match self.get(id)? {
            PlayState::Queued { .. } => self.queue.join(id),
            PlayState::Inside { character } => return Some(character),
            _ => {}
        }
        None
    }

    /// `leading`: this instance may admit sessions now.
    pub(crate) fn enter(
        &mut self,
        id: SessionId,
        request: u64,
        character: CharacterId,
        leading: bool,
    ) -> Effects {
        let refuse = |code, detail| vec![(id, PlayEffect::Send(refusal(request, code, detail)))];
        match self.get(id) {
            Some(PlayState::Lobby | PlayState::Restored | PlayState::Queued { .. }) => {
                if self.draining {
                    return refuse(ErrorCode::Unavailable, "the world is closing");
                }
                self.set(id, PlayState::Queued { character, request });
                self.queue.join(id);
                [self.admit(leading), self.queue_places()].into_iter().flatten().collect()
            }
            Some(PlayState::Entering { character: same, .. }) if same == character => {
                self.set(id, PlayState::Entering { character, request });
                Vec::new()
            }
            Some(PlayState::Inside { character: same }) if same == character => {
                vec![(id, PlayEffect::Welcome { request, character })]
            }
            Some(PlayState::Entering { .. } | PlayState::Inside { .. }) => {
                refuse(ErrorCode::Refused, "another character of yours is in the world: leave first")
            }
            Some(PlayState::Leaving { .. }) => refuse(ErrorCode::Unavailable, "still leaving"),
            None => Vec::new(),
        }
    }

    pub(crate) fn leave(&mut self, id: SessionId, request: u64) -> Effects {
        let send = |message| (id, PlayEffect::Send(message));
        match self.get(id) {
            Some(play @ (PlayState::Lobby | PlayState::Restored | PlayState::Queued { .. })) => {
                self.queue.remove(id);
                self.set(id, PlayState::Lobby);
                let left = send(reply(opcode::LEAVE, request, &Left {}));
                let PlayState::Queued { request: entering, .. } = play else { return vec![left] };
                let refused = send(refusal(entering, ErrorCode::Refused, "left the queue"));
                [refused, left].into_iter().chain(self.queue_places()).collect()
            }
            Some(play @ (PlayState::Inside { character } | PlayState::Leaving { character, .. })) => {
                self.set(id, PlayState::Leaving { character, request });
                let is_first = matches!(play, PlayState::Inside { .. });
                is_first.then_some((id, PlayEffect::Leave(character))).into_iter().collect()
            }
            Some(PlayState::Entering { .. }) => {
                vec![send(refusal(request, ErrorCode::Unavailable, "still entering"))]
            }
            None => Vec::new(),
        }
    }

    /// Admits sessions in the order of the queue while the world has room.
    pub(crate) fn admit(&mut self, leading: bool) -> Effects {
        if !leading || self.draining {
            return Vec::new();
        }
        let queued = |id| match self.play.get(&id) {
            Some(&PlayState::Queued { character, request }) => Some((id, character, request)),
            _ => None,
        };
        let room = self.capacity.saturating_sub(self.inside);
        let next: Vec<_> = self.queue.iter().filter_map(queued).take(room).collect();
        for &(id, character, request) in &next {
            self.queue.remove(id);
            self.set(id, PlayState::Entering { character, request });
        }
        next.into_iter().map(|(id, character, _)| (id, PlayEffect::Place(character))).collect()
    }

    /// Tells sessions their new places in the queue.
    pub(crate) fn queue_places(&mut self) -> Effects {
        let event =
            |place: QueuePosition| ServerMessage::event(opcode::QUEUE_POSITION, place.encode_to_vec());
        self.queue.changes().into_iter().map(|(id, place)| (id, PlayEffect::Send(event(place)))).collect()
    }

    /// The session has an avatar. Returns the Enter to answer.
    pub(crate) fn placed(&mut self, id: SessionId, character: CharacterId) -> Option<u64> {
        match self.set(id, PlayState::Inside { character }) {
            Some(PlayState::Entering { request, .. }) => Some(request),
            _ => None,
        }
    }

    /// The session has got no avatar. `None`: it was inside before and stays inside.
    pub(crate) fn not_placed(&mut self, id: SessionId, error: PlaceError, leading: bool) -> Option<Effects> {
        let Some(PlayState::Entering { request, .. }) = self.get(id) else { return None };
        self.set(id, PlayState::Lobby);
        let code = match error {
            PlaceError::NotFound => ErrorCode::NotFound,
            PlaceError::Unavailable => ErrorCode::Unavailable,
        };
        let refused = (id, PlayEffect::Send(refusal(request, code, &error.to_string())));
        Some([vec![refused], self.admit(leading)].into_iter().flatten().collect())
    }

    /// A zone has an avatar of the session. Returns whether the session is inside with this character.
    pub(crate) fn confirm(&mut self, id: SessionId, character: CharacterId) -> bool {
        if self.get(id) == Some(PlayState::Restored) {
            self.set(id, PlayState::Inside { character });
        }
        self.get(id) == Some(PlayState::Inside { character })
    }

    /// The character has no owner any more.
    pub(crate) fn released(&mut self, id: SessionId, character: CharacterId, leading: bool) -> Effects {
        match self.get(id) {
            Some(PlayState::Leaving { character: leaving, request }) if leaving == character => {
                self.set(id, PlayState::Lobby);
                let left = (id, PlayEffect::Send(reply(opcode::LEAVE, request, &Left {})));
                [vec![left], self.admit(leading)].into_iter().flatten().collect()
            }
            _ => Vec::new(),
        }
    }

    /// Returns the activity before.
    fn set(&mut self, id: SessionId, play: PlayState) -> Option<PlayState> {
        let before = self.play.insert(id, play);
        self.inside += usize::from(play.avatar().is_some());
        self.inside -= usize::from(before.and_then(PlayState::avatar).is_some());
        before
    }
}
