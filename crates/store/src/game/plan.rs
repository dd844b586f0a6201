//! What actions do to the state that a transaction has locked. No database here: rules and arithmetic only. An
//! action that is refused changes nothing, so it cannot harm the others of its batch.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use shardkeep_types::{CharacterId, ItemId, Position, WorldId};

use super::{
    ACTION_WINDOW, HardAction, HardResult, Holder, Holdings, Item, MintItem, MoveItem, Refusal,
    characters::CharacterRow,
};

/// Everything that a batch names, as locked.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) characters: BTreeMap<CharacterId, LockedCharacter>,
    pub(super) items: BTreeMap<ItemId, Stack>,
    /// Of cells of ground; characters' are in their holdings.
    pub(super) ground_coins: BTreeMap<Holder, i64>,
    pub(super) stored: HashMap<(CharacterId, u64), StoredResult>,
    pub(super) spawns: BTreeMap<(WorldId, u64), Spawn>,
    pub(super) item_journal: Vec<ItemEntry>,
    pub(super) coin_journal: Vec<CoinEntry>,
}

#[derive(Debug)]
pub(super) struct LockedCharacter {
    pub(super) row: CharacterRow,
    pub(super) held: Arc<Holdings>,
    pub(super) changed: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Stack {
    pub(super) item: Item,
    pub(super) hop: u64,
    /// A burned stack is held by its end until the batch is written.
    pub(super) holder: Holder,
    pub(super) at: Option<Position>,
    pub(super) minted: bool,
    pub(super) changed: bool,
}

/// The result of an action.
#[derive(Debug, Clone)]
pub(super) struct StoredResult {
    pub(super) digest: [u8; 16],
    pub(super) minted: Vec<ItemId>,
    pub(super) new: bool,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Spawn {
    pub(super) generation: u64,
    pub(super) minted: Vec<ItemId>,
    pub(super) changed: bool,
}

#[derive(Debug, Clone)]
pub(super) struct ItemEntry {
    pub(super) item: Item,
    pub(super) hop: u64,
    pub(super) reason: String,
    pub(super) source: Holder,
    pub(super) target: Holder,
}

#[derive(Debug, Clone)]
pub(super) struct CoinEntry {
    pub(super) reason: String,
    pub(super) source: Holder,
    pub(super) target: Holder,
    pub(super) amount: i64,
}

impl State {
    /// Applies an action that has passed [`HardAction::check`]. `ids` yields fresh item ids, one per mint.
    pub(super) fn apply(&mut self, action: &HardAction, ids: &[ItemId]) -> Result<HardResult, Refusal> {
        if let Some(minted) = self.earlier_result(action)? {
            return Ok(self.result(action, false, minted));
        }
        self.check_window(action)?;
        self.check_fences(action)?;
        self.check_items(action)?;
        self.check_coins(action)?;

        let minted = self.mint(action, ids);
        self.move_items(action);
        self.move_coins(action);
        for (character, amount) in &action.experience {
            if let Some(locked) = self.character_mut(*character) {
                locked.row.experience =
                    locked.row.experience.saturating_add(*amount).min(i64::MAX.unsigned_abs());
            }
        }
        self.record_result(action, &minted);
        Ok(self.result(action, true, minted))
    }

    /// What an earlier time of the same action minted.
    fn earlier_result(&self, action: &HardAction) -> Result<Option<Vec<ItemId>>, Refusal> {
        let mut earlier_result = None;
        for id in action.actions() {
            match self.stored.get(&(id.character, id.id)) {
                None => {}
                Some(stored) if stored.digest != id.digest => return Err(Refusal::ActionConflict),
                Some(stored) if action.action == Some(*id) => earlier_result = Some(stored.minted.clone()),
                // The partner's confirmation was spent on another action than ours.
                Some(_) if earlier_result.is_none() => return Err(Refusal::ActionConflict),
                Some(_) => {}
            }
        }
        if earlier_result.is_some() {
            return Ok(earlier_result);
        }
        let spawn = action.once.and_then(|once| Some((once, self.spawns.get(&(once.world, once.spawn))?)));
        Ok(spawn.filter(|(once, spawn)| spawn.generation >= once.generation).map(|(once, spawn)| {
            if spawn.generation == once.generation { spawn.minted.clone() } else { Vec::new() }
        }))
    }

    fn check_window(&self, action: &HardAction) -> Result<(), Refusal> {
        for id in action.actions() {
            let locked = self.character(id.character)?;
            if id.id.saturating_add(ACTION_WINDOW) <= locked.row.last_action {
                return Err(Refusal::ActionTooOld);
            }
        }
        Ok(())
    }

    fn check_fences(&self, action: &HardAction) -> Result<(), Refusal> {
        let mut worlds: Vec<WorldId> = action.worlds().collect();
        for fence in &action.fences {
            let locked = self.character(fence.character)?;
            if locked.row.epoch != fence.epoch || locked.row.owner.is_none() {
                return Err(Refusal::StaleEpoch { character: fence.character, epoch: locked.row.epoch });
            }
            worlds.push(locked.row.world);
        }
        if worlds.windows(2).any(|pair| pair[0] != pair[1]) {
            return Err(Refusal::AcrossWorlds);
        }
        Ok(())
    }

    fn check_items(&self, action: &HardAction) -> Result<(), Refusal> {
        let held =
            |part: &MoveItem| self.items.get(&part.item).is_some_and(|stack| stack.holder == part.from);
        match action.items.iter().find(|part| !held(part)) {
            Some(part) => Err(Refusal::NotHeld(part.item)),
            None => Ok(()),
        }
    }

