//! Applies the outcomes of commits: possessions change, items appear and vanish, and waiting requests are answered.

use shardkeep_types::{CharacterId, EntityId, ItemId};

use crate::{
    Event, Sim,
    event::{Refusal, Reply, TradeState},
    input::{HardChange, Item, Outcome, Possessions, Requester},
    pending_commits::PendingCommit,
    template::Stack,
};

impl Sim {
    /// Unknown numbers, for example of an earlier run, change nothing.
    pub(crate) fn finish_commit(&mut self, number: u64, outcome: Outcome) {
        let Some(commit) = self.commits.remove(number) else { return };
        let refusal = match outcome {
            Outcome::Done { applied, minted, possessions } => {
                return self.apply_commit(commit, applied, &minted, possessions);
            }
            Outcome::Refused => Refusal::Refused("no longer possible"),
            Outcome::Conflict => Refusal::Conflict,
            Outcome::Unavailable => Refusal::Unavailable,
        };
        if let (HardChange::PickUp { item, from, .. }, Refusal::Refused(_)) = (&commit.change, refusal) {
            // The item is not on the ground: the zone's knowledge was old.
            self.remove_item(EntityId::ground_item(*item));
            self.events.push(Event::GroundStale { cell: *from });
        }
        self.answer(&commit.requesters, || Err(refusal));
        if let Some(trade) = commit.trade {
            self.end_trade(trade, TradeState::Cancelled, refusal);
        }
    }

    fn apply_commit(
        &mut self,
        commit: PendingCommit,
        applied: bool,
        minted: &[ItemId],
        possessions: Vec<(CharacterId, Possessions)>,
    ) {
        for (character, now) in possessions {
            if let Some((_, avatar)) = self.bodies.avatar_mut(character) {
                avatar.possessions = now;
                self.events.push(Event::Possessions { character });
            }
        }
        match commit.change {
            HardChange::PickUp { action, item, from, .. } => {
                let item = EntityId::ground_item(item);
                self.remove_item(item);
                if !self.owns(from) {
                    self.events.push(Event::ItemTaken { item, cell: from });
                }
                self.answer(&commit.requesters, || Ok(Reply::Committed { action: action.id }));
            }
            HardChange::Drop { action, item, at, .. } => {
                if applied && self.owns(at.cell()) {
                    self.cells.place_item(item, at);
                } else {
                    // Another avatar may have taken the item since, or the ground is another zone's. The database knows
                    // where it is.
                    self.events.push(Event::GroundStale { cell: at.cell() });
                }
                self.answer(&commit.requesters, || Ok(Reply::Committed { action: action.id }));
            }
            HardChange::Recall { action, .. } => {
                self.answer(&commit.requesters, || Ok(Reply::Committed { action: action.id }));
            }
            HardChange::Loot { at, stacks, .. } if applied && self.owns(at.cell()) => {
                for (&id, Stack { template, count }) in minted.iter().zip(stacks) {
                    self.cells.place_item(Item { id, template, count }, at);
                }
            }
            HardChange::Loot { at, .. } => self.events.push(Event::GroundStale { cell: at.cell() }),
            HardChange::Trade { .. } => {}
        }
        if let Some(trade) = commit.trade {
            self.finish_trade(trade);
        }
    }

    /// Removes an item from the ground of this zone and of its neighbours.
    fn remove_item(&mut self, item: EntityId) {
        self.cells.remove_item(item);
        self.remote_ground_items.remove(&item);
    }

    fn answer(&mut self, requesters: &[Requester], reply: impl Fn() -> Result<Reply, Refusal>) {
        for &requester in requesters {
            self.reply(requester, reply());
        }
    }
}
