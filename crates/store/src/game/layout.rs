//! The layout of a world: its spaces, and the sectors that divide each of them among zones. The leading world stores each
//! change before zones learn of it, so that the layout survives the leader.

use shardkeep_types::{CellRect, Epoch, SectorId, SpaceId, Term, WorldId};

use super::{
    leadership::check_term,
    refusal::{GameError, Refusal},
    tables::Game,
    types::Owner,
};
use crate::{Error, Query, Row, Rows, Tx, sql, transact};

/// The most spaces, and the most sectors, that one change may write or remove.
pub const MAX_LAYOUT_ROWS: usize = 10_000;

/// An instance of a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Space {
    pub id: SpaceId,
    pub map: String,
    /// Avatars leave the space, and none may enter. It is removed when it is empty.
    pub closing: bool,
    pub tick_hz: u32,
    /// In cells.
    pub width: u16,
    pub height: u16,
}

/// A part of a space with one owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sector {
    pub id: SectorId,
    pub cells: CellRect,
    pub owner: Option<Owner>,
    /// Rises with every change of the owner.
    pub epoch: Epoch,
    /// The zone that an operator has chosen.
    pub pinned: Option<String>,
}

/// The revision of a layout, and the counters of its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayoutHead {
    /// Number of changes so far.
    pub revision: u64,
    /// Numbers of the next space and the next sector.
    pub next_space: u32,
    pub next_sector: u32,
}

/// Where the next page begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayoutCursor {
    Space(SpaceId),
    Sector(SectorId),
}

/// One page of a layout: spaces first, then sectors.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LayoutPage {
    /// `None`: the world has no layout yet.
    pub head: Option<LayoutHead>,
    pub spaces: Vec<Space>,
    pub sectors: Vec<Sector>,
    /// `None` on the last page.
    pub next: Option<LayoutCursor>,
}

/// One change of a layout, which takes effect as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayoutChange {
    pub world: WorldId,
    pub term: Term,
    /// The revision that the change begins with; 0 for the first layout of a world.
    pub revision: u64,
    pub next_space: u32,
    pub next_sector: u32,
    /// New and changed rows.
    pub spaces: Vec<Space>,
    pub sectors: Vec<Sector>,
    pub removed_spaces: Vec<SpaceId>,
    pub removed_sectors: Vec<SectorId>,
}

impl Game {
    /// The page after a cursor, with at most `limit` spaces and `limit` sectors. All pages of one layout have the same
    /// revision.
    pub async fn load_layout(
        &self,
        world: WorldId,
        after: Option<LayoutCursor>,
        limit: usize,
    ) -> Result<LayoutPage, Error> {
        let mut page = LayoutPage::default();
        let mut tx = self.database().snapshot().await?;
        let query = sql("SELECT revision, next_space, next_sector, term FROM layouts WHERE world = $1");
        page.head = read_head(&mut tx, world, query).await?.map(|(head, _)| head);
        let after = match after.unwrap_or(LayoutCursor::Space(SpaceId(0))) {
            LayoutCursor::Space(space) => {
                page.spaces = read_spaces(&mut tx, world, space, limit).await?;
                if let Some(last) = page.spaces.last().filter(|_| page.spaces.len() == limit) {
                    page.next = Some(LayoutCursor::Space(last.id));
                    return Ok(page);
                }
                SectorId(0)
            }
            LayoutCursor::Sector(sector) => sector,
        };
        page.sectors = read_sectors(&mut tx, world, after, limit).await?;
        tx.commit().await?;
        let last = page.sectors.last().filter(|_| page.sectors.len() == limit);
        page.next = last.map(|last| LayoutCursor::Sector(last.id));
        Ok(page)
    }

    /// Stores a change and returns the new revision. A repeat of the last change of the same term gets the same answer.
    ///
    /// # Errors
    /// [`Refusal::StaleTerm`], [`Refusal::StaleRevision`] if the layout has another revision, [`Refusal::Invalid`] for a
    /// number that was used before and for too many rows.
    pub async fn store_layout(&self, change: &LayoutChange) -> Result<u64, GameError> {
        change.check()?;
        transact!(self.database(), |tx| store_in(&mut tx, change))
    }
}

