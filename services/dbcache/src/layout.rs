//! Converts messages about the layout of a world to the types of the store and back.

use shardkeep_rpc::{Malformed, dbcache as proto};
use shardkeep_store::game;
use shardkeep_types::{Epoch, SectorId, SpaceId, Term, WorldId};

pub(crate) fn cursor(cursor: proto::LayoutCursor) -> Result<game::LayoutCursor, Malformed> {
    use proto::layout_cursor::After;
    Ok(match cursor.after.ok_or_else(|| Malformed::missing("after"))? {
        After::Space(space) => game::LayoutCursor::Space(SpaceId(space)),
        After::Sector(sector) => game::LayoutCursor::Sector(SectorId(sector)),
    })
}

pub(crate) fn page(page: game::LayoutPage) -> proto::LoadLayoutReply {
    use proto::layout_cursor::After;
    let next = page.next.map(|next| match next {
        game::LayoutCursor::Space(space) => After::Space(space.0),
        game::LayoutCursor::Sector(sector) => After::Sector(sector.0),
    });
    proto::LoadLayoutReply {
        revision: page.head.map_or(0, |head| head.revision),
        next_space: page.head.map_or(1, |head| head.next_space),
        next_sector: page.head.map_or(1, |head| head.next_sector),
        spaces: page.spaces.into_iter().map(space).collect(),
        sectors: page.sectors.into_iter().map(sector).collect(),
        next: next.map(|after| proto::LayoutCursor { after: Some(after) }),
    }
}

pub(crate) fn change(request: proto::StoreLayoutRequest) -> Result<game::LayoutChange, Malformed> {
    Ok(game::LayoutChange {
        world: WorldId(request.world),
        term: Term(request.term),
        revision: request.revision,
        next_space: request.next_space,
        next_sector: request.next_sector,
        spaces: request.spaces.into_iter().map(stored_space).collect::<Result<_, _>>()?,
        sectors: request.sectors.into_iter().map(stored_sector).collect::<Result<_, _>>()?,
        removed_spaces: request.removed_spaces.into_iter().map(SpaceId).collect(),
        removed_sectors: request.removed_sectors.into_iter().map(SectorId).collect(),
    })
}

fn space(space: game::Space) -> proto::LayoutSpace {
    proto::LayoutSpace {
        space: space.id.0,
        map: space.map,
        closing: space.closing,
        tick_hz: space.tick_hz,
        width: space.width.into(),
        height: space.height.into(),
    }
}

fn sector(sector: game::Sector) -> proto::LayoutSector {
    let (owner, owner_incarnation) =
        sector.owner.map(|owner| (owner.zone, owner.incarnation)).unwrap_or_default();
    proto::LayoutSector {
        sector: sector.id.0,
        cells: Some(sector.cells.into()),
        owner,
        owner_incarnation,
        epoch: sector.epoch.0,
        pinned: sector.pinned.unwrap_or_default(),
    }
}

fn stored_space(space: proto::LayoutSpace) -> Result<game::Space, Malformed> {
    let side = |field, cells: u32| u16::try_from(cells).map_err(|error| Malformed::new(field, error));
    Ok(game::Space {
        id: SpaceId(space.space),
        map: space.map,
        closing: space.closing,
        tick_hz: space.tick_hz,
        width: side("width", space.width)?,
        height: side("height", space.height)?,
    })
}

fn stored_sector(sector: proto::LayoutSector) -> Result<game::Sector, Malformed> {
    let owner = game::Owner { zone: sector.owner, incarnation: sector.owner_incarnation };
    Ok(game::Sector {
        id: SectorId(sector.sector),
        cells: sector.cells.ok_or_else(|| Malformed::missing("cells"))?.try_into()?,
        owner: (!owner.zone.is_empty()).then_some(owner),
        epoch: Epoch(sector.epoch),
        pinned: (!sector.pinned.is_empty()).then_some(sector.pinned),
    })
}
