//! Commits a batch of hard actions as one transaction. It locks every named row in key order, applies the actions one
//! after the other, and writes the outcome. A batch of any size takes about a dozen statements and one commit.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use shardkeep_types::{CharacterId, ItemId, SpaceId, SpawnId, WorldId};

use super::{
    characters::{CharacterRow, character_columns},
    holder::Holder,
    holdings::Holdings,
    ids::Sequence,
    plan::{LockedCharacter, Spawn, Stack, State, StoredResult},
    refusal::{GameError, Refusal},
    tables::Game,
    types::{ACTION_WINDOW, ActionId, ActionLookup, Caller, HardAction, HardResult, Item},
};
use crate::{Error, Rows, Tx, sql, transact};

/// The outcome of each action of a batch.
pub(super) type Outcomes = Vec<Result<HardResult, Refusal>>;

impl Game {
    /// Commits actions together. Each takes effect or is refused by itself. After an error it is unknown whether they
    /// took effect: repeat them, their ids make that safe.
    pub async fn commit(&self, actions: &[HardAction]) -> Result<Outcomes, Error> {
        let checked: Vec<Result<&HardAction, Refusal>> =
            actions.iter().map(|action| action.check().map(|()| action)).collect();
        let valid: Vec<&HardAction> =
            checked.iter().filter_map(|action| action.as_ref().ok().copied()).collect();
        if valid.is_empty() {
            return Ok(checked.into_iter().filter_map(Result::err).map(Err).collect());
        }
        let reserved = ReservedIds {
            items: self.take(Sequence::Item, valid.iter().map(|action| action.mints.len()).sum()).await?,
            entries: self
                .take(Sequence::Entry, valid.iter().map(|action| coin_entries(action)).sum())
                .await?,
        };
        let (mut outcomes, held): (std::vec::IntoIter<_>, Vec<_>) = {
            let done: Result<(Outcomes, Vec<_>), Error> =
                transact!(self.database(), |tx| self.commit_in(&mut tx, &valid, &reserved));
            let (outcomes, held) = done?;
            (outcomes.into_iter(), held)
        };
        self.cache_holdings(held);
        let missing = || Err(Refusal::Invalid("the batch lost an outcome".to_owned()));
        Ok(checked
            .into_iter()
            .map(|action| action.and_then(|_| outcomes.next().unwrap_or_else(missing)))
            .collect())
    }

    async fn take(&self, sequence: Sequence, count: usize) -> Result<Vec<u64>, Error> {
        if count == 0 { Ok(Vec::new()) } else { self.ids().take(self.database(), sequence, count).await }
    }

    async fn commit_in(
        &self,
        tx: &mut Tx,
        actions: &[&HardAction],
        reserved: &ReservedIds,
    ) -> Result<(Outcomes, Vec<(CharacterId, Arc<Holdings>)>), Error> {
        let mut state = State::default();
        self.lock_characters(tx, actions, &mut state).await?;
        lock_spawns(tx, actions, &mut state).await?;
        lock_items(tx, actions, &mut state).await?;
        lock_ground(tx, actions, &mut state).await?;
        lock_stored(tx, actions, &mut state).await?;

        let mut items = &reserved.items[..];
        let mut outcomes = Vec::with_capacity(actions.len());
        for action in actions {
            let (mint_ids, rest) = items.split_at(action.mints.len().min(items.len()));
            items = rest;
            let mint_ids: Vec<ItemId> = mint_ids.iter().copied().map(ItemId).collect();
            outcomes.push(state.apply(action, &mint_ids));
        }

        write_items(tx, &state).await?;
        write_journal(tx, &state, &reserved.entries).await?;
        write_coins(tx, &state).await?;
        write_stored(tx, &state).await?;
        write_characters(tx, &state).await?;
        Ok((outcomes, state.characters.into_iter().map(|(id, locked)| (id, locked.held)).collect()))
    }

