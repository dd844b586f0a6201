//! The players of this zone: their avatars, their gateways, and whether an avatar is leaving.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Instant,
};

use shardkeep_link::{ClientMessage, GatewayId};
use shardkeep_types::{AccountId, CharacterId, Epoch, Position, SessionId};

use crate::domain::{
    handover::Source,
    payload::{Destination, ReplyTo, SoftState},
};

/// The most requests kept while an avatar is handed over. Overflow: the newest is dropped and counted.
const MAX_HELD_INPUTS: usize = 256;

/// An avatar on its way to another zone or space.
#[derive(Debug)]
pub(crate) struct OutgoingHandover {
    pub(crate) state: Source,
    pub(crate) to: Arc<Destination>,
    pub(crate) since: Instant,
    /// Where the avatar appears in another space. `None`: it walks across a border and appears where it is.
    pub(crate) place: Option<Position>,
    /// The caller that waits for the end of a teleport.
    pub(crate) teleport: Option<ReplyTo>,
}

#[derive(Debug)]
pub(crate) enum PlayerPhase {
    Playing,
    HandingOver(OutgoingHandover),
    /// The avatar is being saved and released. `sent`: the database has been asked.
    Releasing {
        reason: String,
        sent: bool,
        waiting: Vec<ReplyTo>,
    },
}

#[derive(Debug)]
pub(crate) struct Player {
    pub(crate) character: CharacterId,
    pub(crate) name: Arc<str>,
    pub(crate) session: SessionId,
    pub(crate) session_epoch: Epoch,
    pub(crate) account: AccountId,
    /// Ownership epoch of the avatar.
    pub(crate) epoch: Epoch,
    /// The gateway of the session. `None` until the session is bound, and while its gateway is down.
    pub(crate) gateway: Option<GatewayId>,
    pub(crate) link_dead: bool,
    /// When the avatar lost its gateway.
    pub(crate) unbound_since: Instant,
    pub(crate) phase: PlayerPhase,
    /// Requests that arrived during a hand-over.
    held_inputs: Vec<ClientMessage>,
    /// The last state sent to the database.
    pub(crate) saved: Option<SoftState>,
    /// How many inputs the source of the hand-over has forwarded.
    pub(crate) forwarded: u32,
}

impl Player {
    pub(crate) fn new(
        character: CharacterId,
        name: Arc<str>,
        epoch: Epoch,
        session: SessionId,
        session_epoch: Epoch,
        account: AccountId,
        now: Instant,
    ) -> Self {
        Self {
            character,
            name,
            session,
            session_epoch,
            account,
            epoch,
            gateway: None,
            link_dead: false,
            unbound_since: now,
            phase: PlayerPhase::Playing,
            held_inputs: Vec::new(),
            saved: None,
            forwarded: 0,
        }
    }

    pub(crate) fn is_playing(&self) -> bool {
        matches!(self.phase, PlayerPhase::Playing)
    }

    /// Keeps inputs for the next owner, or for the thaw.
    pub(crate) fn hold(&mut self, messages: Vec<ClientMessage>) {
        hold(&mut self.held_inputs, messages);
    }

    pub(crate) fn take_held_inputs(&mut self) -> Vec<ClientMessage> {
        std::mem::take(&mut self.held_inputs)
    }
}

/// Adds inputs up to the bound.
pub(crate) fn hold(held_inputs: &mut Vec<ClientMessage>, messages: Vec<ClientMessage>) {
    let room = MAX_HELD_INPUTS.saturating_sub(held_inputs.len());
    for _ in room..messages.len() {
        crate::metrics::dropped("held");
    }
    held_inputs.extend(messages.into_iter().take(room));
}

/// All players, by session and by character. The order of characters makes ticks reproducible.
#[derive(Debug, Default)]
pub(crate) struct Players {
    all: BTreeMap<CharacterId, Player>,
    by_session: HashMap<SessionId, CharacterId>,
    /// Players that the zone still has to subscribe, to send everything that is not in groups, and to declare ready with
    /// this binding.
    resyncs: BTreeMap<CharacterId, Epoch>,
}

impl Players {
    /// Returns the player that the new one replaces.
    pub(crate) fn insert(&mut self, player: Player) -> Option<Player> {
        let session = player.session;
        self.by_session.insert(session, player.character);
        let before = self.all.insert(player.character, player)?;
        if before.session != session {
            self.by_session.remove(&before.session);
        }
        Some(before)
    }

    pub(crate) fn remove(&mut self, character: CharacterId) -> Option<Player> {
        let player = self.all.remove(&character)?;
        if self.by_session.get(&player.session) == Some(&character) {
            self.by_session.remove(&player.session);
        }
        self.resyncs.remove(&character);
        Some(player)
    }

    pub(crate) fn request_resync(&mut self, character: CharacterId, binding: Epoch) {
        self.resyncs.insert(character, binding);
    }

    pub(crate) fn take_resyncs(&mut self) -> BTreeMap<CharacterId, Epoch> {
        std::mem::take(&mut self.resyncs)
    }

    pub(crate) fn get(&self, character: CharacterId) -> Option<&Player> {
        self.all.get(&character)
    }

    pub(crate) fn get_mut(&mut self, character: CharacterId) -> Option<&mut Player> {
        self.all.get_mut(&character)
    }

    pub(crate) fn of_session(&mut self, session: SessionId) -> Option<&mut Player> {
        self.all.get_mut(self.by_session.get(&session)?)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Player> {
        self.all.values()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Player> {
        self.all.values_mut()
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }
}
