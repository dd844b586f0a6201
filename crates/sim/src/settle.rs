//! What the database said: possessions change, items appear and vanish, and whoever waited is answered.

use shardkeep_types::{CharacterId, EntityId, ItemId};

use crate::{
    Event, Sim,
    event::{Refusal, Reply, TradeState},
    input::{Ask, Item, Outcome, Possessions, Want},
    sim::OnItsWay,
    template::Stack,
};

impl Sim {
    /// Results of commits that nobody waits for any more (an earlier run's) change nothing.
    pub(crate) fn settle(&mut self, number: u64, outcome: Outcome) {
        let Some(commit) = self.commits.remove(&number) else { return };
        let refusal = match outcome {
            Outcome::Done { applied, minted, possessions } => {
                return self.done(commit, applied, &minted, possessions);
            }
            Outcome::Refused => Refusal::Refused("no longer possible"),
            Outcome::Conflict => Refusal::Conflict,
            Outcome::Unavailable => Refusal::Unavailable,
        };
        if let (Want::PickUp { item, from, .. }, Refusal::Refused(_)) = (&commit.want, refusal) {
            // It does not lie there: what this zone knew of the ground was old.
            self.lift(EntityId::ground_item(*item));
            self.events.push(Event::GroundUnsure { cell: *from });
        }
        self.answer(&commit.asks, || Err(refusal));
        if let Some(trade) = commit.trade {
            self.end_trade(trade, TradeState::Cancelled, refusal);
        }
    }

    fn done(
        &mut self,
        commit: OnItsWay,
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
        match commit.want {
            Want::PickUp { action, item, from, .. } => {
                let item = EntityId::ground_item(item);
                self.lift(item);
                if !self.owns(from) {
                    self.events.push(Event::Taken { item, cell: from });
                }
                self.answer(&commit.asks, || Ok(Reply::Committed { action: action.id }));
            }
            Want::Drop { action, item, at, .. } => {
                if applied {
                    self.cells.lay(item, at);
                } else {
                    // It may have been taken since; where it is now is the database's to say.
                    self.events.push(Event::GroundUnsure { cell: at.cell() });
                }
                self.answer(&commit.asks, || Ok(Reply::Committed { action: action.id }));
            }
            Want::Recall { action, .. } => {
                self.answer(&commit.asks, || Ok(Reply::Committed { action: action.id }));
            }
            Want::Loot { at, stacks, .. } if applied => {
                for (&id, Stack { template, count }) in minted.iter().zip(stacks) {
                    self.cells.lay(Item { id, template, count }, at);
                }
            }
            Want::Loot { at, .. } => self.events.push(Event::GroundUnsure { cell: at.cell() }),
            Want::Trade { .. } => {}
        }
        if let Some(trade) = commit.trade {
            self.finish_trade(trade);
        }
    }

    /// The item does not lie on the ground any more, here or beyond the border.
    fn lift(&mut self, item: EntityId) {
        self.cells.lift(item);
        self.beyond.remove(&item);
    }

    fn answer(&mut self, asks: &[Ask], reply: impl Fn() -> Result<Reply, Refusal>) {
        for &ask in asks {
            self.reply(ask, reply());
        }
    }
}
