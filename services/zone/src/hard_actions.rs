//! From what the simulation wants to what the database commits, and the lanes that keep a character's actions in
//! order.

use std::collections::{HashSet, VecDeque};
use std::time::Instant;

use shardkeep_rpc::dbcache::{
    ActionId, AddExperience, Fence, HardAction, HardResult, MintItem, MoveCoins, MoveItem, OnceKey,
};
use shardkeep_sim::{ActionKey, HardChange, Outcome, Reward, Stack, TradeContribution};
use shardkeep_types::{CellId, CharacterId, Epoch, ItemId, Position, WorldId};

use crate::{convert, database::DatabaseError};

/// Most actions that wait for another of the same character. Overflow: refused as unavailable, counted.
const MAX_QUEUED: usize = 1_024;

/// One wanted commit on its way.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) number: u64,
    pub(crate) change: HardChange,
    pub(crate) since: Instant,
}

/// What becomes of a new job.
#[derive(Debug)]
pub(crate) enum QueueResult {
    Start(Job),
    /// After others of the same character.
    Queued,
    /// Too many wait.
    Full(Job),
}

/// At most one commit per character at a time, so that results come in the order of the actions.
#[derive(Debug, Default)]
pub(crate) struct CommitQueue {
    busy: HashSet<CharacterId>,
    waiting: VecDeque<Job>,
}

impl CommitQueue {
    pub(crate) fn submit(&mut self, job: Job) -> QueueResult {
        let blocked = |player: CharacterId| {
            self.busy.contains(&player)
                || self.waiting.iter().any(|job| job.change.characters().any(|it| it == player))
        };
        if !job.change.characters().any(blocked) {
            self.busy.extend(job.change.characters());
            return QueueResult::Start(job);
        }
        if self.waiting.len() >= MAX_QUEUED {
            return QueueResult::Full(job);
        }
        self.waiting.push_back(job);
        QueueResult::Queued
    }

    /// A job is over: those that can start now.
    pub(crate) fn finish(&mut self, change: &HardChange) -> Vec<Job> {
        change.characters().for_each(|player| {
            self.busy.remove(&player);
        });
        let mut started = Vec::new();
        let mut blocked_by_earlier: HashSet<CharacterId> = HashSet::new();
        let mut waiting = VecDeque::new();
        for job in self.waiting.drain(..) {
            let free =
                |player: CharacterId| !self.busy.contains(&player) && !blocked_by_earlier.contains(&player);
            if job.change.characters().all(free) {
                self.busy.extend(job.change.characters());
                started.push(job);
            } else {
                blocked_by_earlier.extend(job.change.characters());
                waiting.push_back(job);
            }
        }
        self.waiting = waiting;
        started
    }
}

/// Ledger account of a character.
fn character_account(player: CharacterId) -> String {
    format!("c:{player}")
}

/// Ledger account of the ground of a cell.
fn ground_account(world: WorldId, cell: CellId) -> String {
    format!("g:{world}:{}:{}:{}", cell.map.0, cell.x, cell.y)
}

fn action_id(player: CharacterId, action: ActionKey) -> ActionId {
    ActionId { character: player.0, id: action.id, digest: action.digest.to_vec() }
}

/// The transaction that does what is wanted. `epoch` gives the ownership epoch of each character here; without one
/// the fence cannot hold, and the wish must not be tried.
pub(crate) fn transaction(
    world: WorldId,
    change: &HardChange,
    epoch: impl Fn(CharacterId) -> Option<Epoch>,
) -> Option<HardAction> {
    let epoch = |player| match change {
        HardChange::Loot { reward: Some(reward), .. } => Some(reward.epoch),
        _ => epoch(player),
    };
    let fences =
        change.characters().map(|player| Some(Fence { character: player.0, epoch: epoch(player)?.0 }));
    let base = HardAction {
        fences: fences.collect::<Option<_>>()?,
        reason: change.reason().to_owned(),
        ..HardAction::default()
    };
    Some(match change {
        HardChange::PickUp { player, action, item, from } => HardAction {
            action: Some(action_id(*player, *action)),
            items: vec![MoveItem {
                item: item.0,
                from: ground_account(world, *from),
                to: character_account(*player),
                at: None,
            }],
            ..base
        },
        HardChange::Drop { player, action, item, at } => HardAction {
            action: Some(action_id(*player, *action)),
            items: vec![MoveItem {
                item: item.id.0,
                from: character_account(*player),
                to: ground_account(world, at.cell()),
                at: Some((*at).into()),
            }],
            ..base
        },
        HardChange::Trade { sides: [a, b] } => HardAction {
            action: Some(action_id(a.player, a.action)),
            other_actions: vec![action_id(b.player, b.action)],
            items: item_moves(a, b.player).chain(item_moves(b, a.player)).collect(),
            coins: coin_move(a, b.player).into_iter().chain(coin_move(b, a.player)).collect(),
            ..base
        },
        HardChange::Loot { spawn, generation, at, stacks, reward } => HardAction {
            once: Some(OnceKey { world: world.0, spawn: *spawn, generation: *generation }),
            mints: stacks.iter().map(|stack| mint_on_ground(world, stack, *at)).collect(),
            coins: reward.iter().filter_map(reward_coins).collect(),
            experience: reward
                .iter()
                .map(|reward| AddExperience { character: reward.player.0, amount: reward.experience })
                .collect(),
            ..base
        },
        // If the action was never done after all, this cannot be done either: nobody holds item 0.
        HardChange::Recall { player, action } => HardAction {
            action: Some(action_id(*player, *action)),
            items: vec![MoveItem {
                item: 0,
                from: character_account(*player),
                to: "burn:recall".to_owned(),
                at: None,
            }],
            ..base
        },
    })
}

