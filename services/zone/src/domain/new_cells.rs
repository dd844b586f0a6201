//! Cells that a zone owns since a short time. Their spawns come alive when no other zone can hand them over any more.

use std::{collections::BTreeMap, time::Instant};

use shardkeep_types::CellRect;

/// Cells whose ground is loaded.
#[derive(Debug)]
pub(crate) struct Populating {
    at: Instant,
    pub(crate) cells: CellRect,
    pub(crate) generations: BTreeMap<u32, u64>,
}

#[derive(Debug, Default)]
pub(crate) struct NewCells {
    /// Cells that wait for the spawns of another zone, and how long.
    waits: Vec<(CellRect, Instant)>,
    populating: Vec<Populating>,
}

impl NewCells {
    pub(crate) fn wait(&mut self, cells: CellRect, until: Instant) {
        self.waits.push((cells, until));
    }

    /// These cells are lost, or will be loaded anew. `stays` tells whether the zone still owns cells that wait.
    pub(crate) fn forget(&mut self, cells: &CellRect, stays: impl Fn(&CellRect) -> bool) {
        self.waits.retain(|(gained, _)| stays(gained));
        self.populating.retain(|next| next.cells.distance(cells) != Some(0));
    }

    /// The ground of these cells is loaded. `generations` has the last minted generation of each spawn.
    pub(crate) fn loaded(&mut self, now: Instant, cells: CellRect, generations: BTreeMap<u32, u64>) {
        let waits = self.waits.iter().filter(|(gained, _)| gained.distance(&cells) == Some(0));
        let at = waits.map(|(_, until)| *until).max().unwrap_or(now);
        self.populating.push(Populating { at, cells, generations });
    }

    /// The cells whose spawns may come alive now.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<Populating> {
        self.waits.retain(|(_, until)| *until > now);
        self.populating.extract_if(.., |next| next.at <= now).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use shardkeep_types::SpaceId;

    use super::*;

    fn cells(x0: u16) -> CellRect {
        CellRect { space: SpaceId(1), x0, y0: 0, x1: x0 + 2, y1: 1 }
    }

    #[test]
    fn cells_populate_when_their_wait_is_over_and_not_when_they_are_lost() {
        let (mut new, now) = (NewCells::default(), Instant::now());
        let later = now + Duration::from_secs(1);
        new.wait(cells(0), later);
        new.loaded(now, cells(0), BTreeMap::new());
        new.loaded(now, cells(2), BTreeMap::new());
        let due = |new: &mut NewCells, at| new.due(at).iter().map(|it| it.cells.x0).collect::<Vec<_>>();
        assert_eq!(due(&mut new, now), [2]);
        assert_eq!(due(&mut new, later), [0]);
        new.wait(cells(0), later + Duration::from_secs(1));
        new.loaded(later, cells(0), BTreeMap::new());
        new.forget(&cells(0), |_| false);
        assert!(due(&mut new, later + Duration::from_secs(9)).is_empty());
    }
}