impl LayoutChange {
    fn check(&self) -> Result<(), Refusal> {
        let rows =
            [self.spaces.len(), self.sectors.len(), self.removed_spaces.len(), self.removed_sectors.len()];
        if rows.into_iter().any(|rows| rows > MAX_LAYOUT_ROWS) {
            return Err(Refusal::Invalid(format!(
                "a change has at most {MAX_LAYOUT_ROWS} rows of each kind"
            )));
        }
        let mut spaces: Vec<u32> = self.spaces.iter().map(|space| space.id.0).collect();
        let mut sectors: Vec<u32> = self.sectors.iter().map(|sector| sector.id.0).collect();
        for (numbers, next, kind) in
            [(&mut spaces, self.next_space, "space"), (&mut sectors, self.next_sector, "sector")]
        {
            numbers.sort_unstable();
            if numbers.windows(2).any(|pair| pair[0] == pair[1]) {
                return Err(Refusal::Invalid(format!("a change names a {kind} twice")));
            }
            let outside = numbers.iter().find(|number| !(1..next).contains(*number));
            if let Some(number) = outside {
                return Err(Refusal::Invalid(format!(
                    "{kind} {number} is not between 1 and the next number"
                )));
            }
        }
        let empty = |cells: &CellRect| cells.x0 >= cells.x1 || cells.y0 >= cells.y1;
        match self.sectors.iter().find(|sector| empty(&sector.cells)) {
            Some(sector) => Err(Refusal::Invalid(format!("sector {} has no cells", sector.id))),
            None => Ok(()),
        }
    }
}

async fn store_in(tx: &mut Tx, change: &LayoutChange) -> Result<u64, GameError> {
    check_term(tx, change.world, change.term).await?;
    let query =
        sql("SELECT revision, next_space, next_sector, term FROM layouts WHERE world = $1 {for_update}");
    let stored = read_head(tx, change.world, query).await?;
    let before = stored.map_or(LayoutHead { revision: 0, next_space: 1, next_sector: 1 }, |(head, _)| head);
    let next = change.revision.saturating_add(1);
    if before.revision == next && stored.is_some_and(|(_, term)| term == change.term) {
        return Ok(next);
    }
    if before.revision != change.revision {
        return Err(Refusal::StaleRevision(before.revision).into());
    }
    if change.next_space < before.next_space || change.next_sector < before.next_sector {
        return Err(Refusal::Invalid("the next numbers of spaces and sectors never fall".to_owned()).into());
    }
    write_head(tx, change, next).await?;
    write_spaces(tx, change, before.next_space).await?;
    write_sectors(tx, change, before.next_sector).await?;
    Ok(next)
}

/// The row of the world, and the term that wrote it.
async fn read_head(tx: &mut Tx, world: WorldId, query: Query) -> Result<Option<(LayoutHead, Term)>, Error> {
    let Some(mut row) = tx.fetch_optional(query.bind(world.0)).await? else { return Ok(None) };
    let head = LayoutHead { revision: row.take()?, next_space: row.take()?, next_sector: row.take()? };
    Ok(Some((head, Term(row.take()?))))
}