fn mint_on_ground(world: WorldId, &Stack { template, count }: &Stack, at: Position) -> MintItem {
    MintItem { template, count, to: ground_account(world, at.cell()), at: Some(at.into()) }
}

fn reward_coins(reward: &Reward) -> Option<MoveCoins> {
    let to = character_account(reward.player);
    (reward.coins > 0).then(|| MoveCoins { from: "mint:loot".to_owned(), to, amount: reward.coins })
}

fn item_moves(side: &TradeContribution, to: CharacterId) -> impl Iterator<Item = MoveItem> {
    let from = character_account(side.player);
    side.items.iter().map(move |item| MoveItem {
        item: item.0,
        from: from.clone(),
        to: character_account(to),
        at: None,
    })
}

fn coin_move(side: &TradeContribution, to: CharacterId) -> Option<MoveCoins> {
    (side.coins > 0).then(|| MoveCoins {
        from: character_account(side.player),
        to: character_account(to),
        amount: side.coins,
    })
}

/// What the simulation is told.
pub(crate) fn outcome(result: Result<HardResult, DatabaseError>) -> Outcome {
    match result {
        Ok(result) => Outcome::Done {
            applied: result.applied,
            minted: result.minted.into_iter().map(ItemId).collect(),
            possessions: result
                .characters
                .iter()
                .map(|character| (character.id.into(), convert::possessions(character)))
                .collect(),
        },
        Err(DatabaseError::Conflict) => Outcome::Conflict,
        Err(DatabaseError::Refused | DatabaseError::Stale) => Outcome::Refused,
        Err(DatabaseError::Unknown) => Outcome::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use shardkeep_types::MapId;

    use super::*;

    const ANN: CharacterId = CharacterId(1);
    const BOB: CharacterId = CharacterId(2);

    fn action(id: u64) -> ActionKey {
        ActionKey { id, digest: [1; 16] }
    }

    fn recall(player: CharacterId, number: u64) -> Job {
        Job { number, change: HardChange::Recall { player, action: action(number) }, since: Instant::now() }
    }

    fn trade(items: [Vec<ItemId>; 2], coins: [i64; 2]) -> HardChange {
        let [a, b] = items;
        HardChange::Trade {
            sides: [
                TradeContribution { player: ANN, action: action(7), items: a, coins: coins[0] },
                TradeContribution { player: BOB, action: action(9), items: b, coins: coins[1] },
            ],
        }
    }

    #[test]
    fn commits_run_one_per_character_in_order() {
        let mut commit_queue = CommitQueue::default();
        let both = Job { number: 2, change: trade([vec![], vec![]], [0, 0]), since: Instant::now() };
        assert!(matches!(commit_queue.submit(recall(ANN, 1)), QueueResult::Start(_)));
        assert!(matches!(commit_queue.submit(both.clone()), QueueResult::Queued));
        assert!(
            matches!(commit_queue.submit(recall(BOB, 3)), QueueResult::Queued),
            "must not overtake the trade"
        );
        let started = commit_queue.finish(&recall(ANN, 1).change);
        assert_eq!(started.iter().map(|job| job.number).collect::<Vec<_>>(), [2]);
        assert_eq!(commit_queue.finish(&both.change)[0].number, 3);
    }

    #[test]
    fn trade_is_one_transaction_with_both_fences() {
        let change = trade([vec![ItemId(5)], vec![]], [0, 30]);
        let action = transaction(WorldId(1), &change, |player| Some(Epoch(player.0 * 10))).unwrap();
        assert_eq!(action.fences.iter().map(|fence| fence.epoch).collect::<Vec<_>>(), [10, 20]);
        assert_eq!((action.action.unwrap().id, action.other_actions[0].id), (7, 9));
        assert_eq!((action.items[0].from.as_str(), action.items[0].to.as_str()), ("c:1", "c:2"));
        assert_eq!((action.coins[0].from.as_str(), action.coins[0].amount), ("c:2", 30));
        assert!(transaction(WorldId(1), &change, |player| (player == ANN).then_some(Epoch(1))).is_none());
    }

    #[test]
    fn loot_is_minted_once_per_generation() {
        let at = Position::new(MapId(1), 33_000, 1_000);
        let reward = Reward { player: ANN, epoch: Epoch(3), experience: 5, coins: 2 };
        let stacks = vec![Stack { template: 2, count: 1 }];
        let change = HardChange::Loot { spawn: 8, generation: 3, at, stacks, reward: Some(reward) };
        let action = transaction(WorldId(4), &change, |_| None).unwrap();
        assert_eq!(action.fences[0].epoch, 3, "also of a neighbour's avatar");
        assert_eq!(action.once, Some(OnceKey { world: 4, spawn: 8, generation: 3 }));
        assert_eq!(action.mints[0].to, "g:4:1:1:0");
        assert_eq!(action.action, None);
    }
}