    async fn lock_characters(
        &self,
        tx: &mut Tx,
        actions: &[&HardAction],
        state: &mut State,
    ) -> Result<(), Error> {
        let fences = actions.iter().flat_map(|action| &action.fences);
        let rewards = actions.iter().filter_map(|action| action.reward.as_ref()).map(|reward| &reward.fence);
        let ids: BTreeSet<u64> = fences.chain(rewards).map(|fence| fence.character.0).collect();
        if ids.is_empty() {
            return Ok(());
        }
        let query = sql(concat!(
            "SELECT ",
            character_columns!(),
            " FROM characters WHERE id IN (SELECT r.id FROM {rows}) ORDER BY id {for_update}"
        ));
        let rows = tx.fetch_all(query.rows(Rows::new().ints("id", ids))).await?;
        let rows = rows.into_iter().map(CharacterRow::read).collect::<Result<Vec<_>, _>>()?;
        let versions: Vec<_> = rows.iter().map(|row| (row.id, row.version)).collect();
        let mut holdings = self.holdings(tx, &versions).await?;
        for row in rows {
            let held = holdings.remove(&row.id).unwrap_or_default();
            state.characters.insert(row.id, LockedCharacter { row, held, changed: false });
        }
        Ok(())
    }
}

/// How many entries an action may write into the coins' journal.
fn coin_entries(action: &HardAction) -> usize {
    action.coins.len() + usize::from(action.reward.is_some())
}

impl Game {
    /// The stored result of an earlier action, for the owner of its character.
    pub async fn lookup_action(&self, caller: &Caller, action: &ActionId) -> Result<ActionLookup, GameError> {
        let mut tx = self.database().snapshot().await?;
        let character = self.load_in(&mut tx, action.character).await?;
        if character.world != caller.world() || !caller.owns(character.owner.as_ref()) {
            let message = format!("another zone owns character {}", character.id);
            return Err(Refusal::Forbidden(message).into());
        }
        let stored = read_stored(&mut tx, &[(action.character.0, action.id % ACTION_WINDOW)]).await?;
        tx.commit().await?;
        let minted = match stored.into_iter().find(|(key, _)| *key == (action.character, action.id)) {
            Some((_, stored)) if stored.digest != action.digest => {
                return Err(Refusal::ActionConflict.into());
            }
            Some((_, stored)) => Some(stored.minted),
            None if action.id.saturating_add(ACTION_WINDOW) <= character.last_action => {
                return Err(Refusal::ActionTooOld.into());
            }
            None => None,
        };
        Ok(ActionLookup { minted, character })
    }
}

/// Ids for new rows of the batch, taken before the transaction. A retry uses the same ids.
struct ReservedIds {
    items: Vec<u64>,
    entries: Vec<u64>,
}