async fn write_head(tx: &mut Tx, change: &LayoutChange, revision: u64) -> Result<(), GameError> {
    let query = sql("INSERT INTO layouts (world, revision, term, next_space, next_sector)
         VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (world) DO UPDATE SET revision = excluded.revision, term = excluded.term,
             next_space = excluded.next_space, next_sector = excluded.next_sector
         WHERE layouts.revision = $6");
    let query = query.bind(change.world.0).bind(revision).bind(change.term.0);
    let query = query.bind(change.next_space).bind(change.next_sector).bind(change.revision);
    // Two transactions inserted the first row at the same time.
    if tx.execute(query).await? == 0 { Err(Refusal::StaleRevision(revision).into()) } else { Ok(()) }
}

async fn write_spaces(tx: &mut Tx, change: &LayoutChange, next_before: u32) -> Result<(), GameError> {
    let delete = sql("DELETE FROM spaces WHERE world = $1 AND space IN (SELECT r.space FROM {rows})");
    let removed = change.removed_spaces.iter().map(|space| space.0);
    tx.execute(delete.bind(change.world.0).rows(Rows::new().ints("space", removed))).await?;
    let (known, new): (Vec<_>, Vec<_>) = change.spaces.iter().partition(|space| space.id.0 < next_before);
    let update = sql("UPDATE spaces SET map = r.map, state = r.state, tick_hz = r.tick_hz, width = r.width,
             height = r.height
         FROM {rows} WHERE spaces.world = $1 AND spaces.space = r.space");
    let updated = tx.execute(update.bind(change.world.0).rows(space_rows(&known))).await?;
    all_known(updated, known.len(), "space")?;
    let insert = sql("INSERT INTO spaces (world, space, map, state, tick_hz, width, height, created_ms)
         SELECT $1, r.space, r.map, r.state, r.tick_hz, r.width, r.height, {now_ms} FROM {rows}");
    tx.execute(insert.bind(change.world.0).rows(space_rows(&new))).await?;
    Ok(())
}

fn space_rows(spaces: &[&Space]) -> Rows {
    Rows::new()
        .ints("space", spaces.iter().map(|space| space.id.0))
        .texts("map", spaces.iter().map(|space| &space.map))
        .ints("state", spaces.iter().map(|space| space.closing))
        .ints("tick_hz", spaces.iter().map(|space| space.tick_hz))
        .ints("width", spaces.iter().map(|space| space.width))
        .ints("height", spaces.iter().map(|space| space.height))
}

async fn write_sectors(tx: &mut Tx, change: &LayoutChange, next_before: u32) -> Result<(), GameError> {
    let delete = sql("DELETE FROM sectors WHERE world = $1 AND sector IN (SELECT r.sector FROM {rows})");
    let removed = change.removed_sectors.iter().map(|sector| sector.0);
    tx.execute(delete.bind(change.world.0).rows(Rows::new().ints("sector", removed))).await?;
    let (known, new): (Vec<_>, Vec<_>) = change.sectors.iter().partition(|sector| sector.id.0 < next_before);
    // The epoch of a sector never falls.
    let update = sql("UPDATE sectors SET space = r.space, x0 = r.x0, y0 = r.y0, x1 = r.x1, y1 = r.y1,
             owner = r.owner, owner_incarnation = r.owner_incarnation, epoch = r.epoch, pinned = r.pinned
         FROM {rows} WHERE sectors.world = $1 AND sectors.sector = r.sector AND sectors.epoch <= r.epoch");
    let updated = tx.execute(update.bind(change.world.0).rows(sector_rows(&known))).await?;
    all_known(updated, known.len(), "sector")?;
    let insert = sql(
        "INSERT INTO sectors (world, sector, space, x0, y0, x1, y1, owner, owner_incarnation, epoch, pinned)
         SELECT $1, r.sector, r.space, r.x0, r.y0, r.x1, r.y1, r.owner, r.owner_incarnation, r.epoch, r.pinned
         FROM {rows}",
    );
    tx.execute(insert.bind(change.world.0).rows(sector_rows(&new))).await?;
    Ok(())
}

fn sector_rows(sectors: &[&Sector]) -> Rows {
    let owner = |sector: &Sector| sector.owner.as_ref().map(|owner| owner.zone.clone()).unwrap_or_default();
    let incarnation = |sector: &Sector| sector.owner.as_ref().map_or(0, |owner| owner.incarnation);
    Rows::new()
        .ints("sector", sectors.iter().map(|sector| sector.id.0))
        .ints("space", sectors.iter().map(|sector| sector.cells.space.0))
        .ints("x0", sectors.iter().map(|sector| sector.cells.x0))
        .ints("y0", sectors.iter().map(|sector| sector.cells.y0))
        .ints("x1", sectors.iter().map(|sector| sector.cells.x1))
        .ints("y1", sectors.iter().map(|sector| sector.cells.y1))
        .texts("owner", sectors.iter().map(|sector| owner(sector)))
        .ints("owner_incarnation", sectors.iter().map(|sector| incarnation(sector)))
        .ints("epoch", sectors.iter().map(|sector| sector.epoch.0))
        .texts("pinned", sectors.iter().map(|sector| sector.pinned.clone().unwrap_or_default()))
}

/// A number below the stored next number belongs to a row. A removed row never returns.
fn all_known(updated: u64, known: usize, kind: &str) -> Result<(), Refusal> {
    if updated == known as u64 {
        return Ok(());
    }
    Err(Refusal::Invalid(format!("a {kind} of the change was removed earlier, or its epoch falls")))
}

async fn read_spaces(tx: &mut Tx, world: WorldId, after: SpaceId, limit: usize) -> Result<Vec<Space>, Error> {
    let query = sql("SELECT space, map, state, tick_hz, width, height FROM spaces
         WHERE world = $1 AND space > $2 ORDER BY space LIMIT $3");
    let rows = tx.fetch_all(query.bind(world.0).bind(after.0).bind(limit as u64)).await?;
    rows.into_iter().map(read_space).collect()
}

fn read_space(mut row: Row) -> Result<Space, Error> {
    Ok(Space {
        id: SpaceId(row.take()?),
        map: row.take()?,
        closing: row.take()?,
        tick_hz: row.take()?,
        width: row.take()?,
        height: row.take()?,
    })
}

async fn read_sectors(
    tx: &mut Tx,
    world: WorldId,
    after: SectorId,
    limit: usize,
) -> Result<Vec<Sector>, Error> {
    let query =
        sql("SELECT sector, space, x0, y0, x1, y1, owner, owner_incarnation, epoch, pinned FROM sectors
         WHERE world = $1 AND sector > $2 ORDER BY sector LIMIT $3");
    let rows = tx.fetch_all(query.bind(world.0).bind(after.0).bind(limit as u64)).await?;
    rows.into_iter().map(read_sector).collect()
}

fn read_sector(mut row: Row) -> Result<Sector, Error> {
    let id = SectorId(row.take()?);
    let cells = CellRect {
        space: SpaceId(row.take()?),
        x0: row.take()?,
        y0: row.take()?,
        x1: row.take()?,
        y1: row.take()?,
    };
    let owner = Owner { zone: row.take()?, incarnation: row.take()? };
    let (epoch, pinned): (u64, String) = (row.take()?, row.take()?);
    Ok(Sector {
        id,
        cells,
        owner: (!owner.zone.is_empty()).then_some(owner),
        epoch: Epoch(epoch),
        pinned: (!pinned.is_empty()).then_some(pinned),
    })
}
