//! The avatars in the world, as the world reports them, with indexes by session, name, cell and zone.

use std::collections::{HashMap, HashSet};

use shardkeep_names::fold;
use shardkeep_rpc::{session_id, world::PresenceReport};
use shardkeep_types::{AccountId, CellId, CharacterId, SessionId, SpaceId};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Avatar {
    pub(crate) character: CharacterId,
    pub(crate) name: String,
    pub(crate) session: SessionId,
    pub(crate) account: AccountId,
    pub(crate) cell: CellId,
    pub(crate) zone: String,
}

#[derive(Debug, Default)]
pub(crate) struct AvatarIndex {
    all: HashMap<CharacterId, Avatar>,
    by_session: HashMap<SessionId, CharacterId>,
    by_name: HashMap<String, CharacterId>,
    by_cell: HashMap<CellId, HashSet<SessionId>>,
    by_zone: HashMap<String, HashSet<SessionId>>,
}

/// Sessions that entered or left the world.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    pub(crate) entered: Vec<SessionId>,
    pub(crate) left: Vec<SessionId>,
}

impl AvatarIndex {
    /// Applies a report. Invalid entries are ignored.
    pub(crate) fn report(&mut self, report: PresenceReport) -> Changes {
        let present: Vec<Avatar> = report.present.into_iter().filter_map(avatar).collect();
        // Whether each session in the report was in the world before.
        let mut before: HashMap<SessionId, bool> = HashMap::new();
        let gone = report.gone.into_iter().map(CharacterId);
        let gone: Vec<CharacterId> =
            if report.complete { self.all.keys().copied().collect() } else { gone.collect() };
        for character in gone.iter().chain(present.iter().map(|avatar| &avatar.character)) {
            before.extend(self.all.get(character).map(|avatar| (avatar.session, true)));
        }
        for avatar in &present {
            before.entry(avatar.session).or_insert(false);
        }
        gone.into_iter().for_each(|character| self.remove(character));
        present.into_iter().for_each(|avatar| self.put(avatar));
        let mut changes = Changes::default();
        for (session, was) in before {
            match (was, self.by_session.contains_key(&session)) {
                (false, true) => changes.entered.push(session),
                (true, false) => changes.left.push(session),
                _ => {}
            }
        }
        changes
    }

    fn put(&mut self, avatar: Avatar) {
        self.remove(avatar.character);
        self.by_session.insert(avatar.session, avatar.character);
        self.by_name.insert(fold(&avatar.name), avatar.character);
        self.by_cell.entry(avatar.cell).or_default().insert(avatar.session);
        self.by_zone.entry(avatar.zone.clone()).or_default().insert(avatar.session);
        self.all.insert(avatar.character, avatar);
    }

    fn remove(&mut self, character: CharacterId) {
        let Some(avatar) = self.all.remove(&character) else { return };
        self.by_session.remove(&avatar.session);
        self.by_name.remove(&fold(&avatar.name));
        remove_from(&mut self.by_cell, &avatar.cell, avatar.session);
        remove_from(&mut self.by_zone, &avatar.zone, avatar.session);
    }

    pub(crate) fn of_session(&self, session: SessionId) -> Option<&Avatar> {
        self.all.get(self.by_session.get(&session)?)
    }

    pub(crate) fn named(&self, name: &str) -> Option<&Avatar> {
        self.all.get(self.by_name.get(&fold(name))?)
    }

    pub(crate) fn with_character(&self, character: CharacterId) -> Option<&Avatar> {
        self.all.get(&character)
    }

    /// Sessions in the 3 × 3 cells around `cell`.
    pub(crate) fn near(&self, cell: CellId) -> impl Iterator<Item = SessionId> + '_ {
        cell.around(1, u16::MAX, u16::MAX).filter_map(|cell| self.by_cell.get(&cell)).flatten().copied()
    }

    pub(crate) fn in_zone(&self, zone: &str) -> impl Iterator<Item = SessionId> + '_ {
        self.by_zone.get(zone).into_iter().flatten().copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }
}

fn remove_from<K: std::hash::Hash + Eq>(
    index: &mut HashMap<K, HashSet<SessionId>>,
    key: &K,
    session: SessionId,
) {
    if let Some(sessions) = index.get_mut(key) {
        sessions.remove(&session);
        if sessions.is_empty() {
            index.remove(key);
        }
    }
}

fn avatar(present: shardkeep_rpc::world::Presence) -> Option<Avatar> {
    let cell = CellId {
        space: SpaceId(present.space),
        x: present.cell_x.try_into().ok()?,
        y: present.cell_y.try_into().ok()?,
    };
    Some(Avatar {
        character: CharacterId(present.character),
        name: present.name,
        session: session_id(&present.session).ok()?,
        account: AccountId(present.account),
        cell,
        zone: present.zone,
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use shardkeep_rpc::world::Presence;

    use super::*;

    /// Hero`number` with session `number`.
    pub(crate) fn present(number: u8, x: u32, y: u32, zone: &str) -> Presence {
        Presence {
            character: number.into(),
            name: format!("Hero{number}"),
            session: vec![number; 16],
            account: number.into(),
            space: 1,
            cell_x: x,
            cell_y: y,
            zone: zone.into(),
            epoch: 1,
        }
    }

    pub(crate) fn report(complete: bool, present: Vec<Presence>, gone: Vec<u64>) -> PresenceReport {
        PresenceReport { complete, present, gone, ..PresenceReport::default() }
    }

    fn session(number: u8) -> SessionId {
        SessionId([number; 16])
    }

    #[test]
    fn near_returns_sessions_in_the_nine_surrounding_cells() {
        let mut avatars = AvatarIndex::default();
        let everybody =
            vec![present(1, 5, 5, "a"), present(2, 6, 6, "b"), present(3, 7, 5, "a"), present(4, 0, 0, "a")];
        avatars.report(report(true, everybody, vec![]));
        let near = |x, y| {
            let mut near: Vec<SessionId> = avatars.near(CellId { space: SpaceId(1), x, y }).collect();
            near.sort();
            near
        };
        assert_eq!(near(5, 5), [session(1), session(2)]);
        assert_eq!(near(0, 0), [session(4)]);
        assert_eq!(near(65_535, 65_535), []);
        assert_eq!(avatars.in_zone("b").collect::<Vec<_>>(), [session(2)]);
    }

    #[test]
    fn presence_reports_update_index_and_return_changes() {
        let mut avatars = AvatarIndex::default();
        let changes =
            avatars.report(report(true, vec![present(1, 5, 5, "a"), present(2, 5, 5, "a")], vec![]));
        assert_eq!(changes.entered.len(), 2);
        let changes = avatars.report(report(false, vec![present(1, 9, 9, "b")], vec![2]));
        assert_eq!(changes, Changes { entered: vec![], left: vec![session(2)] });
        assert_eq!(avatars.named("hero1").unwrap().zone, "b");
        assert_eq!(avatars.near(CellId { space: SpaceId(1), x: 5, y: 5 }).count(), 0);
        let changes = avatars.report(report(true, vec![present(3, 1, 1, "a")], vec![]));
        assert_eq!(changes, Changes { entered: vec![session(3)], left: vec![session(1)] });
        assert_eq!(avatars.len(), 1);
    }
}
