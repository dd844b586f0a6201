//! Snapshots of other zones. Each zone sends the state of its spaces to its buddy once per second. When the zone dies, the
//! buddy gives the newest snapshot to the zones that take its place.

use std::collections::BTreeMap;

use shardkeep_sim::{Map, SpawnState};
use shardkeep_types::{CharacterId, Epoch, Layer, SpaceId};

use crate::domain::{
    partition::{Table, ZoneName},
    payload::{Destination, LatestState},
};

/// The state of one space in one zone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub(crate) spawns: Vec<SpawnState>,
    pub(crate) avatars: Vec<AvatarSnapshot>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AvatarSnapshot {
    pub(crate) character: CharacterId,
    /// The ownership epoch in the zone of the snapshot.
    pub(crate) epoch: Epoch,
    pub(crate) state: LatestState,
}

/// The newest snapshots that other zones have sent, by zone and space.
#[derive(Debug, Default)]
pub(crate) struct Mirror(BTreeMap<(ZoneName, SpaceId), Snapshot>);

impl Mirror {
    pub(crate) fn keep(&mut self, zone: ZoneName, space: SpaceId, snapshot: Snapshot) {
        self.0.insert((zone, space), snapshot);
    }

    /// Removes the snapshots of zones that are dead, and divides each among the zones that own its sectors now.
    /// `map` finds a map by its name.
    pub(crate) fn orphans(
        &mut self,
        table: &Table,
        map: impl Fn(&str) -> Option<Map>,
    ) -> Vec<(Destination, Snapshot)> {
        let (alive, dead): (BTreeMap<_, _>, BTreeMap<_, _>) = std::mem::take(&mut self.0)
            .into_iter()
            .partition(|((zone, _), _)| table.alive.contains_key(zone));
        self.0 = alive;
        let parts = dead.into_iter().filter_map(|((_, space), snapshot)| {
            let map = map(&table.spaces.get(&space)?.map)?;
            Some(divide(space, &map, &snapshot, table))
        });
        parts.flatten().collect()
    }
}

/// The parts of a snapshot, by owner of the sectors. Sectors without an owner are left out.
fn divide(space: SpaceId, map: &Map, snapshot: &Snapshot, table: &Table) -> Vec<(Destination, Snapshot)> {
    let homes: BTreeMap<u32, _> = map.spawns.iter().map(|spawn| (spawn.number, spawn.home)).collect();
    let mut parts: BTreeMap<ZoneName, (Destination, Snapshot)> = BTreeMap::new();
    let mut add = |cell, add: &dyn Fn(&mut Snapshot)| {
        let Some(to) = table.destination(cell) else { return };
        let owner = (to.name.clone(), to.incarnation);
        add(&mut parts.entry(owner).or_insert_with(|| (to, Snapshot::default())).1);
    };
    for spawn in &snapshot.spawns {
        if let Some(home) = homes.get(&spawn.number) {
            add(home.in_space(space, Layer(0)).cell(), &|part| part.spawns.push(*spawn));
        }
    }
    for avatar in &snapshot.avatars {
        add(avatar.state.position.cell(), &|part| part.avatars.push(*avatar));
    }
    parts.into_values().collect()
}

#[cfg(test)]
mod tests {
    use shardkeep_types::{CellRect, Position};

    use super::*;
    use crate::domain::partition::{Sector, SpaceInfo};

    fn table(alive: &[&str]) -> Table {
        let sector = |zone: &str, x0| Sector {
            cells: CellRect { space: SpaceId(1), x0, y0: 0, x1: x0 + 16, y1: 32 },
            zone: zone.into(),
            incarnation: 1,
            epoch: 1,
            grpc_address: "somewhere".into(),
        };
        let meadow = SpaceInfo { map: "meadow".into(), closing: false };
        Table {
            sectors: vec![sector("zone-2", 0), sector("zone-3", 16)],
            spaces: BTreeMap::from([(SpaceId(1), meadow)]),
            alive: alive.iter().map(|zone| (((*zone).to_owned(), 1), String::new())).collect(),
            ..Table::default()
        }
    }

    #[test]
    fn snapshot_of_dead_zone_is_divided_among_its_heirs() {
        let map = Map::meadow();
        let spawn = |number| SpawnState {
            number,
            epoch: Epoch(1),
            generation: 1,
            respawns_in_ms: None,
            creature: None,
        };
        let west = map.spawns.iter().find(|spawn| spawn.home.x_mm < 500_000).unwrap().number;
        let east = map.spawns.iter().find(|spawn| spawn.home.x_mm > 520_000).unwrap().number;
        let avatar = AvatarSnapshot {
            character: CharacterId(7),
            epoch: Epoch(3),
            state: LatestState {
                position: Position::flat(SpaceId(1), 600_000, 5_000),
                velocity: (0, 0),
                facing: 0,
                health: 5,
                last_input: 1,
                cooldown_ms: 0,
            },
        };
        let mut mirror = Mirror::default();
        let snapshot = Snapshot { spawns: vec![spawn(west), spawn(east)], avatars: vec![avatar] };
        mirror.keep(("zone-1".into(), 1), SpaceId(1), snapshot);
        assert!(mirror.orphans(&table(&["zone-1", "zone-2", "zone-3"]), Map::named).is_empty());
        let parts = mirror.orphans(&table(&["zone-2", "zone-3"]), Map::named);
        let names: Vec<&str> = parts.iter().map(|(to, _)| to.name.as_str()).collect();
        assert_eq!(names, ["zone-2", "zone-3"]);
        assert_eq!(parts[0].1, Snapshot { spawns: vec![spawn(west)], avatars: vec![] });
        assert_eq!(parts[1].1, Snapshot { spawns: vec![spawn(east)], avatars: vec![avatar] });
        assert!(mirror.orphans(&table(&["zone-2", "zone-3"]), Map::named).is_empty(), "it is given once");
    }
}
