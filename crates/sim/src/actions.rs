//! Requests of players to their avatars, except trades. This file decides whether a request may be tried. The combat
//! stage or the database decides its outcome.

use shardkeep_types::{CharacterId, EntityId, ItemId, Position};

use crate::{
    event::{Refusal, Reply},
    input::{Act, ActionKey, HardChange, Requester},
    rules::{
        MAX_ACTION_GAP, MAX_PENDING_ACTIONS, MAX_PENDING_PICKUPS, MAX_REPEATS, MAX_STACKS, PICKUP_WAIT_MS,
        REACH,
    },
    sim::{PendingAttack, PendingPickup, Sim},
};

/// The answer to a request; `None` when it comes later.
pub(crate) type Answer = Result<Option<Reply>, Refusal>;

impl Sim {
    pub(crate) fn act(&mut self, requester: Requester, act: Act) {
        let answer = match self.bodies.avatar(requester.character) {
            None => Err(Refusal::NotFound),
            Some((body, _)) if body.frozen => Err(Refusal::Unavailable),
            Some(_) => self.try_act(requester, act),
        };
        match answer {
            Ok(None) => {}
            Ok(Some(reply)) => self.reply(requester, Ok(reply)),
            Err(refusal) => self.reply(requester, Err(refusal)),
        }
    }

    fn try_act(&mut self, requester: Requester, act: Act) -> Answer {
        match act {
            Act::Attack { target } => {
                self.pending_attacks.push(PendingAttack { requester, target });
                Ok(None)
            }
            Act::PickUp { action, entity } => {
                if self.handle_repeat(requester, action)? {
                    return Ok(None);
                }
                self.pick_up(requester, action, entity)
            }
            Act::Drop { action, item } => {
                if self.handle_repeat(requester, action)? {
                    return Ok(None);
                }
                self.drop_item(requester, action, item)
            }
            Act::Invite { entity } => self.invite(requester, entity),
            Act::Answer { trade, accept } => self.answer_trade(requester, trade, accept),
            Act::Offer { trade, items, coins } => self.offer(requester, trade, items, coins),
            Act::Confirm { action, trade, revision } => {
                if self.handle_repeat(requester, action)? {
                    return Ok(None);
                }
                self.confirm(requester, action, trade, revision)
            }
            Act::Cancel { trade } => self.cancel(requester, trade),
        }
    }

    /// Whether this action is a repeat. A repeat waits for the pending outcome, or the database is asked for the stored
    /// one.
    fn handle_repeat(&mut self, requester: Requester, action: ActionKey) -> Result<bool, Refusal> {
        let same = |other: &ActionKey| {
            if other.digest == action.digest { Ok(true) } else { Err(Refusal::Conflict) }
        };
        for commit in self.commits.values_mut() {
            let of =
                |player: CharacterId, its: &ActionKey| player == requester.character && its.id == action.id;
            let found = match &commit.change {
                HardChange::PickUp { player, action: its, .. }
                | HardChange::Drop { player, action: its, .. }
                | HardChange::Recall { player, action: its } => of(*player, its).then_some(its),
                // A trade stores the requests that wait for it.
                HardChange::Trade { .. } | HardChange::Loot { .. } => None,
            };
            if let Some(its) = found {
                let same = same(its)?;
                if commit.requesters.len() >= MAX_REPEATS {
                    return Err(Refusal::Unavailable);
                }
                commit.requesters.push(requester);
                return Ok(same);
            }
        }
        self.check_pending_limit(requester.character)?;
        let last = self.possessions(requester.character).map_or(0, |own| own.last_action);
        if action.id > last.saturating_add(MAX_ACTION_GAP) {
            return Err(Refusal::Refused("the action id is too far ahead: continue above last_action"));
        }
        let past = action.id <= last;
        let committing = self.trades.values().any(|trade| {
            let side = trade.sides_for(requester.character).and_then(|(mine, _)| mine.confirmation.as_ref());
            side.is_some_and(|confirmation| confirmation.action.id == action.id)
        });
        if past && !committing {
            let change = HardChange::Recall { player: requester.character, action };
            self.commit(change, vec![requester], None);
            return Ok(true);
        }
        Ok(false)
    }

