//! Turns the changes that the simulation wants into transactions, and keeps the actions of each character in order.

use std::collections::{HashSet, VecDeque};
use std::time::Instant;

use shardkeep_rpc::dbcache::{
    ActionId, Fence, HardAction, HardResult, LedgerAccount, LookupActionReply, MintItem, MoveCoins, MoveItem,
    OnceKey, Reward,
};
use shardkeep_sim::{ActionKey, HardChange, Outcome, Stack, TradeContribution};
use shardkeep_types::{CharacterId, Epoch, ItemId, Position, WorldId};

use crate::{convert, database::DatabaseError};

/// Bound of the actions that wait for another action of the same character. Overflow: the action is refused as
/// unavailable and counted.
const MAX_QUEUED: usize = 1_024;

/// A commit in progress.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) number: u64,
    pub(crate) change: HardChange,
    pub(crate) since: Instant,
}

/// The decision of the queue about a new job.
#[derive(Debug)]
pub(crate) enum QueueResult {
    Start(Job),
    /// It waits for other jobs of the same character.
    Queued,
    /// Too many jobs wait.
    Full(Job),
}

/// Runs at most one commit per character at a time, so that results come in the order of the actions.
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

    /// A job has ended. Returns the jobs that can start now.
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

pub(crate) fn action_id(player: CharacterId, action: ActionKey) -> ActionId {
    ActionId { character: player.0, id: action.id, digest: action.digest.to_vec() }
}

/// The transaction for a change. `epoch` returns the ownership epoch of each character of this zone. `None` when one of
/// them has left: its fence cannot hold. `None` also for a recall, which changes nothing.
pub(crate) fn transaction(
    world: WorldId,
    change: &HardChange,
    epoch: impl Fn(CharacterId) -> Option<Epoch>,
) -> Option<HardAction> {
    let fence = |player| Some(Fence { character: player, epoch: epoch(CharacterId(player))?.0 });
    let ground = |at: Position| LedgerAccount::from((world, at.cell()));
    let base = HardAction { reason: change.reason().to_owned(), ..HardAction::default() };
    Some(match change {
        HardChange::PickUp { player, action, item, from } => HardAction {
            action: Some(action_id(*player, *action)),
            fences: vec![fence(player.0)?],
            items: vec![MoveItem {
                item: item.0,
                from: Some((world, *from).into()),
                to: Some((*player).into()),
                at: None,
            }],
            ..base
        },
        HardChange::Drop { player, action, item, at } => HardAction {
            action: Some(action_id(*player, *action)),
            fences: vec![fence(player.0)?],
            items: vec![MoveItem {
                item: item.id.0,
                from: Some((*player).into()),
                to: Some(ground(*at)),
                at: Some((*at).into()),
            }],
            ..base
        },
        HardChange::Trade { sides: [a, b] } => HardAction {
            action: Some(action_id(a.player, a.action)),
            other_actions: vec![action_id(b.player, b.action)],
            fences: vec![fence(a.player.0)?, fence(b.player.0)?],
            items: item_moves(a, b.player).chain(item_moves(b, a.player)).collect(),
            coins: coin_move(a, b.player).into_iter().chain(coin_move(b, a.player)).collect(),
            ..base
        },
        HardChange::Loot { spawn, generation, at, stacks, reward } => HardAction {
            once: Some(OnceKey {
                world: world.0,
                space: spawn.space.0,
                spawn: spawn.number,
                generation: *generation,
            }),
            mints: stacks.iter().map(|stack| mint_item(stack, ground(*at), *at)).collect(),
            reward: reward.map(|reward| Reward {
                character: reward.player.0,
                epoch: reward.epoch.0,
                coins: reward.coins,
                experience: reward.experience,
            }),
            ..base
        },
        HardChange::Recall { .. } => return None,
    })
}

fn mint_item(&Stack { template, count }: &Stack, to: LedgerAccount, at: Position) -> MintItem {
    MintItem { template, count, to: Some(to), at: Some(at.into()) }
}

fn item_moves(side: &TradeContribution, to: CharacterId) -> impl Iterator<Item = MoveItem> {
    let from = side.player;
    side.items.iter().map(move |item| MoveItem {
        item: item.0,
        from: Some(from.into()),
        to: Some(to.into()),
        at: None,
    })
}

fn coin_move(side: &TradeContribution, to: CharacterId) -> Option<MoveCoins> {
    (side.coins > 0).then(|| MoveCoins {
        from: Some(side.player.into()),
        to: Some(to.into()),
        amount: side.coins,
    })
}

/// The outcome of a commit for the simulation.
pub(crate) fn outcome(result: Result<HardResult, DatabaseError>) -> Outcome {
    result.map_or_else(failure, |result| Outcome::Done {
        applied: result.applied,
        minted: result.minted.into_iter().map(ItemId).collect(),
        possessions: result
            .characters
            .iter()
            .map(|character| (character.id.into(), convert::possessions(character)))
            .collect(),
    })
}

/// The outcome of a recall for the simulation: that of the earlier action, if the database stores one.
pub(crate) fn recalled(result: Result<LookupActionReply, DatabaseError>) -> Outcome {
    match result {
        Ok(reply) if reply.found => Outcome::Done {
            applied: false,
            minted: reply.minted.into_iter().map(ItemId).collect(),
            possessions: reply
                .character
                .iter()
                .map(|character| (character.id.into(), convert::possessions(character)))
                .collect(),
        },
        Ok(_) => Outcome::Refused,
        Err(error) => failure(error),
    }
}

fn failure(error: DatabaseError) -> Outcome {
    match error {
        DatabaseError::Conflict => Outcome::Conflict,
        DatabaseError::Refused | DatabaseError::Stale => Outcome::Refused,
        DatabaseError::Unknown => Outcome::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use shardkeep_types::{SpaceId, SpawnId};

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
        let (ann, bob) = (LedgerAccount::from(ANN), LedgerAccount::from(BOB));
        assert_eq!((&action.items[0].from, &action.items[0].to), (&Some(ann), &Some(bob.clone())));
        assert_eq!((&action.coins[0].from, action.coins[0].amount), (&Some(bob), 30));
        assert!(transaction(WorldId(1), &change, |player| (player == ANN).then_some(Epoch(1))).is_none());
    }

    #[test]
    fn loot_is_minted_once_per_generation() {
        let at = Position::flat(SpaceId(1), 33_000, 1_000);
        let reward = shardkeep_sim::Reward { player: ANN, epoch: Epoch(3), experience: 5, coins: 2 };
        let stacks = vec![Stack { template: 2, count: 1 }];
        let spawn = SpawnId { space: SpaceId(7), number: 8 };
        let change = HardChange::Loot { spawn, generation: 3, at, stacks, reward: Some(reward) };
        let action = transaction(WorldId(4), &change, |_| None).unwrap();
        assert!(action.fences.is_empty() && action.coins.is_empty(), "the reward may be a neighbour's");
        assert_eq!(
            action.reward.map(|reward| (reward.epoch, reward.coins, reward.experience)),
            Some((3, 2, 5))
        );
        assert_eq!(action.once, Some(OnceKey { world: 4, space: 7, spawn: 8, generation: 3 }));
        assert_eq!(action.mints[0].to, Some((WorldId(4), at.cell()).into()));
        assert_eq!(action.action, None);
    }
}
