//! From what the simulation wants to what the database commits, and the lanes that keep a character's actions in
//! order.

use std::collections::{HashSet, VecDeque};
use std::time::Instant;

use shardkeep_rpc::dbcache::{
    ActionId, AddExperience, Fence, HardAction, HardResult, MintItem, MoveCoins, MoveItem, OnceKey,
};
use shardkeep_sim::{Action, Outcome, Reward, Stack, TradeGive, Want};
use shardkeep_types::{CellId, CharacterId, Epoch, ItemId, Position, WorldId};

use crate::{convert, database::DatabaseError};

/// Most actions that wait for another of the same character. Overflow: refused as unavailable, counted.
const WAITING: usize = 1_024;

/// One wanted commit on its way.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) number: u64,
    pub(crate) want: Want,
    pub(crate) since: Instant,
}

/// What becomes of a new job.
#[derive(Debug)]
pub(crate) enum Begun {
    Now(Job),
    /// After others of the same character.
    Later,
    /// Too many wait.
    Never(Job),
}

/// At most one commit per character at a time, so that results come in the order of the actions.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    busy: HashSet<CharacterId>,
    waiting: VecDeque<Job>,
}

impl Lanes {
    pub(crate) fn begin(&mut self, job: Job) -> Begun {
        let blocked = |who: CharacterId| {
            self.busy.contains(&who)
                || self.waiting.iter().any(|job| job.want.characters().any(|it| it == who))
        };
        if !job.want.characters().any(blocked) {
            self.busy.extend(job.want.characters());
            return Begun::Now(job);
        }
        if self.waiting.len() >= WAITING {
            return Begun::Never(job);
        }
        self.waiting.push_back(job);
        Begun::Later
    }

    /// A job is over: those that can start now.
    pub(crate) fn end(&mut self, want: &Want) -> Vec<Job> {
        want.characters().for_each(|who| {
            self.busy.remove(&who);
        });
        let mut started = Vec::new();
        let mut passed: HashSet<CharacterId> = HashSet::new();
        let mut waiting = VecDeque::new();
        for job in self.waiting.drain(..) {
            let free = |who: CharacterId| !self.busy.contains(&who) && !passed.contains(&who);
            if job.want.characters().all(free) {
                self.busy.extend(job.want.characters());
                started.push(job);
            } else {
                passed.extend(job.want.characters());
                waiting.push_back(job);
            }
        }
        self.waiting = waiting;
        started
    }
}

/// Ledger account of a character.
fn holder(who: CharacterId) -> String {
    format!("c:{who}")
}

/// Ledger account of the ground of a cell.
fn ground(world: WorldId, cell: CellId) -> String {
    format!("g:{world}:{}:{}:{}", cell.map.0, cell.x, cell.y)
}

fn action_id(who: CharacterId, action: Action) -> ActionId {
    ActionId { character: who.0, id: action.id, digest: action.digest.to_vec() }
}

/// The transaction that does what is wanted. `epoch` gives the ownership epoch of each character here; without one
/// the fence cannot hold, and the wish must not be tried.
pub(crate) fn transaction(
    world: WorldId,
    want: &Want,
    epoch: impl Fn(CharacterId) -> Option<Epoch>,
) -> Option<HardAction> {
    let epoch = |who| match want {
        Want::Loot { reward: Some(reward), .. } => Some(reward.epoch),
        _ => epoch(who),
    };
    let fences = want.characters().map(|who| Some(Fence { character: who.0, epoch: epoch(who)?.0 }));
    let base = HardAction {
        fences: fences.collect::<Option<_>>()?,
        reason: want.reason().to_owned(),
        ..HardAction::default()
    };
    Some(match want {
        Want::PickUp { who, action, item, from } => HardAction {
            action: Some(action_id(*who, *action)),
            items: vec![MoveItem { item: item.0, from: ground(world, *from), to: holder(*who), at: None }],
            ..base
        },
        Want::Drop { who, action, item, at } => HardAction {
            action: Some(action_id(*who, *action)),
            items: vec![MoveItem {
                item: item.id.0,
                from: holder(*who),
                to: ground(world, at.cell()),
                at: Some((*at).into()),
            }],
            ..base
        },
        Want::Trade { sides: [a, b] } => HardAction {
            action: Some(action_id(a.who, a.action)),
            also: vec![action_id(b.who, b.action)],
            items: gives(a, b.who).chain(gives(b, a.who)).collect(),
            coins: pays(a, b.who).into_iter().chain(pays(b, a.who)).collect(),
            ..base
        },
        Want::Loot { spawn, generation, at, stacks, reward } => HardAction {
            once: Some(OnceKey { world: world.0, spawn: *spawn, generation: *generation }),
            mints: stacks.iter().map(|stack| on_ground(world, stack, *at)).collect(),
            coins: reward.iter().filter_map(purse).collect(),
            experience: reward
                .iter()
                .map(|reward| AddExperience { character: reward.who.0, amount: reward.experience })
                .collect(),
            ..base
        },
        // If the action was never done after all, this cannot be done either: nobody holds item 0.
        Want::Recall { who, action } => HardAction {
            action: Some(action_id(*who, *action)),
            items: vec![MoveItem { item: 0, from: holder(*who), to: "burn:recall".to_owned(), at: None }],
            ..base
        },
    })
}

