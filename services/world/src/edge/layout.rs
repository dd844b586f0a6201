//! Conversions between the layout of the world and messages of the database, of zones and of operators.

use shardkeep_rpc::{
    Malformed, dbcache,
    world::{self as proto, change_layout_request::Change, split_line::Axis},
};
use shardkeep_sim::Map;
use shardkeep_types::{CellRect, DaemonKind, Epoch, InstanceId, SectorId, SpaceId, Term, WorldId};
use tonic::Status;

use crate::{
    config::map_size,
    domain::{
        layout::{Layout, LayoutChange, LayoutError, Sector, Space, SplitLine},
        partition::{LayoutCommand, Partition},
        population::Population,
        zone::ZoneView,
        zones::Zones,
    },
};

/// The layout as zones get it.
pub(crate) fn partition(term: Term, layout: &Layout, zones: &Zones) -> proto::Partition {
    let space = |space: &Space| {
        let (width, height) = space.size();
        proto::Space {
            space: space.id().0,
            map: space.map().to_owned(),
            tick_hz: space.tick_hz(),
            width: width.into(),
            height: height.into(),
            closing: space.is_closing(),
        }
    };
    let sector = |sector: &Sector| {
        let owner = sector.owner();
        let address = owner.and_then(|owner| zones.get(owner)).map(ZoneView::grpc_address);
        proto::Sector {
            cells: Some(sector.cells().into()),
            zone: owner.map(|owner| owner.name.clone()).unwrap_or_default(),
            incarnation: owner.map_or(0, |owner| owner.incarnation),
            epoch: sector.epoch().0,
            grpc_address: address.unwrap_or_default().to_owned(),
            sector: sector.id().0,
            pinned: sector.pinned().unwrap_or_default().to_owned(),
            avatars: 0,
            moving_from: String::new(),
        }
    };
    proto::Partition {
        term: term.0,
        epoch: layout.revision(),
        sectors: layout.sectors().map(sector).collect(),
        spaces: layout.spaces().map(space).collect(),
        alive: zones.alive().map(live_zone).collect(),
    }
}

fn live_zone(zone: &ZoneView) -> proto::LiveZone {
    proto::LiveZone { zone: Some(zone.id().into()), grpc_address: zone.grpc_address().to_owned() }
}

/// The layout with avatars and migrations, as operators get it.
pub(crate) fn status(
    term: Term,
    partition: &Partition,
    zones: &Zones,
    population: &Population,
) -> proto::Partition {
    let mut table = self::partition(term, partition.layout(), zones);
    for sector in &mut table.sectors {
        let id = SectorId(sector.sector);
        sector.avatars = population.avatars_in(id);
        let source = partition.migrations().source(id);
        sector.moving_from = source.map(|zone| zone.name.clone()).unwrap_or_default();
    }
    table
}

/// The layout from all its stored rows. `None`: nothing is stored.
pub(crate) fn loaded(rows: dbcache::LoadLayoutReply) -> Result<Option<Layout>, Malformed> {
    if rows.revision == 0 {
        return Ok(None);
    }
    let side = |field, cells: u32| u16::try_from(cells).map_err(|error| Malformed::new(field, error));
    let space = |row: dbcache::LayoutSpace| {
        let (width, height) = (side("width", row.width)?, side("height", row.height)?);
        Ok(Space::new(SpaceId(row.space), row.map, row.tick_hz, width, height).stored(row.closing))
    };
    let sector = |row: dbcache::LayoutSector| {
        let cells: CellRect = row.cells.ok_or_else(|| Malformed::missing("cells"))?.try_into()?;
        let owner =
            InstanceId { kind: DaemonKind::Zone, name: row.owner, incarnation: row.owner_incarnation };
        let owner = (!owner.name.is_empty()).then_some(owner);
        let pinned = (!row.pinned.is_empty()).then_some(row.pinned);
        Ok(Sector::new(SectorId(row.sector), cells).stored(owner, Epoch(row.epoch), pinned))
    };
    let spaces = rows.spaces.into_iter().map(space).collect::<Result<_, Malformed>>()?;
    let sectors = rows.sectors.into_iter().map(sector).collect::<Result<_, Malformed>>()?;
    Ok(Some(Layout::stored(rows.revision, rows.next_space, rows.next_sector, spaces, sectors)))
}

