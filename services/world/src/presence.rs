//! The positions of avatars. Zones report them, and the world adds avatars that it has just placed. Chat and the
//! operators' console watch them. Of two reports, the one with the higher ownership epoch counts.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use shardkeep_names::fold;
use shardkeep_types::{AccountId, CellId, CharacterId, Epoch, SessionId};

use crate::partition::Owner;

/// How long an avatar that has left one zone may take to appear in another before it counts as gone.
const CROSSING_TIMEOUT: Duration = Duration::from_secs(1);

/// One avatar in the world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Avatar {
    pub(crate) character: CharacterId,
    pub(crate) name: String,
    pub(crate) session: SessionId,
    pub(crate) account: AccountId,
    pub(crate) cell: CellId,
    pub(crate) zone: Owner,
    pub(crate) epoch: Epoch,
}

/// A change, for watchers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Delta {
    pub(crate) present: Vec<Avatar>,
    pub(crate) gone: Vec<CharacterId>,
}

impl Delta {
    pub(crate) fn is_empty(&self) -> bool {
        self.present.is_empty() && self.gone.is_empty()
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
    /// Applies a zone's report. A complete report also removes avatars that it does not list.
    pub(crate) fn report(
        &mut self,
        now: Instant,
        zone: &Owner,
        complete: bool,
        present: Vec<Avatar>,
        gone: &[CharacterId],
    ) -> Delta {
        let mut delta = Delta::default();
        let named: HashSet<CharacterId> = present.iter().map(|avatar| avatar.character).collect();
        for avatar in present {
            if self.upsert(now, avatar.clone()) {
                delta.present.push(avatar);
            }
        }
        let mut mark_leaving = |entry: &mut Entry| {
            if entry.avatar.zone == *zone {
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
        delta
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

    pub(crate) fn remove(&mut self, character: CharacterId) -> Delta {
        let Some(entry) = self.avatars.remove(&character) else { return Delta::default() };
        self.by_name.remove(&fold(&entry.avatar.name));
        self.by_session.remove(&entry.avatar.session);
        Delta { present: Vec::new(), gone: vec![character] }
    }

    /// Removes avatars that have left one zone and appeared in no other.
    pub(crate) fn sweep(&mut self, now: Instant) -> Delta {
        let lost = |entry: &Entry| {
            entry.crossing_since.is_some_and(|since| now.saturating_duration_since(since) >= CROSSING_TIMEOUT)
        };
        let lost: Vec<CharacterId> =
            self.avatars.iter().filter(|(_, entry)| lost(entry)).map(|(&id, _)| id).collect();
        for &character in &lost {
            self.remove(character);
        }
        Delta { present: Vec::new(), gone: lost }
    }

    pub(crate) fn get(&self, character: CharacterId) -> Option<&Avatar> {
        self.avatars.get(&character).map(|entry| &entry.avatar)
    }

    pub(crate) fn named(&self, name: &str) -> Option<&Avatar> {
        self.get(*self.by_name.get(&fold(name))?)
    }

    pub(crate) fn of_session(&self, session: SessionId) -> Option<&Avatar> {
        self.get(*self.by_session.get(&session)?)
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
    use shardkeep_types::MapId;

    use super::*;

    fn zone(name: &str) -> Owner {
        Owner { name: name.into(), incarnation: 1 }
    }

    fn avatar(character: u64, at: &str, epoch: u64) -> Avatar {
        Avatar {
            character: CharacterId(character),
            name: format!("Hero{character}"),
            session: SessionId([u8::try_from(character).unwrap(); 16]),
            account: AccountId(character),
            cell: CellId { map: MapId(1), x: 1, y: 1 },
            zone: zone(at),
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
        assert!(presence.report(now, &zone("a"), false, vec![], &[CharacterId(1)]).is_empty());
        let delta = presence.report(now, &zone("b"), false, vec![avatar(1, "b", 2)], &[]);
        assert_eq!(delta.present, [avatar(1, "b", 2)]);
        assert!(presence.sweep(now + CROSSING_TIMEOUT).is_empty());
        let late = presence.report(now, &zone("a"), false, vec![avatar(1, "a", 1)], &[CharacterId(1)]);
        assert!(late.is_empty(), "what zone a says is of an earlier epoch");
        assert!(presence.sweep(now + CROSSING_TIMEOUT * 2).is_empty());
        assert_eq!(presence.get(CharacterId(1)).unwrap().zone, zone("b"));
    }

    #[test]
    fn avatar_missing_from_all_zones_is_gone_after_timeout() {
        let now = Instant::now();
        let mut presence = Presence::default();
        presence.upsert(now, avatar(1, "a", 1));
        presence.upsert(now, avatar(2, "a", 1));
        presence.report(now, &zone("a"), true, vec![avatar(2, "a", 1)], &[]);
        assert!(presence.sweep(now + CROSSING_TIMEOUT / 2).is_empty());
        assert_eq!(presence.sweep(now + CROSSING_TIMEOUT).gone, [CharacterId(1)]);
        assert_eq!(presence.iter().count(), 1);
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
