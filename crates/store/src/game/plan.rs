//! Applies actions to the state that a transaction has locked. This module contains only rules and arithmetic. A
//! refused action changes nothing, so it cannot harm the other actions of its batch.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use shardkeep_types::{CharacterId, ItemId, Position, SpawnId, WorldId};

use super::{
    characters::CharacterRow,
    holder::Holder,
    holdings::Holdings,
    refusal::Refusal,
    types::{
        ACTION_WINDOW, HardAction, HardResult, Item, MAX_ACTION_GAP, MAX_STACKS, MintItem, MoveItem, Reward,
    },
};

/// The reason in the ledger for a reward to a character of another zone.
const BORDER_REWARD: &str = "border_reward";

/// The locked rows of everything that a batch names.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) characters: BTreeMap<CharacterId, LockedCharacter>,
    pub(super) items: BTreeMap<ItemId, Stack>,
    /// Coins on the ground. The coins of characters are in their holdings.
    pub(super) ground_coins: BTreeMap<Holder, i64>,
    pub(super) stored: HashMap<(CharacterId, u64), StoredResult>,
    pub(super) spawns: BTreeMap<(WorldId, SpawnId), Spawn>,
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
    /// A burned stack has its burn account here until the batch is written.
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
    /// Applies an action that has passed [`HardAction::check`]. `ids` holds one new item id for each mint.
    pub(super) fn apply(&mut self, action: &HardAction, ids: &[ItemId]) -> Result<HardResult, Refusal> {
        self.check_worlds(action)?;
        if let Some(minted) = self.earlier_result(action)? {
            return Ok(self.result(action, false, minted));
        }
        self.check_action_ids(action)?;
        self.check_fences(action)?;
        self.check_items(action)?;
        self.check_room(action)?;
        self.check_coins(action)?;

        let minted = self.mint(action, ids);
        self.move_items(action);
        self.move_coins(action);
        if let Some(reward) = &action.reward {
            self.reward(action, reward);
        }
        self.record_result(action, &minted);
        Ok(self.result(action, true, minted))
    }

    /// Even a repeat is refused for callers of another world.
    fn check_worlds(&self, action: &HardAction) -> Result<(), Refusal> {
        let rewarded = action.reward.iter().map(|reward| reward.fence.character);
        for character in action.fences.iter().map(|fence| fence.character).chain(rewarded) {
            if self.character(character)?.row.world != action.caller.world() {
                return Err(Refusal::Forbidden(format!("character {character} belongs to another world")));
            }
        }
        Ok(())
    }

    /// The items that the same action minted when it was applied; `None` when the action is new.
    fn earlier_result(&self, action: &HardAction) -> Result<Option<Vec<ItemId>>, Refusal> {
        let mut earlier_result = None;
        for id in action.actions() {
            match self.stored.get(&(id.character, id.id)) {
                None => {}
                Some(stored) if stored.digest != id.digest => return Err(Refusal::ActionConflict),
                Some(stored) if action.action == Some(*id) => earlier_result = Some(stored.minted.clone()),
                // The partner's confirmation belongs to another action.
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

    fn check_action_ids(&self, action: &HardAction) -> Result<(), Refusal> {
        for id in action.actions() {
            let last = self.character(id.character)?.row.last_action;
            if id.id.saturating_add(ACTION_WINDOW) <= last {
                return Err(Refusal::ActionTooOld);
            }
            if id.id > last.saturating_add(MAX_ACTION_GAP) {
                return Err(Refusal::ActionTooFar { id: id.id, last });
            }
        }
        Ok(())
    }

    /// The caller owns every character but the rewarded one.
    fn check_fences(&self, action: &HardAction) -> Result<(), Refusal> {
        let fences = action.fences.iter().map(|fence| (fence, true));
        let reward = action.reward.iter().map(|reward| (&reward.fence, false));
        for (fence, must_own) in fences.chain(reward) {
            let (row, character) = (&self.character(fence.character)?.row, fence.character);
            if row.epoch != fence.epoch || row.owner.is_none() {
                return Err(Refusal::StaleEpoch { character, epoch: row.epoch });
            }
            if must_own && !action.caller.owns(row.owner.as_ref()) {
                return Err(Refusal::Forbidden(format!("another zone owns character {character}")));
            }
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

    /// No character ends with more than [`MAX_STACKS`].
    fn check_room(&self, action: &HardAction) -> Result<(), Refusal> {
        let takers = action.items.iter().map(|part| &part.to).chain(action.mints.iter().map(|part| &part.to));
        for taker in takers.filter_map(Holder::character) {
            let is_taker = |holder: &Holder| holder.character() == Some(taker);
            let given = action.items.iter().filter(|part| is_taker(&part.from)).count();
            let taken = action.items.iter().filter(|part| is_taker(&part.to)).count()
                + action.mints.iter().filter(|part| is_taker(&part.to)).count();
            if self.character(taker)?.held.items.len() + taken > MAX_STACKS + given {
                return Err(Refusal::InventoryFull(taker));
            }
        }
        Ok(())
    }

    /// Each account must hold what it gives before it receives anything.
    fn check_coins(&self, action: &HardAction) -> Result<(), Refusal> {
        let overflow = || Refusal::Invalid("an account cannot hold more than 2^63 - 1 coins".to_owned());
        let rewarded = action.reward.map(|reward| (Holder::Character(reward.fence.character), reward.coins));
        let (mut debits, mut credits) = (BTreeMap::new(), BTreeMap::new());
        for part in &action.coins {
            for (side, holder) in [(&mut debits, &part.from), (&mut credits, &part.to)] {
                let sum = side.entry(holder).or_insert(0i64);
                *sum = sum.checked_add(part.amount).ok_or_else(overflow)?;
            }
        }
        if let Some((holder, coins)) = &rewarded {
            let sum = credits.entry(holder).or_insert(0i64);
            *sum = sum.checked_add(*coins).ok_or_else(overflow)?;
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

    fn reward(&mut self, action: &HardAction, reward: &Reward) {
        let character = reward.fence.character;
        let reason = if self.is_border_reward(action) { BORDER_REWARD } else { &action.reason };
        if reward.coins > 0 {
            let entry = CoinEntry {
                reason: reason.to_owned(),
                source: Holder::Mint(action.reason.clone()),
                target: Holder::Character(character),
                amount: reward.coins,
            };
            self.add_coins(&entry.target, entry.amount);
            self.coin_journal.push(entry);
        }
        if let Some(locked) = self.character_mut(character) {
            locked.row.experience =
                locked.row.experience.saturating_add(reward.experience).min(i64::MAX.unsigned_abs());
        }
    }

    fn is_border_reward(&self, action: &HardAction) -> bool {
        let locked = action.reward.and_then(|reward| self.characters.get(&reward.fence.character));
        locked.is_some_and(|locked| !action.caller.owns(locked.row.owner.as_ref()))
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
        let rewarded = action.reward.iter().map(|reward| reward.fence.character);
        let named = action.fences.iter().map(|fence| fence.character).chain(rewarded);
        let owned = named
            .filter_map(|id| self.characters.get(&id))
            .filter(|locked| action.caller.owns(locked.row.owner.as_ref()));
        HardResult {
            applied,
            minted,
            characters: owned.map(|locked| locked.row.with(&locked.held)).collect(),
            border_reward: applied && self.is_border_reward(action),
        }
    }

    fn character(&self, id: CharacterId) -> Result<&LockedCharacter, Refusal> {
        self.characters.get(&id).ok_or(Refusal::NoSuchCharacter(id))
    }

    /// The character for a change. The first change of a batch raises its version.
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
