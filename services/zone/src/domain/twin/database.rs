//! A model of the database: owners and epochs of characters, items and their holders, results of actions.

use std::collections::BTreeMap;

use shardkeep_sim::{ActionKey, EnteringAvatar, HardChange, Item, Outcome, Possessions};
use shardkeep_types::{AccountId, CharacterId, Epoch, ItemId, Position, SessionId};

use crate::domain::payload::{Fences, SoftState, StoredAvatar};

/// A zone process: its name and incarnation.
pub(super) type Owner = (String, u64);

#[derive(Debug, Clone)]
struct Row {
    owner: Owner,
    epoch: Epoch,
    session: SessionId,
    position: Position,
    health: u32,
    last_action: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holder {
    Character(CharacterId),
    Ground(Position),
}

#[derive(Debug, Default)]
pub(super) struct Database {
    rows: BTreeMap<CharacterId, Row>,
    items: BTreeMap<ItemId, Holder>,
    results: BTreeMap<(CharacterId, u64), [u8; 16]>,
    /// A planted fault: owners and epochs are not checked.
    unfenced: bool,
    /// Changes that a process made to a character that it does not own. The fence must prevent them.
    pub(super) violations: Vec<String>,
}

impl Database {
    pub(super) fn new(unfenced: bool) -> Self {
        Self { unfenced, ..Self::default() }
    }

    pub(super) fn create(
        &mut self,
        character: CharacterId,
        session: SessionId,
        at: Position,
        items: impl IntoIterator<Item = ItemId>,
    ) {
        let owner = (String::new(), 0);
        let row = Row { owner, epoch: Epoch(0), session, position: at, health: 100, last_action: 0 };
        self.rows.insert(character, row);
        self.items.extend(items.into_iter().map(|item| (item, Holder::Character(character))));
    }

    /// Gives a character to a process, with the next epoch.
    pub(super) fn claim(&mut self, character: CharacterId, owner: Owner) -> StoredAvatar {
        if let Some(row) = self.rows.get_mut(&character) {
            (row.owner, row.epoch) = (owner, row.epoch.next());
        }
        self.load(character).expect("the character exists")
    }

    /// Gives all characters of a dead process to another one. Returns them.
    pub(super) fn reown(&mut self, dead: &Owner, owner: &Owner) -> Vec<CharacterId> {
        let theirs = self.rows.iter().filter(|(_, row)| row.owner == *dead).map(|(character, _)| *character);
        let theirs: Vec<_> = theirs.collect();
        for &character in &theirs {
            self.claim(character, owner.clone());
        }
        theirs
    }

    pub(super) fn load(&self, character: CharacterId) -> Option<StoredAvatar> {
        let row = self.rows.get(&character)?;
        let entering = EnteringAvatar {
            character,
            name: format!("player-{character}").into(),
            epoch: row.epoch,
            position: row.position,
            velocity: (0, 0),
            facing: 0,
            health: row.health,
            last_input: 0,
            cooldown_ms: 0,
            possessions: self.possessions(character),
        };
        let (owner, session) = (row.owner.clone(), Some(row.session));
        Some(StoredAvatar { owner, account: AccountId(character.0), session, entering })
    }

    /// Owner and epoch of a character.
    pub(super) fn owner(&self, character: CharacterId) -> (&Owner, Epoch) {
        let row = &self.rows[&character];
        (&row.owner, row.epoch)
    }

    pub(super) fn holds(&self, character: CharacterId) -> Vec<ItemId> {
        self.possessions(character).items.iter().map(|item| item.id).collect()
    }

    pub(super) fn ground(&self) -> Vec<(ItemId, Position)> {
        let lying = |(item, holder): (&ItemId, &Holder)| match holder {
            Holder::Ground(at) => Some((*item, *at)),
            Holder::Character(_) => None,
        };
        self.items.iter().filter_map(lying).collect()
    }

    pub(super) fn has_result(&self, character: CharacterId, action: u64) -> bool {
        self.results.contains_key(&(character, action))
    }

