//! Attempts to bring avatars into zones: those in flight, avatars that are missing and have to be placed again, and
//! orphans.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use shardkeep_types::{AccountId, CharacterId, Epoch, SessionId};

use crate::domain::sessions::Session;

/// How long an avatar may be missing before the world places it again.
const REPLACE_AFTER: Duration = Duration::from_secs(3);

/// Why a character did not enter a zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PlaceError {
    #[error("no such character")]
    NotFound,
    #[error("the zone cannot take the character at the moment")]
    Unavailable,
}

/// One attempt to bring a session's character into a zone.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Placement {
    attempt: u64,
    session: SessionId,
    session_epoch: Epoch,
    account: AccountId,
    character: CharacterId,
}

impl Placement {
    pub(crate) fn session(&self) -> SessionId {
        self.session
    }

    pub(crate) fn session_epoch(&self) -> Epoch {
        self.session_epoch
    }

    pub(crate) fn account(&self) -> AccountId {
        self.account
    }

    pub(crate) fn character(&self) -> CharacterId {
        self.character
    }
}

#[derive(Debug, Default)]
pub(crate) struct Placements {
    /// The latest attempt of each session.
    pending: HashMap<SessionId, u64>,
    attempts: u64,
    /// Attempts up to this number began in an earlier term, so their results are ignored.
    previous_term_attempts: u64,
    /// Since when the session's avatar is missing.
    missing_since: HashMap<SessionId, Instant>,
    /// Avatars whose zone died and whose session has not been presented to this world yet, since when.
    orphans: HashMap<CharacterId, (SessionId, Instant)>,
}

impl Placements {
    /// Forgets everything, because a term begins or ends.
    pub(crate) fn clear(&mut self) {
        let attempts = self.attempts;
        *self = Self { attempts, previous_term_attempts: attempts, ..Self::default() };
    }

    pub(crate) fn begin(&mut self, id: SessionId, session: &Session, character: CharacterId) -> Placement {
        self.attempts += 1;
        self.pending.insert(id, self.attempts);
        self.orphans.remove(&character);
        let (session_epoch, account) = (session.epoch(), session.account());
        Placement { attempt: self.attempts, session: id, session_epoch, account, character }
    }

    /// Whether the result of this attempt counts: it is the latest one of its session.
    pub(crate) fn finish(&mut self, placement: &Placement) -> bool {
        let counts = self.pending.get(&placement.session) == Some(&placement.attempt);
        if counts {
            self.cancel(placement.session);
        }
        counts
    }

    pub(crate) fn is_of_this_term(&self, placement: &Placement) -> bool {
        placement.attempt > self.previous_term_attempts
    }

    /// Forgets the session's attempt, and that its avatar is missing.
    pub(crate) fn cancel(&mut self, session: SessionId) {
        self.pending.remove(&session);
        self.missing_since.remove(&session);
    }

    /// The session's avatar is missing from now on.
    pub(crate) fn lost(&mut self, now: Instant, session: SessionId) {
        self.missing_since.insert(session, now);
    }

    pub(crate) fn found(&mut self, session: SessionId) {
        self.missing_since.remove(&session);
    }

    /// The session's avatar is missing. Returns whether it must be placed again now.
    pub(crate) fn missing(&mut self, now: Instant, session: SessionId) -> bool {
        let since = *self.missing_since.entry(session).or_insert(now);
        now.saturating_duration_since(since) >= REPLACE_AFTER && !self.pending.contains_key(&session)
    }

    pub(crate) fn add_orphan(&mut self, now: Instant, character: CharacterId, session: SessionId) {
        self.orphans.insert(character, (session, now));
    }

    /// The session has been presented: its avatar is no orphan any more.
    pub(crate) fn take_orphan(&mut self, session: SessionId) -> Option<CharacterId> {
        let mut orphans = self.orphans.iter();
        let character = orphans.find(|(_, (of, _))| *of == session).map(|(&character, _)| character);
        self.orphans.remove(&character?);
        character
    }

    pub(crate) fn forget_orphan(&mut self, character: CharacterId) {
        self.orphans.remove(&character);
    }

    /// Orphans of at least this age.
    pub(crate) fn old_orphans(
        &self,
        now: Instant,
        age: Duration,
    ) -> impl Iterator<Item = (CharacterId, SessionId)> {
        let old = move |since: Instant| now.saturating_duration_since(since) >= age;
        let orphans = self.orphans.iter().filter(move |&(_, &(_, since))| old(since));
        orphans.map(|(&character, &(session, _))| (character, session))
    }
}
