//! Where the pairs of players walk: lanes across the border between the zones that no obstacle blocks.

use shardkeep_sim::{Map, SQUARE_MM};

/// Distance between two lanes.
const LANE_MM: i32 = 1_500;
/// How far on each side of the border a pair walks.
pub const BORDER_DISTANCE_MM: i32 = 9_000;
/// The two players of a pair walk this far apart: within reach of a trade.
pub const PARTNER_DISTANCE_MM: i32 = 1_000;

/// The way of one pair, in mm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lane {
    /// The road to the lane runs along this x.
    pub road_x: i32,
    /// The first player's y. The second walks [`PARTNER_DISTANCE_MM`] beside it.
    pub y: i32,
}

/// All free lanes of the first map, the nearest to the start first.
pub fn free_lanes() -> Vec<Lane> {
    let map = Map::meadow();
    let (start, border) = (map.start, map.width_mm() / 2);
    let free = |y: &i32| is_free(&map, start.x_mm, border + BORDER_DISTANCE_MM, *y);
    let mut all: Vec<i32> =
        (LANE_MM..map.height_mm() - LANE_MM).step_by(LANE_MM as usize).filter(free).collect();
    all.sort_by_key(|y| (y - start.y_mm).abs());
    all.into_iter().map(|y| Lane { road_x: start.x_mm, y }).collect()
}

/// Whether both players of a pair can walk straight from the road to the far end.
fn is_free(map: &Map, from_x: i32, to_x: i32, y: i32) -> bool {
    let margin = SQUARE_MM;
    let squares = |from: i32, to: i32| (from / SQUARE_MM..=to / SQUARE_MM).map(|square| square * SQUARE_MM);
    squares(from_x - margin, to_x + margin)
        .all(|x| squares(y - margin, y + PARTNER_DISTANCE_MM + margin).all(|y| !map.grid.is_blocked(x, y)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_of_500_players_are_free_and_distinct() {
        let lanes = free_lanes();
        assert!(lanes.len() >= 250, "{} lanes", lanes.len());
        let distinct: std::collections::HashSet<i32> = lanes.iter().map(|lane| lane.y).collect();
        assert_eq!(distinct.len(), lanes.len());
        let map = Map::meadow();
        for lane in lanes {
            for x in lane.road_x..map.width_mm() / 2 + BORDER_DISTANCE_MM {
                assert!(!map.grid.is_blocked(x, lane.y), "{x} {}", lane.y);
            }
        }
    }
}
