//! Writes soft state in batches of any size: one statement locks the rows, one writes them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use shardkeep_types::{CharacterId, Epoch, WorldId};

use super::{
    tables::Game,
    types::{Caller, Owner, SoftState},
};
use crate::{Error, Rows, Tx, sql, transact};

/// A soft state and the zone that sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SoftWrite {
    pub caller: Arc<Caller>,
    pub state: SoftState,
}

/// Why the database did not write a soft state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SoftRefusal {
    /// The character does not exist or has another epoch now.
    StaleEpoch,
    /// Another zone, or a zone of another world, owns the character in this epoch.
    Forbidden,
    /// The database has a state with a higher sequence of the same epoch. The sender does nothing.
    Superseded,
}

struct LockedRow {
    world: WorldId,
    owner: Option<Owner>,
    epoch: Epoch,
    sequence: u64,
}

impl LockedRow {
    fn check(&self, write: &SoftWrite) -> Result<(), SoftRefusal> {
        if write.caller.world() != self.world {
            return Err(SoftRefusal::Forbidden);
        }
        if write.state.epoch != self.epoch {
            return Err(SoftRefusal::StaleEpoch);
        }
        if !write.caller.owns(self.owner.as_ref()) {
            return Err(SoftRefusal::Forbidden);
        }
        if write.state.sequence < self.sequence { Err(SoftRefusal::Superseded) } else { Ok(()) }
    }
}

impl Game {
    /// Writes the states whose sender owns the character in the state's epoch, unless a later sequence has been written.
    /// Returns one outcome for each state, in order.
    pub async fn save_soft(&self, writes: &[SoftWrite]) -> Result<Vec<Result<(), SoftRefusal>>, Error> {
        if writes.is_empty() {
            return Ok(Vec::new());
        }
        transact!(self.database(), |tx| save_in(&mut tx, writes))
    }
}

pub(super) async fn save_in(
    tx: &mut Tx,
    writes: &[SoftWrite],
) -> Result<Vec<Result<(), SoftRefusal>>, Error> {
    let mut rows = lock_rows(tx, writes).await?;
    let (mut outcomes, mut newest) = (Vec::with_capacity(writes.len()), BTreeMap::new());
    for write in writes {
        let outcome = match rows.get_mut(&write.state.character) {
            None => Err(SoftRefusal::StaleEpoch),
            Some(row) => row.check(write).inspect(|()| {
                row.sequence = write.state.sequence;
                newest.insert(write.state.character, &write.state);
            }),
        };
        outcomes.push(outcome);
    }
    if !newest.is_empty() {
        write_states(tx, &newest).await?;
    }
    Ok(outcomes)
}

/// Locks the rows in key order, as hard actions do, so that the two cannot deadlock.
async fn lock_rows(tx: &mut Tx, writes: &[SoftWrite]) -> Result<HashMap<CharacterId, LockedRow>, Error> {
    let ids: BTreeSet<u64> = writes.iter().map(|write| write.state.character.0).collect();
    let query = sql("SELECT id, world, owner, owner_incarnation, epoch, soft_sequence FROM characters
         WHERE id IN (SELECT r.id FROM {rows}) ORDER BY id {for_update}");
    let mut rows = HashMap::with_capacity(ids.len());
    for mut row in tx.fetch_all(query.rows(Rows::new().ints("id", ids))).await? {
        let (id, world) = (CharacterId(row.take()?), WorldId(row.take()?));
        let owner = Owner { zone: row.take()?, incarnation: row.take()? };
        let owner = (!owner.zone.is_empty()).then_some(owner);
        rows.insert(id, LockedRow { world, owner, epoch: Epoch(row.take()?), sequence: row.take()? });
    }
    Ok(rows)
}

async fn write_states(tx: &mut Tx, states: &BTreeMap<CharacterId, &SoftState>) -> Result<(), Error> {
    let column = |value: fn(&SoftState) -> i64| states.values().map(move |state| value(state));
    let rows = Rows::new()
        .ints("id", states.keys().map(|id| id.0))
        .ints("sequence", states.values().map(|state| state.sequence))
        .ints("space", column(|state| state.position.space.0.into()))
        .ints("layer", column(|state| state.position.layer.0.into()))
        .ints("x_mm", column(|state| state.position.x_mm.into()))
        .ints("y_mm", column(|state| state.position.y_mm.into()))
        .ints("z_mm", column(|state| state.position.z_mm.into()))
        .ints("facing", column(|state| state.facing.into()))
        .ints("health", column(|state| state.health.into()));
    let query = sql("UPDATE characters SET soft_sequence = r.sequence, space = r.space, layer = r.layer,
             x_mm = r.x_mm, y_mm = r.y_mm, z_mm = r.z_mm, facing = r.facing, health = r.health
         FROM {rows} WHERE characters.id = r.id");
    tx.execute(query.rows(rows)).await?;
    Ok(())
}
