//! Everybody in the world, as the world tells it: found by session, by name, by cell and by zone.

use std::collections::{HashMap, HashSet};

use shardkeep_rpc::{session_id, world::PresenceReport};
use shardkeep_types::{AccountId, CellId, CharacterId, MapId, SessionId};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Person {
    pub(crate) character: CharacterId,
    pub(crate) name: String,
    pub(crate) session: SessionId,
    pub(crate) account: AccountId,
    pub(crate) cell: CellId,
    pub(crate) zone: String,
}

#[derive(Debug, Default)]
pub(crate) struct People {
    all: HashMap<CharacterId, Person>,
    by_session: HashMap<SessionId, CharacterId>,
    by_name: HashMap<String, CharacterId>,
    by_cell: HashMap<CellId, HashSet<SessionId>>,
    by_zone: HashMap<String, HashSet<SessionId>>,
}

/// Sessions that came into the world or left it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    pub(crate) came: Vec<SessionId>,
    pub(crate) left: Vec<SessionId>,
}

impl People {
    /// Takes a report; who is described badly is left out.
    pub(crate) fn report(&mut self, report: PresenceReport) -> Changes {
        let present: Vec<Person> = report.present.into_iter().filter_map(person).collect();
        // Whether each session that the report touches was in the world before.
        let mut before: HashMap<SessionId, bool> = HashMap::new();
        let gone = report.gone.into_iter().map(CharacterId);
        let gone: Vec<CharacterId> =
            if report.complete { self.all.keys().copied().collect() } else { gone.collect() };
        for character in gone.iter().chain(present.iter().map(|person| &person.character)) {
            before.extend(self.all.get(character).map(|person| (person.session, true)));
        }
        for person in &present {
            before.entry(person.session).or_insert(false);
        }
        gone.into_iter().for_each(|character| self.remove(character));
        present.into_iter().for_each(|person| self.put(person));
        let mut changes = Changes::default();
        for (session, was) in before {
            match (was, self.by_session.contains_key(&session)) {
                (false, true) => changes.came.push(session),
                (true, false) => changes.left.push(session),
                _ => {}
            }
        }
        changes
    }

    fn put(&mut self, person: Person) {
        self.remove(person.character);
        self.by_session.insert(person.session, person.character);
        self.by_name.insert(person.name.to_lowercase(), person.character);
        self.by_cell.entry(person.cell).or_default().insert(person.session);
        self.by_zone.entry(person.zone.clone()).or_default().insert(person.session);
        self.all.insert(person.character, person);
    }

    fn remove(&mut self, character: CharacterId) {
        let Some(person) = self.all.remove(&character) else { return };
        self.by_session.remove(&person.session);
        self.by_name.remove(&person.name.to_lowercase());
        remove_from(&mut self.by_cell, &person.cell, person.session);
        remove_from(&mut self.by_zone, &person.zone, person.session);
    }

    pub(crate) fn of_session(&self, session: SessionId) -> Option<&Person> {
        self.all.get(self.by_session.get(&session)?)
    }

    pub(crate) fn named(&self, name: &str) -> Option<&Person> {
        self.all.get(self.by_name.get(&name.to_lowercase())?)
    }

    pub(crate) fn with_character(&self, character: CharacterId) -> Option<&Person> {
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

fn person(present: shardkeep_rpc::world::Presence) -> Option<Person> {
    let cell = CellId {
        map: MapId(present.map.try_into().ok()?),
        x: present.cell_x.try_into().ok()?,
        y: present.cell_y.try_into().ok()?,
    };
    Some(Person {
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
            map: 1,
            cell_x: x,
            cell_y: y,
            zone: zone.into(),
            epoch: 1,
        }
    }

    pub(crate) fn report(complete: bool, present: Vec<Presence>, gone: Vec<u64>) -> PresenceReport {
        PresenceReport { zone: None, complete, present, gone }
    }

    fn session(number: u8) -> SessionId {
        SessionId([number; 16])
    }

    #[test]
    fn the_nearest_nine_cells_hear() {
        let mut people = People::default();
        let everybody =
            vec![present(1, 5, 5, "a"), present(2, 6, 6, "b"), present(3, 7, 5, "a"), present(4, 0, 0, "a")];
        people.report(report(true, everybody, vec![]));
        let near = |x, y| {
            let mut near: Vec<SessionId> = people.near(CellId { map: MapId(1), x, y }).collect();
            near.sort();
            near
        };
        assert_eq!(near(5, 5), [session(1), session(2)]);
        assert_eq!(near(0, 0), [session(4)]);
        assert_eq!(near(65_535, 65_535), []);
        assert_eq!(people.in_zone("b").collect::<Vec<_>>(), [session(2)]);
    }

    #[test]
    fn reports_move_people_and_tell_who_came_and_left() {
        let mut people = People::default();
        let changes = people.report(report(true, vec![present(1, 5, 5, "a"), present(2, 5, 5, "a")], vec![]));
        assert_eq!(changes.came.len(), 2);
        let changes = people.report(report(false, vec![present(1, 9, 9, "b")], vec![2]));
        assert_eq!(changes, Changes { came: vec![], left: vec![session(2)] });
        assert_eq!(people.named("hero1").unwrap().zone, "b");
        assert_eq!(people.near(CellId { map: MapId(1), x: 5, y: 5 }).count(), 0);
        let changes = people.report(report(true, vec![present(3, 1, 1, "a")], vec![]));
        assert_eq!(changes, Changes { came: vec![session(3)], left: vec![session(1)] });
        assert_eq!(people.len(), 1);
    }
}
