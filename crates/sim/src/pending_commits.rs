//! Commits without an outcome yet, by number, by character and by item, so that no request searches all of them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use shardkeep_types::{CharacterId, ItemId};

use crate::input::{ActionKey, HardChange, Requester};

/// A commit without an outcome yet.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PendingCommit {
    pub(crate) change: HardChange,
    pub(crate) requesters: Vec<Requester>,
    pub(crate) trade: Option<u64>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct PendingCommits {
    all: BTreeMap<u64, PendingCommit>,
    by_character: BTreeMap<CharacterId, BTreeSet<u64>>,
    /// Items that a commit moves. At most one commit moves an item at a time.
    moving: BTreeSet<ItemId>,
}

impl PendingCommits {
    /// By number.
    pub(crate) fn all(&self) -> &BTreeMap<u64, PendingCommit> {
        &self.all
    }

    pub(crate) fn insert(&mut self, number: u64, commit: PendingCommit) {
        for character in commit.change.characters() {
            self.by_character.entry(character).or_default().insert(number);
        }
        self.moving.extend(commit.change.items());
        self.all.insert(number, commit);
    }

    pub(crate) fn remove(&mut self, number: u64) -> Option<PendingCommit> {
        let commit = self.all.remove(&number)?;
        for character in commit.change.characters() {
            if let Some(numbers) = self.by_character.get_mut(&character) {
                numbers.remove(&number);
                if numbers.is_empty() {
                    self.by_character.remove(&character);
                }
            }
        }
        commit.change.items().for_each(|item| {
            self.moving.remove(&item);
        });
        Some(commit)
    }

    /// How many commits change the possessions of this character.
    pub(crate) fn count_of(&self, character: CharacterId) -> usize {
        self.by_character.get(&character).map_or(0, BTreeSet::len)
    }

    pub(crate) fn moves(&self, item: ItemId) -> bool {
        self.moving.contains(&item)
    }

    /// The commit that a single character asked for with this action id, and the key of that action. A trade stores the
    /// requests that wait for it itself.
    pub(crate) fn of_action(
        &mut self,
        character: CharacterId,
        id: u64,
    ) -> Option<(ActionKey, &mut PendingCommit)> {
        let numbers = self.by_character.get(&character)?;
        let (number, key) = numbers.iter().find_map(|number| {
            let (player, key) = self.all.get(number)?.change.action()?;
            (player == character && key.id == id).then_some((*number, key))
        })?;
        Some((key, self.all.get_mut(&number)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: CharacterId = CharacterId(1);
    const BOB: CharacterId = CharacterId(2);

    fn key(id: u64) -> ActionKey {
        ActionKey { id, digest: [1; 16] }
    }

    fn trade() -> PendingCommit {
        let side = |player, item| crate::TradeContribution {
            player,
            action: key(9),
            items: vec![ItemId(item)],
            coins: 0,
        };
        let change = HardChange::Trade { sides: [side(ANN, 5), side(BOB, 6)] };
        PendingCommit { change, requesters: Vec::new(), trade: Some(1) }
    }

    #[test]
    fn commit_is_found_by_its_characters_and_items_until_it_is_removed() {
        let mut commits = PendingCommits::default();
        let recall = HardChange::Recall { player: ANN, action: key(4) };
        commits.insert(1, PendingCommit { change: recall, requesters: Vec::new(), trade: None });
        commits.insert(2, trade());
        assert_eq!((commits.count_of(ANN), commits.count_of(BOB)), (2, 1));
        assert!(commits.moves(ItemId(5)) && commits.moves(ItemId(6)) && !commits.moves(ItemId(7)));
        assert_eq!(commits.of_action(ANN, 4).map(|(found, _)| found), Some(key(4)));
        assert!(commits.of_action(BOB, 4).is_none(), "the action of another character");
        assert!(commits.of_action(ANN, 9).is_none(), "a trade");
        commits.remove(2).unwrap();
        assert!(commits.remove(2).is_none());
        assert_eq!((commits.count_of(ANN), commits.count_of(BOB)), (1, 0));
        assert!(!commits.moves(ItemId(5)) && !commits.moves(ItemId(6)));
    }
}
