//! The positions of avatars. Zones report them, and the world adds avatars that it has just placed. Chat and the
//! operators' console watch them. Of two reports, the one with the higher ownership epoch counts.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use shardkeep_names::fold;
use shardkeep_types::{AccountId, CellId, CharacterId, Epoch, InstanceId, SessionId, SpaceId};

/// How long an avatar that has left one zone may take to appear in another before it counts as gone.
const CROSSING_TIMEOUT: Duration = Duration::from_secs(1);

/// One avatar in the world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Avatar {
    character: CharacterId,
    name: String,
    session: SessionId,
    account: AccountId,
    cell: CellId,
    zone: InstanceId,
    epoch: Epoch,
}

impl Avatar {
    pub(crate) fn new(
        character: CharacterId,
        name: String,
        session: SessionId,
        account: AccountId,
        cell: CellId,
        zone: InstanceId,
        epoch: Epoch,
    ) -> Self {
        Self { character, name, session, account, cell, zone, epoch }
    }

    pub(crate) fn character(&self) -> CharacterId {
        self.character
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn session(&self) -> SessionId {
        self.session
    }

    pub(crate) fn account(&self) -> AccountId {
        self.account
    }

    pub(crate) fn cell(&self) -> CellId {
        self.cell
    }

    pub(crate) fn zone(&self) -> &InstanceId {
        &self.zone
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }
}

#[derive(Debug)]
struct Entry {
    avatar: Avatar,
    /// When this avatar of this session was first seen.
    since: Instant,
    /// Since when its zone reports it as gone.
    crossing_since: Option<Instant>,
}

#[derive(Debug, Default)]
pub(crate) struct Presence {
    avatars: HashMap<CharacterId, Entry>,
    by_name: HashMap<String, CharacterId>,
    by_session: HashMap<SessionId, CharacterId>,
}

impl Presence {
    /// Applies a zone's report about one space, and returns the avatars that it adds or changes. A complete report also
    /// removes avatars of this space that it does not list.
    pub(crate) fn report(
        &mut self,
        now: Instant,
        (zone, space): (&InstanceId, SpaceId),
        complete: bool,
        mut present: Vec<Avatar>,
        gone: &[CharacterId],
    ) -> Vec<Avatar> {
        let named: HashSet<CharacterId> = present.iter().map(|avatar| avatar.character).collect();
        present.retain(|avatar| self.upsert(now, avatar.clone()));
        let mut mark_leaving = |entry: &mut Entry| {
            if entry.avatar.zone == *zone && entry.avatar.cell.space == space {
                entry.crossing_since.get_or_insert(now);
            }
        };
        if complete {
            let others = self.avatars.values_mut().filter(|entry| !named.contains(&entry.avatar.character));
            others.for_each(&mut mark_leaving);
        }
        for character in gone.iter().filter(|character| !named.contains(character)) {
            self.avatars.get_mut(character).map(&mut mark_leaving);
        }
        present
    }

    /// Adds or updates an avatar. `false`: the known state is newer.
    pub(crate) fn upsert(&mut self, now: Instant, avatar: Avatar) -> bool {
        let mut since = now;
        if let Some(known) = self.avatars.get(&avatar.character) {
            let stale = avatar.epoch < known.avatar.epoch
                || avatar.epoch == known.avatar.epoch && avatar.zone != known.avatar.zone;
            if stale {
                return false;
            }
            if known.avatar.session == avatar.session {
                since = known.since;
            } else {
                self.by_session.remove(&known.avatar.session);
            }
        }
        self.by_name.insert(fold(&avatar.name), avatar.character);
        self.by_session.insert(avatar.session, avatar.character);
        self.avatars.insert(avatar.character, Entry { avatar, since, crossing_since: None });
        true
    }

    fn remove(&mut self, character: CharacterId) {
        if let Some(Entry { avatar, .. }) = self.avatars.remove(&character) {
            self.by_name.remove(&fold(&avatar.name));
            self.by_session.remove(&avatar.session);
        }
    }

    /// Removes the session's avatar of this character. `false`: there is none.
    pub(crate) fn remove_played(&mut self, session: SessionId, character: CharacterId) -> bool {
        let played = self.played(session, character).is_some();
        if played {
            self.remove(character);
        }
        played
    }

    /// Removes avatars that have left one zone and appeared in no other.
    pub(crate) fn sweep(&mut self, now: Instant) -> Vec<CharacterId> {
        let lost = |entry: &Entry| {
            entry.crossing_since.is_some_and(|since| now.saturating_duration_since(since) >= CROSSING_TIMEOUT)
        };
        let lost: Vec<CharacterId> =
            self.avatars.iter().filter(|(_, entry)| lost(entry)).map(|(&id, _)| id).collect();
        for &character in &lost {
            self.remove(character);
        }
        lost
    }

    fn get(&self, character: CharacterId) -> Option<&Avatar> {
        self.avatars.get(&character).map(|entry| &entry.avatar)
    }

