//! Soft state, written in batches: one statement for any number of characters.

use std::collections::{BTreeMap, HashSet};

use shardkeep_types::CharacterId;

use super::{Game, SoftState};
use crate::{Error, Rows, Tx, sql, transact};

impl Game {
    /// Writes the states whose epoch is the character's; returns the characters whose epoch is another. Of several
    /// states of one character the highest epoch counts, and of those the last.
    pub async fn save_soft(&self, states: &[SoftState]) -> Result<Vec<CharacterId>, Error> {
        if states.is_empty() {
            return Ok(Vec::new());
        }
        transact!(self.database, |tx| save_in(&mut tx, states))
    }
}

pub(super) async fn save_in(tx: &mut Tx, states: &[SoftState]) -> Result<Vec<CharacterId>, Error> {
    let mut newest = BTreeMap::new();
    for state in states {
        let entry = newest.entry(state.character).or_insert(state);
        if state.epoch >= entry.epoch {
            *entry = state;
        }
    }
    let column = |value: fn(&SoftState) -> i64| newest.values().map(move |state| value(state));
    let rows = Rows::new()
        .ints("id", newest.keys().map(|id| id.0))
        .ints("epoch", newest.values().map(|state| state.epoch.0))
        .ints("map", column(|state| state.position.map.0.into()))
        .ints("x_mm", column(|state| state.position.x_mm.into()))
        .ints("y_mm", column(|state| state.position.y_mm.into()))
        .ints("facing", column(|state| state.facing.into()))
        .ints("health", column(|state| state.health.into()));
    // Locked in key order, as hard actions lock them; an owner that changed meanwhile is found by its epoch.
    let query = sql("WITH fresh AS (
             SELECT characters.id, r.epoch, r.map, r.x_mm, r.y_mm, r.facing, r.health
             FROM characters, {rows} WHERE characters.id = r.id AND characters.epoch = r.epoch
             ORDER BY characters.id {for_update})
         UPDATE characters SET map = fresh.map, x_mm = fresh.x_mm, y_mm = fresh.y_mm, facing = fresh.facing,
             health = fresh.health
         FROM fresh WHERE characters.id = fresh.id AND characters.epoch = fresh.epoch RETURNING characters.id");
    let mut saved = HashSet::with_capacity(newest.len());
    for mut row in tx.fetch_all(query.rows(rows)).await? {
        saved.insert(CharacterId(row.take()?));
    }
    Ok(newest.into_keys().filter(|id| !saved.contains(id)).collect())
}