    fn possessions(&self, character: CharacterId) -> Possessions {
        let held = self.items.iter().filter(|(_, holder)| **holder == Holder::Character(character));
        let items = held.map(|(&id, _)| Item { id, template: 1, count: 1 }).collect();
        let last_action = self.rows.get(&character).map_or(0, |row| row.last_action);
        Possessions { items, last_action, ..Possessions::default() }
    }

    fn owns(&self, caller: &Owner, character: CharacterId, epoch: Epoch) -> bool {
        self.rows.get(&character).is_some_and(|row| row.owner == *caller && row.epoch == epoch)
    }

    /// Whether the fence lets this caller change the character.
    fn admits(&mut self, caller: &Owner, character: CharacterId, epoch: Epoch, what: &str) -> bool {
        let owns = self.owns(caller, character, epoch);
        if !owns && self.unfenced {
            self.violations.push(format!("{what} of {character} by {caller:?} with epoch {epoch}"));
        }
        owns || self.unfenced
    }

    /// Commits a change. Returns the outcome, and whether the caller has lost a character.
    pub(super) fn commit(&mut self, caller: &Owner, change: &HardChange, fences: &Fences) -> (Outcome, bool) {
        if !fences.iter().all(|(character, epoch)| self.admits(caller, *character, *epoch, change.reason())) {
            return (Outcome::Refused, true);
        }
        let possible = match change {
            HardChange::PickUp { player, action, item, from } => {
                if let Some(stored) = self.repeat(*player, *action) {
                    return (stored, false);
                }
                let lies = matches!(self.items.get(item), Some(Holder::Ground(at)) if at.cell() == *from);
                lies.then(|| self.move_item(*player, *action, *item, Holder::Character(*player)))
            }
            HardChange::Drop { player, action, item, at } => {
                if let Some(stored) = self.repeat(*player, *action) {
                    return (stored, false);
                }
                let held = self.items.get(&item.id) == Some(&Holder::Character(*player));
                held.then(|| self.move_item(*player, *action, item.id, Holder::Ground(*at)))
            }
            _ => None,
        };
        possible.map_or((Outcome::Refused, false), |outcome| (outcome, false))
    }

    /// The stored result of an earlier action.
    pub(super) fn recall(&self, change: &HardChange) -> Outcome {
        let HardChange::Recall { player, action } = change else { return Outcome::Refused };
        self.repeat(*player, *action).unwrap_or(Outcome::Refused)
    }

    fn repeat(&self, player: CharacterId, action: ActionKey) -> Option<Outcome> {
        let digest = self.results.get(&(player, action.id))?;
        if *digest != action.digest {
            return Some(Outcome::Conflict);
        }
        Some(self.done(player, false))
    }

    fn move_item(&mut self, player: CharacterId, action: ActionKey, item: ItemId, to: Holder) -> Outcome {
        self.items.insert(item, to);
        self.results.insert((player, action.id), action.digest);
        if let Some(row) = self.rows.get_mut(&player) {
            row.last_action = row.last_action.max(action.id);
        }
        self.done(player, true)
    }

    fn done(&self, player: CharacterId, applied: bool) -> Outcome {
        let possessions = vec![(player, self.possessions(player))];
        Outcome::Done { applied, minted: Vec::new(), possessions }
    }

    /// Saves states. Returns the characters that the caller does not own.
    pub(super) fn save(&mut self, caller: &Owner, states: &[SoftState]) -> Vec<CharacterId> {
        let mut stale = Vec::new();
        for state in states {
            if !self.admits(caller, state.character, state.epoch, "save") {
                stale.push(state.character);
            } else if let Some(row) = self.rows.get_mut(&state.character) {
                (row.position, row.health) = (state.position, state.health);
            }
        }
        stale
    }

    /// Moves a character to another process. A repeat of a transfer that took effect gets the same epoch.
    pub(super) fn transfer(&mut self, caller: &Owner, to: &Owner, state: &SoftState) -> Option<Epoch> {
        if self.owns(to, state.character, state.epoch.next()) {
            return Some(state.epoch.next());
        }
        if !self.admits(caller, state.character, state.epoch, "transfer") {
            return None;
        }
        self.save(caller, std::slice::from_ref(state));
        let row = self.rows.get_mut(&state.character)?;
        (row.owner, row.epoch) = (to.clone(), state.epoch.next());
        Some(row.epoch)
    }
}