    /// Everybody has what they give before they receive anything.
    fn check_coins(&self, action: &HardAction) -> Result<(), Refusal> {
        let overflow = || Refusal::Invalid("more coins than can be counted".to_owned());
        let (mut debits, mut credits) = (BTreeMap::new(), BTreeMap::new());
        for part in &action.coins {
            for (side, holder) in [(&mut debits, &part.from), (&mut credits, &part.to)] {
                let sum = side.entry(holder).or_insert(0i64);
                *sum = sum.checked_add(part.amount).ok_or_else(overflow)?;
            }
        }
        for (holder, amount) in debits.into_iter().filter(|(holder, _)| holder.holds()) {
            if self.coins(holder) < amount {
                return Err(Refusal::InsufficientCoins(holder.clone()));
            }
        }
        for (holder, amount) in credits.into_iter().filter(|(holder, _)| holder.holds()) {
            self.coins(holder).checked_add(amount).ok_or_else(overflow)?;
        }
        Ok(())
    }

    fn mint(&mut self, action: &HardAction, ids: &[ItemId]) -> Vec<ItemId> {
        for (MintItem { template, count, to, at }, &id) in action.mints.iter().zip(ids) {
            let item = Item { id, template: *template, count: *count };
            let stack = Stack { item, hop: 1, holder: to.clone(), at: *at, minted: true, changed: true };
            self.items.insert(id, stack);
            self.add_item(to, item);
            let source = Holder::Mint(action.reason.clone());
            self.item_journal.push(ItemEntry {
                item,
                hop: 1,
                reason: action.reason.clone(),
                source,
                target: to.clone(),
            });
        }
        ids.to_vec()
    }

    fn move_items(&mut self, action: &HardAction) {
        for part in &action.items {
            let Some(stack) = self.items.get_mut(&part.item) else { continue };
            stack.hop += 1;
            stack.holder = part.to.clone();
            stack.at = part.at;
            stack.changed = true;
            let (item, hop) = (stack.item, stack.hop);
            if let Some(locked) = part.from.character().and_then(|id| self.character_mut(id)) {
                Arc::make_mut(&mut locked.held).items.remove(&item.id);
            }
            self.add_item(&part.to, item);
            let (source, target) = (part.from.clone(), part.to.clone());
            self.item_journal.push(ItemEntry { item, hop, reason: action.reason.clone(), source, target });
        }
    }

    fn move_coins(&mut self, action: &HardAction) {
        for part in &action.coins {
            self.add_coins(&part.from, -part.amount);
            self.add_coins(&part.to, part.amount);
            let (source, target) = (part.from.clone(), part.to.clone());
            self.coin_journal.push(CoinEntry {
                reason: action.reason.clone(),
                source,
                target,
                amount: part.amount,
            });
        }
    }

    fn record_result(&mut self, action: &HardAction, minted: &[ItemId]) {
        for id in action.actions() {
            if let Some(locked) = self.character_mut(id.character) {
                locked.row.last_action = locked.row.last_action.max(id.id);
            }
            let stored = StoredResult { digest: id.digest, minted: minted.to_vec(), new: true };
            self.stored.insert((id.character, id.id), stored);
        }
        if let Some(once) = action.once {
            let spawn = Spawn { generation: once.generation, minted: minted.to_vec(), changed: true };
            self.spawns.insert((once.world, once.spawn), spawn);
        }
    }

    fn result(&self, action: &HardAction, applied: bool, minted: Vec<ItemId>) -> HardResult {
        let locked_characters =
            action.fences.iter().filter_map(|fence| self.characters.get(&fence.character));
        HardResult {
            applied,
            minted,
            characters: locked_characters.map(|locked| locked.row.with(&locked.held)).collect(),
        }
    }

    fn character(&self, id: CharacterId) -> Result<&LockedCharacter, Refusal> {
        self.characters.get(&id).ok_or(Refusal::NoSuchCharacter(id))
    }

    /// The character, to be changed: its version rises, once per batch.
    fn character_mut(&mut self, id: CharacterId) -> Option<&mut LockedCharacter> {
        let locked = self.characters.get_mut(&id)?;
        if !locked.changed {
            locked.changed = true;
            locked.row.version += 1;
            Arc::make_mut(&mut locked.held).version = locked.row.version;
        }
        Some(locked)
    }

    fn add_item(&mut self, holder: &Holder, item: Item) {
        if let Some(locked) = holder.character().and_then(|id| self.character_mut(id)) {
            Arc::make_mut(&mut locked.held).items.insert(item.id, item);
        }
    }

    pub(super) fn coins(&self, holder: &Holder) -> i64 {
        match holder.character() {
            Some(id) => self.characters.get(&id).map_or(0, |locked| locked.held.coins),
            None => self.ground_coins.get(holder).copied().unwrap_or(0),
        }
    }

    fn add_coins(&mut self, holder: &Holder, amount: i64) {
        match holder {
            Holder::Character(id) => {
                if let Some(locked) = self.character_mut(*id) {
                    Arc::make_mut(&mut locked.held).coins += amount;
                }
            }
            Holder::Ground(..) => *self.ground_coins.entry(holder.clone()).or_default() += amount,
            Holder::Mint(_) | Holder::Burn(_) => {}
        }
    }
}