    pub(crate) fn named(&self, name: &str) -> Option<&Avatar> {
        self.get(*self.by_name.get(&fold(name))?)
    }

    pub(crate) fn of_session(&self, session: SessionId) -> Option<&Avatar> {
        self.get(*self.by_session.get(&session)?)
    }

    /// The session's avatar of this character.
    pub(crate) fn played(&self, session: SessionId, character: CharacterId) -> Option<&Avatar> {
        self.get(character).filter(|avatar| avatar.session == session)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Avatar> {
        self.avatars.values().map(|entry| &entry.avatar)
    }

    /// Avatars that were first seen at least `age` ago.
    pub(crate) fn older_than(&self, now: Instant, age: Duration) -> impl Iterator<Item = &Avatar> {
        self.avatars
            .values()
            .filter(move |entry| now.saturating_duration_since(entry.since) >= age)
            .map(|entry| &entry.avatar)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::zone::fixture::owner;

    fn avatar(character: u64, at: &str, epoch: u64) -> Avatar {
        Avatar {
            character: CharacterId(character),
            name: format!("Hero{character}"),
            session: SessionId([u8::try_from(character).unwrap(); 16]),
            account: AccountId(character),
            cell: CellId { space: SpaceId(1), x: 1, y: 1 },
            zone: owner(at, 1),
            epoch: Epoch(epoch),
        }
    }

    #[test]
    fn lookup_by_name_ignores_case() {
        let mut presence = Presence::default();
        presence.upsert(Instant::now(), avatar(1, "a", 1));
        assert_eq!(presence.named("hERO1").unwrap().character, CharacterId(1));
        assert_eq!(presence.of_session(SessionId([1; 16])).unwrap().name, "Hero1");
        presence.remove(CharacterId(1));
        assert_eq!(presence.named("hero1"), None);
        assert_eq!(presence.of_session(SessionId([1; 16])), None);
    }

    #[test]
    fn avatar_crossing_zones_stays_present() {
        let now = Instant::now();
        let mut presence = Presence::default();
        presence.upsert(now, avatar(1, "a", 1));
        assert!(
            presence.report(now, (&owner("a", 1), SpaceId(1)), false, vec![], &[CharacterId(1)]).is_empty()
        );
        let present = presence.report(now, (&owner("b", 1), SpaceId(1)), false, vec![avatar(1, "b", 2)], &[]);
        assert_eq!(present, [avatar(1, "b", 2)]);
        assert!(presence.sweep(now + CROSSING_TIMEOUT).is_empty());
        let late = presence.report(
            now,
            (&owner("a", 1), SpaceId(1)),
            false,
            vec![avatar(1, "a", 1)],
            &[CharacterId(1)],
        );
        assert!(late.is_empty(), "what zone a says is of an earlier epoch");
        assert!(presence.sweep(now + CROSSING_TIMEOUT * 2).is_empty());
        assert_eq!(presence.get(CharacterId(1)).unwrap().zone, owner("b", 1));
    }

    #[test]
    fn avatar_missing_from_all_zones_is_gone_after_timeout() {
        let now = Instant::now();
        let mut presence = Presence::default();
        presence.upsert(now, avatar(1, "a", 1));
        presence.upsert(now, avatar(2, "a", 1));
        presence.report(now, (&owner("a", 1), SpaceId(1)), true, vec![avatar(2, "a", 1)], &[]);
        assert!(presence.sweep(now + CROSSING_TIMEOUT / 2).is_empty());
        assert_eq!(presence.sweep(now + CROSSING_TIMEOUT), [CharacterId(1)]);
        assert_eq!(presence.iter().count(), 1);
    }

    #[test]
    fn report_of_one_space_says_nothing_about_another() {
        let now = Instant::now();
        let mut presence = Presence::default();
        let mut elsewhere = avatar(2, "a", 1);
        elsewhere.cell.space = SpaceId(2);
        presence.upsert(now, avatar(1, "a", 1));
        presence.upsert(now, elsewhere);
        presence.report(now, (&owner("a", 1), SpaceId(1)), true, vec![], &[CharacterId(2)]);
        assert_eq!(presence.sweep(now + CROSSING_TIMEOUT), [CharacterId(1)]);
    }

    #[test]
    fn avatar_age_restarts_with_new_session() {
        let now = Instant::now();
        let later = now + Duration::from_secs(60);
        let mut presence = Presence::default();
        presence.upsert(now, avatar(1, "a", 1));
        presence.upsert(later, avatar(1, "a", 1));
        assert_eq!(presence.older_than(later, Duration::from_secs(60)).count(), 1);
        let taken_over = Avatar { session: SessionId([9; 16]), ..avatar(1, "a", 2) };
        presence.upsert(later, taken_over);
        assert_eq!(presence.older_than(later, Duration::from_secs(60)).count(), 0);
        assert_eq!(presence.of_session(SessionId([1; 16])), None);
    }
}
