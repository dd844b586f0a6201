//! The transactions of hard actions, and what their outcomes mean for the simulation.

use shardkeep_rpc::dbcache::{
    ActionId, Fence, HardAction, HardResult, LedgerAccount, LookupActionReply, MintItem, MoveCoins, MoveItem,
    OnceKey, Reward,
};
use shardkeep_sim::{ActionKey, HardChange, Outcome, Stack, TradeContribution};
use shardkeep_types::{CharacterId, ItemId, Position, WorldId};

use crate::{
    domain::payload::Fences,
    edge::{convert, database::DatabaseError},
};

pub(crate) fn action_id(player: CharacterId, action: ActionKey) -> ActionId {
    ActionId { character: player.0, id: action.id, digest: action.digest.to_vec() }
}

/// The transaction for a change. `None` for a recall, which changes nothing.
pub(crate) fn transaction(world: WorldId, change: &HardChange, fences: &Fences) -> Option<HardAction> {
    let fences = fences.iter().map(|(player, epoch)| Fence { character: player.0, epoch: epoch.0 }).collect();
    let ground = |at: Position| LedgerAccount::from((world, at.cell()));
    let base = HardAction { fences, reason: change.reason().to_owned(), ..HardAction::default() };
    Some(match change {
        HardChange::PickUp { player, action, item, from } => HardAction {
            action: Some(action_id(*player, *action)),
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

/// The same change without the reward of another zone's character, if it has one.
pub(crate) fn without_reward(change: &HardChange) -> Option<HardChange> {
    match change {
        HardChange::Loot { spawn, generation, at, stacks, reward: Some(_) } => Some(HardChange::Loot {
            spawn: *spawn,
            generation: *generation,
            at: *at,
            stacks: stacks.clone(),
            reward: None,
        }),
        _ => None,
    }
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
    use shardkeep_types::{Epoch, SpaceId, SpawnId};

    use super::*;

    const ANN: CharacterId = CharacterId(1);
    const BOB: CharacterId = CharacterId(2);

    fn action(id: u64) -> ActionKey {
        ActionKey { id, digest: [1; 16] }
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
    fn trade_is_one_transaction_with_both_fences() {
        let change = trade([vec![ItemId(5)], vec![]], [0, 30]);
        let action = transaction(WorldId(1), &change, &vec![(ANN, Epoch(10)), (BOB, Epoch(20))]).unwrap();
        assert_eq!(action.fences.iter().map(|fence| fence.epoch).collect::<Vec<_>>(), [10, 20]);
        assert_eq!((action.action.unwrap().id, action.other_actions[0].id), (7, 9));
        let (ann, bob) = (LedgerAccount::from(ANN), LedgerAccount::from(BOB));
        assert_eq!((&action.items[0].from, &action.items[0].to), (&Some(ann), &Some(bob.clone())));
        assert_eq!((&action.coins[0].from, action.coins[0].amount), (&Some(bob), 30));
    }

    #[test]
    fn loot_is_minted_once_per_generation() {
        let at = Position::flat(SpaceId(1), 33_000, 1_000);
        let reward = shardkeep_sim::Reward { player: ANN, epoch: Epoch(3), experience: 5, coins: 2 };
        let stacks = vec![Stack { template: 2, count: 1 }];
        let spawn = SpawnId { space: SpaceId(7), number: 8 };
        let change = HardChange::Loot { spawn, generation: 3, at, stacks, reward: Some(reward) };
        let action = transaction(WorldId(4), &change, &Vec::new()).unwrap();
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