fn on_ground(world: WorldId, &Stack { template, count }: &Stack, at: Position) -> MintItem {
    MintItem { template, count, to: ground(world, at.cell()), at: Some(at.into()) }
}

fn purse(reward: &Reward) -> Option<MoveCoins> {
    let to = holder(reward.who);
    (reward.coins > 0).then(|| MoveCoins { from: "mint:loot".to_owned(), to, amount: reward.coins })
}

fn gives(side: &TradeGive, to: CharacterId) -> impl Iterator<Item = MoveItem> {
    let from = holder(side.who);
    side.items.iter().map(move |item| MoveItem { item: item.0, from: from.clone(), to: holder(to), at: None })
}

fn pays(side: &TradeGive, to: CharacterId) -> Option<MoveCoins> {
    (side.coins > 0).then(|| MoveCoins { from: holder(side.who), to: holder(to), amount: side.coins })
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

    fn action(id: u64) -> Action {
        Action { id, digest: [1; 16] }
    }

    fn recall(who: CharacterId, number: u64) -> Job {
        Job { number, want: Want::Recall { who, action: action(number) }, since: Instant::now() }
    }

    fn trade(items: [Vec<ItemId>; 2], coins: [i64; 2]) -> Want {
        let [a, b] = items;
        Want::Trade {
            sides: [
                TradeGive { who: ANN, action: action(7), items: a, coins: coins[0] },
                TradeGive { who: BOB, action: action(9), items: b, coins: coins[1] },
            ],
        }
    }

    #[test]
    fn one_at_a_time_per_character_and_in_order() {
        let mut lanes = Lanes::default();
        let both = Job { number: 2, want: trade([vec![], vec![]], [0, 0]), since: Instant::now() };
        assert!(matches!(lanes.begin(recall(ANN, 1)), Begun::Now(_)));
        assert!(matches!(lanes.begin(both.clone()), Begun::Later));
        assert!(matches!(lanes.begin(recall(BOB, 3)), Begun::Later), "must not overtake the trade");
        let started = lanes.end(&recall(ANN, 1).want);
        assert_eq!(started.iter().map(|job| job.number).collect::<Vec<_>>(), [2]);
        assert_eq!(lanes.end(&both.want)[0].number, 3);
    }

    #[test]
    fn a_trade_is_one_transaction_with_both_fences_and_both_actions() {
        let want = trade([vec![ItemId(5)], vec![]], [0, 30]);
        let action = transaction(WorldId(1), &want, |who| Some(Epoch(who.0 * 10))).unwrap();
        assert_eq!(action.fences.iter().map(|fence| fence.epoch).collect::<Vec<_>>(), [10, 20]);
        assert_eq!((action.action.unwrap().id, action.also[0].id), (7, 9));
        assert_eq!((action.items[0].from.as_str(), action.items[0].to.as_str()), ("c:1", "c:2"));
        assert_eq!((action.coins[0].from.as_str(), action.coins[0].amount), ("c:2", 30));
        assert!(transaction(WorldId(1), &want, |who| (who == ANN).then_some(Epoch(1))).is_none());
    }

    #[test]
    fn loot_is_minted_under_its_generation() {
        let at = Position::new(MapId(1), 33_000, 1_000);
        let reward = Reward { who: ANN, epoch: Epoch(3), experience: 5, coins: 2 };
        let stacks = vec![Stack { template: 2, count: 1 }];
        let want = Want::Loot { spawn: 8, generation: 3, at, stacks, reward: Some(reward) };
        let action = transaction(WorldId(4), &want, |_| None).unwrap();
        assert_eq!(action.fences[0].epoch, 3, "also of a neighbour's avatar");
        assert_eq!(action.once, Some(OnceKey { world: 4, spawn: 8, generation: 3 }));
        assert_eq!(action.mints[0].to, "g:4:1:1:0");
        assert_eq!(action.action, None);
    }
}
