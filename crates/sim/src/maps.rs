//! The maps by name.

use shardkeep_types::Point;

use crate::{
    Map,
    map::{SQUARE_MM, SpawnPoint},
    template::{BOAR, RABBIT, WOLF},
};

impl Map {
    /// The names of all maps.
    pub const NAMES: [&'static str; 3] = ["meadow", "gorge", "ring"];

    /// The map of this name.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "meadow" => Some(Self::meadow()),
            "gorge" => Some(Self::gorge()),
            "ring" => Some(Self::ring()),
            _ => None,
        }
    }

    /// 512 m square: long walls with gaps, so that ways are longer than they look. Wolves live in the outer lanes.
    fn gorge() -> Self {
        const LANE_MM: i32 = 64_000;
        const GAP_MM: i32 = 24_000;
        let mut map = Self::open("gorge", 16, 16, Point::flat(256_000, 256_000));
        for wall in 1..map.width_mm() / LANE_MM {
            let gap = if wall % 2 == 0 { LANE_MM } else { map.width_mm() - LANE_MM - GAP_MM };
            let middle = (map.width_mm() - GAP_MM) / 2;
            for x in (0..map.width_mm()).step_by(SQUARE_MM as usize) {
                let is_open = [gap, middle].iter().any(|gap| (*gap..gap + GAP_MM).contains(&x));
                if !is_open {
                    map.grid.block((x / SQUARE_MM) as u32, (wall * LANE_MM / SQUARE_MM) as u32);
                }
            }
        }
        for number in 0..48 {
            let (lane, place) = ((number % 8) as i32, (number / 8) as i32);
            let home = Point::flat(40_000 + place * 80_000, lane * LANE_MM + LANE_MM / 2);
            let template = if lane == 0 || lane == 7 { WOLF } else { BOAR };
            map.spawns.push(SpawnPoint { number, template, home });
        }
        map
    }

    /// 256 m square without obstacles: creatures stand in a ring around the start.
    fn ring() -> Self {
        let mut map = Self::open("ring", 8, 8, Point::flat(128_000, 128_000));
        // The corners of an octagon, in metres from the middle.
        let corners = [(80, 0), (57, 57), (0, 80), (-57, 57), (-80, 0), (-57, -57), (0, -80), (57, -57)];
        for (number, (x, y)) in (0..).zip(corners) {
            let home = Point::flat(128_000 + x * 1_000, 128_000 + y * 1_000);
            let template = if number % 2 == 0 { BOAR } else { RABBIT };
            map.spawns.push(SpawnPoint { number, template, home });
        }
        map
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_named_map_has_open_start_and_homes() {
        for name in Map::NAMES {
            let map = Map::named(name).unwrap();
            assert_eq!(map.name, name);
            let homes = map.spawns.iter().map(|spawn| spawn.home);
            for at in homes.chain([map.start]) {
                assert_eq!(map.nearest_walkable(at), at, "{name} {at:?}");
            }
            let numbers: BTreeSet<u32> = map.spawns.iter().map(|spawn| spawn.number).collect();
            assert_eq!(numbers.len(), map.spawns.len(), "{name}");
        }
        assert!(Map::named("").is_none());
    }
}