    fn pick_up(&mut self, requester: Requester, action: ActionKey, entity: EntityId) -> Answer {
        let item = entity.as_item().ok_or(Refusal::NotFound)?;
        let (body, _) = self.bodies.avatar(requester.character).ok_or(Refusal::NotFound)?;
        let Some(at) = self.item_position(entity) else {
            if !self.is_border_cell(body.cell) || self.pending_pickups.len() >= MAX_PENDING_PICKUPS {
                return Err(Refusal::NotFound);
            }
            self.pending_pickups.push(PendingPickup {
                requester,
                action,
                entity,
                until: self.now + PICKUP_WAIT_MS,
            });
            return Ok(None);
        };
        let reach = REACH.unsigned_abs();
        if self.position_of(body).distance_squared(at) > u64::from(reach).pow(2) {
            return Err(Refusal::Refused("out of reach"));
        }
        self.check_alive(requester.character)?;
        if self.has_pending_move(item) {
            return Err(Refusal::Refused("another player is picking up the item"));
        }
        if self.possessions(requester.character).is_some_and(|own| own.items.len() >= MAX_STACKS) {
            return Err(Refusal::Refused("the inventory is full"));
        }
        let from = at.cell();
        self.commit(
            HardChange::PickUp { player: requester.character, action, item, from },
            vec![requester],
            None,
        );
        Ok(None)
    }

    /// The position of an item on the ground, in this zone or near its border.
    fn item_position(&self, item: EntityId) -> Option<Position> {
        let here = self.cells.find_item(item).map(|(index, place)| self.cells.all[index].ground[place].at);
        here.or_else(|| self.remote_ground_items.get(&item).map(|(at, _)| *at))
    }

    /// Retries pick-ups of items that this zone did not know.
    pub(crate) fn retry_pending_pickups(&mut self) {
        for waiting in std::mem::take(&mut self.pending_pickups) {
            let PendingPickup { requester, action, entity, until } = waiting;
            if self.item_position(entity).is_some() {
                self.act(requester, Act::PickUp { action, entity });
            } else if self.now < until {
                self.pending_pickups.push(waiting);
            } else {
                self.reply(requester, Err(Refusal::NotFound));
            }
        }
    }

    fn drop_item(&mut self, requester: Requester, action: ActionKey, item: ItemId) -> Answer {
        let (body, avatar) = self.bodies.avatar(requester.character).ok_or(Refusal::NotFound)?;
        let own = avatar.possessions.items.iter().find(|own| own.id == item);
        let stack = *own.ok_or(Refusal::NotFound)?;
        if !self.cells.all[body.cell as usize].ready {
            return Err(Refusal::Unavailable);
        }
        let at = self.position_of(body);
        self.check_alive(requester.character)?;
        if self.has_pending_move(item) || self.is_offered(requester.character, item) {
            return Err(Refusal::Refused("the item is part of a trade or of another action"));
        }
        self.commit(
            HardChange::Drop { player: requester.character, action, item: stack, at },
            vec![requester],
            None,
        );
        Ok(None)
    }

    /// Bounds the actions that wait for the database.
    fn check_pending_limit(&self, character: CharacterId) -> Result<(), Refusal> {
        let of = |change: &HardChange| change.characters().any(|player| player == character);
        let waiting = self.commits.values().filter(|commit| of(&commit.change)).count();
        if waiting < MAX_PENDING_ACTIONS { Ok(()) } else { Err(Refusal::Unavailable) }
    }

    /// A dead avatar moves no property.
    pub(crate) fn check_alive(&self, character: CharacterId) -> Result<(), Refusal> {
        match self.bodies.avatar(character) {
            Some((body, _)) if body.alive() => Ok(()),
            Some(_) => Err(Refusal::Refused("a dead avatar cannot do that")),
            None => Err(Refusal::NotFound),
        }
    }

    /// Whether a pending commit moves this item.
    pub(crate) fn has_pending_move(&self, item: ItemId) -> bool {
        self.commits.values().any(|commit| match &commit.change {
            HardChange::PickUp { item: moving, .. } => *moving == item,
            HardChange::Drop { item: moving, .. } => moving.id == item,
            HardChange::Trade { sides } => sides.iter().any(|side| side.items.contains(&item)),
            HardChange::Loot { .. } | HardChange::Recall { .. } => false,
        })
    }
}
