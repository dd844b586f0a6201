//! Changes of the layout that operators request.

use shardkeep_types::{SectorId, SpaceId};

use super::{Partition, UpZones};
use crate::domain::{
    effect::Effect,
    layout::{LayoutError, SplitLine},
    zone::{Health, ZoneView},
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LayoutCommand {
    /// Pins the sector to a zone, which takes it as soon as the limit of migrations allows.
    Move {
        sector: SectorId,
        zone: String,
    },
    Unpin {
        sector: SectorId,
    },
    Split {
        sector: SectorId,
        line: Option<SplitLine>,
    },
    Merge {
        first: SectorId,
        second: SectorId,
    },
    /// `size`: width and height of the map in cells. No tick rate: as space 1.
    CreateSpace {
        map: String,
        tick_hz: Option<u32>,
        size: (u16, u16),
    },
    CloseSpace {
        space: SpaceId,
    },
}

/// A change that is planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LayoutCommandDone {
    /// The change takes effect when this revision is stored.
    pub(crate) revision: u64,
    /// The number of the sector or space that the command made; 0 for others.
    pub(crate) made: u32,
}

impl Partition {
    /// Plans the change, and stores it after the changes that are planned already.
    pub(crate) fn command(
        &mut self,
        zones: &[ZoneView],
        command: LayoutCommand,
    ) -> Result<(LayoutCommandDone, Vec<Effect>), LayoutError> {
        let made = match command {
            LayoutCommand::Move { sector, zone } => {
                self.planned.find_sector(sector)?;
                check_zone(zones, &zone)?;
                self.planned.pin(sector, Some(zone));
                0
            }
            LayoutCommand::Unpin { sector } => {
                self.planned.find_sector(sector)?;
                self.planned.pin(sector, None);
                0
            }
            LayoutCommand::Split { sector, line } => {
                self.check_not_moving(sector)?;
                self.planned.split(sector, line)?.0
            }
            LayoutCommand::Merge { first, second } => {
                self.check_not_moving(first)?;
                self.check_not_moving(second)?;
                self.planned.merge(first, second)?.0
            }
            LayoutCommand::CreateSpace { map, tick_hz, size } => {
                let first = self.planned.space(SpaceId::FIRST).ok_or(LayoutError::NotLoaded)?;
                let tick_hz = tick_hz.unwrap_or(first.tick_hz());
                self.planned.create_space(&map, tick_hz, size)?.0
            }
            LayoutCommand::CloseSpace { space } => {
                self.planned.close_space(space)?;
                0
            }
        };
        let effects = self.store_plan();
        Ok((LayoutCommandDone { revision: self.planned_revision(), made }, effects))
    }

    /// Refuses sectors whose avatars two zones have at present.
    fn check_not_moving(&self, sector: SectorId) -> Result<(), LayoutError> {
        match self.migrations.source(sector) {
            Some(from) => Err(LayoutError::Moving { sector, from: from.name.clone() }),
            None => Ok(()),
        }
    }
}

/// Refuses zones that are not up.
fn check_zone(zones: &[ZoneView], name: &str) -> Result<(), LayoutError> {
    if UpZones::new(zones).named(name).is_some() {
        return Ok(());
    }
    let zone = name.to_owned();
    let Some(known) = zones.iter().find(|zone| zone.id().name == name) else {
        let mut known: Vec<&str> = zones.iter().map(|zone| zone.id().name.as_str()).collect();
        known.sort_unstable();
        return Err(LayoutError::NoSuchZone { zone, known: known.join(", ") });
    };
    let state = match () {
        () if known.is(Health::Draining) => "draining",
        () if known.is(Health::Starting) => "starting",
        () => "offline",
    };
    Err(LayoutError::ZoneNotUp { zone, state })
}