pub(crate) fn change(world: WorldId, term: Term, change: &LayoutChange) -> dbcache::StoreLayoutRequest {
    let space = |space: &Space| {
        let (width, height) = space.size();
        dbcache::LayoutSpace {
            space: space.id().0,
            map: space.map().to_owned(),
            closing: space.is_closing(),
            tick_hz: space.tick_hz(),
            width: width.into(),
            height: height.into(),
        }
    };
    let sector = |sector: &Sector| dbcache::LayoutSector {
        sector: sector.id().0,
        cells: Some(sector.cells().into()),
        owner: sector.owner().map(|owner| owner.name.clone()).unwrap_or_default(),
        owner_incarnation: sector.owner().map_or(0, |owner| owner.incarnation),
        epoch: sector.epoch().0,
        pinned: sector.pinned().unwrap_or_default().to_owned(),
    };
    dbcache::StoreLayoutRequest {
        world: world.0,
        term: term.0,
        revision: change.revision,
        next_space: change.next_space,
        next_sector: change.next_sector,
        spaces: change.spaces.iter().map(space).collect(),
        sectors: change.sectors.iter().map(sector).collect(),
        removed_spaces: change.removed_spaces.iter().map(|space| space.0).collect(),
        removed_sectors: change.removed_sectors.iter().map(|sector| sector.0).collect(),
    }
}

/// The change that an operator requests.
pub(crate) fn command(request: proto::ChangeLayoutRequest) -> Result<LayoutCommand, Status> {
    Ok(match request.change.ok_or_else(|| Malformed::missing("change"))? {
        Change::Move(proto::MoveSector { sector, zone }) if zone.is_empty() => {
            LayoutCommand::Unpin { sector: SectorId(sector) }
        }
        Change::Move(proto::MoveSector { sector, zone }) => {
            LayoutCommand::Move { sector: SectorId(sector), zone }
        }
        Change::Split(split) => LayoutCommand::Split {
            sector: SectorId(split.sector),
            line: split.line.map(split_line).transpose()?,
        },
        Change::Merge(proto::MergeSectors { first, second }) => {
            LayoutCommand::Merge { first: SectorId(first), second: SectorId(second) }
        }
        Change::Create(proto::CreateSpace { map, tick_hz }) => {
            let unknown = || LayoutError::UnknownMap { map: map.clone(), known: Map::NAMES.join(", ") };
            let size = map_size(&map).ok_or_else(unknown)?;
            LayoutCommand::CreateSpace { map, tick_hz: (tick_hz > 0).then_some(tick_hz), size }
        }
        Change::Close(proto::CloseSpace { space }) => LayoutCommand::CloseSpace { space: SpaceId(space) },
    })
}

fn split_line(line: proto::SplitLine) -> Result<SplitLine, Malformed> {
    let cell = |cell: u32| u16::try_from(cell).map_err(|error| Malformed::new("line", error));
    Ok(match line.axis.ok_or_else(|| Malformed::missing("line"))? {
        Axis::X(at) => SplitLine::X(cell(at)?),
        Axis::Y(at) => SplitLine::Y(cell(at)?),
    })
}

impl From<LayoutError> for Status {
    fn from(error: LayoutError) -> Self {
        let text = error.to_string();
        match error {
            LayoutError::NotLoaded => Self::unavailable(text),
            LayoutError::NoSuchSector { .. }
            | LayoutError::NoSuchSpace { .. }
            | LayoutError::NoSuchZone { .. }
            | LayoutError::UnknownMap { .. } => Self::not_found(text),
            LayoutError::LineOutside { .. } | LayoutError::SameSector | LayoutError::TickRate { .. } => {
                Self::invalid_argument(text)
            }
            LayoutError::TooManySectors | LayoutError::TooManySpaces => Self::resource_exhausted(text),
            LayoutError::SingleCell(_)
            | LayoutError::NotAdjacent(..)
            | LayoutError::OwnersDiffer { .. }
            | LayoutError::Moving { .. }
            | LayoutError::ZoneNotUp { .. }
            | LayoutError::FirstSpace
            | LayoutError::AlreadyClosing(_) => Self::failed_precondition(text),
        }
    }
}