async fn lock_spawns(tx: &mut Tx, actions: &[&HardAction], state: &mut State) -> Result<(), Error> {
    let keys: BTreeSet<_> =
        actions.iter().filter_map(|action| action.once).map(|once| (once.world, once.spawn)).collect();
    if keys.is_empty() {
        return Ok(());
    }
    let rows = Rows::new()
        .ints("world", keys.iter().map(|(world, _)| world.0))
        .ints("space", keys.iter().map(|(_, spawn)| spawn.space.0))
        .ints("spawn", keys.iter().map(|(_, spawn)| spawn.number));
    // A lock needs a row. Generation 0 has minted nothing.
    let insert = sql("INSERT INTO spawns (world, space, spawn, generation, minted)
         SELECT r.world, r.space, r.spawn, 0, $1 FROM {rows} WHERE true
         ON CONFLICT (world, space, spawn) DO NOTHING");
    tx.execute(insert.bind(Vec::new()).rows(rows.clone())).await?;
    let query = sql("SELECT world, space, spawn, generation, minted FROM spawns
         WHERE (world, space, spawn) IN (SELECT r.world, r.space, r.spawn FROM {rows})
         ORDER BY world, space, spawn {for_update}");
    for mut row in tx.fetch_all(query.rows(rows)).await? {
        let key = (WorldId(row.take()?), SpawnId { space: SpaceId(row.take()?), number: row.take()? });
        let spawn =
            Spawn { generation: row.take()?, minted: unpack(&row.take::<Vec<u8>>()?)?, changed: false };
        state.spawns.insert(key, spawn);
    }
    Ok(())
}

async fn lock_items(tx: &mut Tx, actions: &[&HardAction], state: &mut State) -> Result<(), Error> {
    let ids: BTreeSet<u64> =
        actions.iter().flat_map(|action| &action.items).map(|part| part.item.0).collect();
    if ids.is_empty() {
        return Ok(());
    }
    let query = sql("SELECT id, template, count, hop, holder FROM items
         WHERE id IN (SELECT r.id FROM {rows}) ORDER BY id {for_update}");
    for mut row in tx.fetch_all(query.rows(Rows::new().ints("id", ids))).await? {
        let item = Item { id: ItemId(row.take()?), template: row.take()?, count: row.take()? };
        let hop = row.take()?;
        let holder: String = row.take()?;
        let holder = holder.parse().map_err(|error| Error::Corrupt(format!("item {}: {error}", item.id)))?;
        state.items.insert(item.id, Stack { item, hop, holder, at: None, minted: false, changed: false });
    }
    Ok(())
}

async fn lock_ground(tx: &mut Tx, actions: &[&HardAction], state: &mut State) -> Result<(), Error> {
    let holders: BTreeSet<&Holder> = actions
        .iter()
        .flat_map(|action| &action.coins)
        .flat_map(|part| [&part.from, &part.to])
        .filter(|holder| matches!(holder, Holder::Ground(..)))
        .collect();
    if holders.is_empty() {
        return Ok(());
    }
    let rows = Rows::new().texts("holder", holders.iter().map(ToString::to_string));
    let insert = sql("INSERT INTO balances (holder, coins) SELECT r.holder, 0 FROM {rows} WHERE true
         ON CONFLICT (holder) DO NOTHING");
    tx.execute(insert.rows(rows.clone())).await?;
    let query = sql("SELECT holder, coins FROM balances WHERE holder IN (SELECT r.holder FROM {rows})
         ORDER BY holder {for_update}");
    for mut row in tx.fetch_all(query.rows(rows)).await? {
        let holder: String = row.take()?;
        let holder = holder.parse().map_err(|error| Error::Corrupt(format!("a balance: {error}")))?;
        state.ground_coins.insert(holder, row.take()?);
    }
    Ok(())
}

/// Reads the stored results of repeats. An id above the character's last one has no stored result.
async fn lock_stored(tx: &mut Tx, actions: &[&HardAction], state: &mut State) -> Result<(), Error> {
    let mut slots = HashSet::new();
    for id in actions.iter().flat_map(|action| action.actions()) {
        if state.characters.get(&id.character).is_some_and(|locked| id.id <= locked.row.last_action) {
            slots.insert((id.character.0, id.id % ACTION_WINDOW));
        }
    }
    state.stored.extend(read_stored(tx, &Vec::from_iter(slots)).await?);
    Ok(())
}

/// The results stored at these (character, slot), by character and action id.
async fn read_stored(
    tx: &mut Tx,
    slots: &[(u64, u64)],
) -> Result<Vec<((CharacterId, u64), StoredResult)>, Error> {
    if slots.is_empty() {
        return Ok(Vec::new());
    }
    let rows = Rows::new()
        .ints("character", slots.iter().map(|(character, _)| *character))
        .ints("slot", slots.iter().map(|(_, slot)| *slot));
    let query = sql("SELECT character, id, digest, minted FROM actions
         WHERE (character, slot) IN (SELECT r.character, r.slot FROM {rows})");
    let mut found = Vec::new();
    for mut row in tx.fetch_all(query.rows(rows)).await? {
        let key = (CharacterId(row.take()?), row.take()?);
        let digest: Vec<u8> = row.take()?;
        let digest = digest.try_into().map_err(|_| Error::Corrupt("a digest is not 16 bytes".to_owned()))?;
        found.push((key, StoredResult { digest, minted: unpack(&row.take::<Vec<u8>>()?)?, new: false }));
    }
    Ok(found)
}

async fn write_items(tx: &mut Tx, state: &State) -> Result<(), Error> {
    let changed = || state.items.values().filter(|stack| stack.changed);
    let exists = |stack: &&Stack| stack.holder.holds();
    let minted: Vec<&Stack> = changed().filter(|stack| stack.minted).filter(exists).collect();
    let moved: Vec<&Stack> = changed().filter(|stack| !stack.minted).filter(exists).collect();
    let burned: Vec<u64> =
        changed().filter(|stack| !stack.minted && !exists(stack)).map(|stack| stack.item.id.0).collect();
    if !minted.is_empty() {
        let query = sql("INSERT INTO items (id, holder, template, count, hop, world, space, layer, x_mm, y_mm,
                 z_mm)
             SELECT r.id, r.holder, r.template, r.count, r.hop, r.world, r.space, r.layer, r.x_mm, r.y_mm, r.z_mm
             FROM {rows}");
        let rows = places(&minted)
            .ints("template", minted.iter().map(|stack| stack.item.template))
            .ints("count", minted.iter().map(|stack| stack.item.count));
        tx.execute(query.rows(rows)).await?;
    }
    if !moved.is_empty() {
        let query = sql("UPDATE items SET holder = r.holder, hop = r.hop, world = r.world, space = r.space,
             layer = r.layer, x_mm = r.x_mm, y_mm = r.y_mm, z_mm = r.z_mm FROM {rows} WHERE items.id = r.id");
        tx.execute(query.rows(places(&moved))).await?;
    }
    if !burned.is_empty() {
        let query = sql("DELETE FROM items WHERE id IN (SELECT r.id FROM {rows})");
        tx.execute(query.rows(Rows::new().ints("id", burned))).await?;
    }
    Ok(())
}

fn places(stacks: &[&Stack]) -> Rows {
    let at = |axis: fn(shardkeep_types::Position) -> i64| stacks.iter().map(move |stack| stack.at.map(axis));
    Rows::new()
        .ints("id", stacks.iter().map(|stack| stack.item.id.0))
        .texts("holder", stacks.iter().map(|stack| stack.holder.to_string()))
        .ints("hop", stacks.iter().map(|stack| stack.hop))
        .ints("world", stacks.iter().map(|stack| stack.holder.world().map(|world| i64::from(world.0))))
        .ints("space", at(|at| at.space.0.into()))
        .ints("layer", at(|at| at.layer.0.into()))
        .ints("x_mm", at(|at| at.x_mm.into()))
        .ints("y_mm", at(|at| at.y_mm.into()))
        .ints("z_mm", at(|at| at.z_mm.into()))
}

async fn write_journal(tx: &mut Tx, state: &State, entries: &[u64]) -> Result<(), Error> {
    let items = &state.item_journal;
    if !items.is_empty() {
        let query =
            sql("INSERT INTO item_journal (item, hop, at_ms, reason, source, target, template, count)
             SELECT r.item, r.hop, {now_ms}, r.reason, r.source, r.target, r.template, r.count FROM {rows}");
        let rows = Rows::new()
            .ints("item", items.iter().map(|entry| entry.item.id.0))
            .ints("hop", items.iter().map(|entry| entry.hop))
            .texts("reason", items.iter().map(|entry| &entry.reason))
            .texts("source", items.iter().map(|entry| entry.source.to_string()))
            .texts("target", items.iter().map(|entry| entry.target.to_string()))
            .ints("template", items.iter().map(|entry| entry.item.template))
            .ints("count", items.iter().map(|entry| entry.item.count));
        tx.execute(query.rows(rows)).await?;
    }
    let coins = &state.coin_journal;
    if !coins.is_empty() {
        let query = sql("INSERT INTO coin_journal (id, at_ms, reason, source, target, amount)
             SELECT r.id, {now_ms}, r.reason, r.source, r.target, r.amount FROM {rows}");
        let rows = Rows::new()
            .ints("id", entries.iter().copied().take(coins.len()))
            .texts("reason", coins.iter().map(|entry| &entry.reason))
            .texts("source", coins.iter().map(|entry| entry.source.to_string()))
            .texts("target", coins.iter().map(|entry| entry.target.to_string()))
            .ints("amount", coins.iter().map(|entry| entry.amount));
        tx.execute(query.rows(rows)).await?;
    }
    Ok(())
}

/// Writes the balances of all accounts that the journal names.
async fn write_coins(tx: &mut Tx, state: &State) -> Result<(), Error> {
    let named: BTreeSet<&Holder> = state
        .coin_journal
        .iter()
        .flat_map(|entry| [&entry.source, &entry.target])
        .filter(|holder| holder.holds())
        .collect();
    if named.is_empty() {
        return Ok(());
    }
    let query = sql("INSERT INTO balances (holder, coins) SELECT r.holder, r.coins FROM {rows} WHERE true
         ON CONFLICT (holder) DO UPDATE SET coins = excluded.coins");
    let rows = Rows::new()
        .texts("holder", named.iter().map(ToString::to_string))
        .ints("coins", named.iter().map(|holder| state.coins(holder)));
    tx.execute(query.rows(rows)).await?;
    Ok(())
}

async fn write_stored(tx: &mut Tx, state: &State) -> Result<(), Error> {
    // A statement may name a row only once, so the later of two new actions in one slot stays.
    let mut slots = std::collections::BTreeMap::new();
    for ((character, id), stored) in state.stored.iter().filter(|(_, stored)| stored.new) {
        let slot = slots.entry((character.0, id % ACTION_WINDOW)).or_insert((*id, stored));
        if slot.0 < *id {
            *slot = (*id, stored);
        }
    }
    if !slots.is_empty() {
        let query = sql("INSERT INTO actions (character, slot, id, digest, minted)
             SELECT r.character, r.slot, r.id, r.digest, r.minted FROM {rows} WHERE true
             ON CONFLICT (character, slot) DO UPDATE SET id = excluded.id, digest = excluded.digest,
                 minted = excluded.minted");
        let rows = Rows::new()
            .ints("character", slots.keys().map(|(character, _)| *character))
            .ints("slot", slots.keys().map(|(_, slot)| *slot))
            .ints("id", slots.values().map(|(id, _)| *id))
            .blobs("digest", slots.values().map(|(_, stored)| stored.digest))
            .blobs("minted", slots.values().map(|(_, stored)| pack(&stored.minted)));
        tx.execute(query.rows(rows)).await?;
    }
    let spawns = || state.spawns.iter().filter(|(_, spawn)| spawn.changed);
    if spawns().next().is_some() {
        let query = sql("UPDATE spawns SET generation = r.generation, minted = r.minted FROM {rows}
             WHERE spawns.world = r.world AND spawns.space = r.space AND spawns.spawn = r.spawn");
        let rows = Rows::new()
            .ints("world", spawns().map(|((world, _), _)| world.0))
            .ints("space", spawns().map(|((_, spawn), _)| spawn.space.0))
            .ints("spawn", spawns().map(|((_, spawn), _)| spawn.number))
            .ints("generation", spawns().map(|(_, spawn)| spawn.generation))
            .blobs("minted", spawns().map(|(_, spawn)| pack(&spawn.minted)));
        tx.execute(query.rows(rows)).await?;
    }
    Ok(())
}

async fn write_characters(tx: &mut Tx, state: &State) -> Result<(), Error> {
    let changed = || state.characters.values().filter(|locked| locked.changed).map(|locked| &locked.row);
    if changed().next().is_none() {
        return Ok(());
    }
    let query = sql(
        "UPDATE characters SET experience = r.experience, last_action = r.last_action, version = r.version
         FROM {rows} WHERE characters.id = r.id",
    );
    let rows = Rows::new()
        .ints("id", changed().map(|row| row.id.0))
        .ints("experience", changed().map(|row| row.experience))
        .ints("last_action", changed().map(|row| row.last_action))
        .ints("version", changed().map(|row| row.version));
    tx.execute(query.rows(rows)).await?;
    Ok(())
}

/// Ids as the tables store them: eight bytes each, big-endian.
fn pack(ids: &[ItemId]) -> Vec<u8> {
    ids.iter().flat_map(|id| id.0.to_be_bytes()).collect()
}

fn unpack(bytes: &[u8]) -> Result<Vec<ItemId>, Error> {
    let (ids, rest) = bytes.as_chunks::<8>();
    if !rest.is_empty() {
        return Err(Error::Corrupt("a list of minted items is not a multiple of 8 bytes".to_owned()));
    }
    Ok(ids.iter().map(|id| ItemId(u64::from_be_bytes(*id))).collect())
}
