//! Requests of players to their avatars, except trades. This file decides whether a request may be tried. The combat
//! stage or the database decides its outcome.

use shardkeep_types::{CharacterId, EntityId, ItemId, Position};

use crate::{
    event::{Answer, Refusal},
    input::{Act, ActionKey, HardChange, Requester},
    rules::{
        MAX_ACTION_GAP, MAX_PENDING_ACTIONS, MAX_PENDING_PICKUPS, MAX_REPEATS, MAX_STACKS, PICKUP_WAIT_MS,
        REACH,
    },
    sim::{PendingPickup, Sim},
    stage::combat,
};

impl Sim {
    pub(crate) fn act(&mut self, requester: Requester, act: Act) {
        let answer = match self.bodies.avatar(requester.character) {
            None => Err(Refusal::NotFound),
            Some((body, _)) if body.is_held() => Err(Refusal::Unavailable),
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
            Act::Attack { target } => combat::attack(self, requester, target),
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
        if let Some((first, commit)) = self.commits.of_action(requester.character, action.id) {
            if first.digest != action.digest {
                return Err(Refusal::Conflict);
            }
            if commit.requesters.len() >= MAX_REPEATS {
                return Err(Refusal::Unavailable);
            }
            commit.requesters.push(requester);
            return Ok(true);
        }
        self.check_pending_limit(requester.character)?;
        let last = self.possessions(requester.character).map_or(0, |own| own.last_action);
        if action.id > last.saturating_add(MAX_ACTION_GAP) {
            return Err(Refusal::Refused("the action id is too far ahead: continue above last_action"));
        }
        let past = action.id <= last;
        let own_side =
            self.current_trade(requester.character).and_then(|trade| trade.sides_for(requester.character));
        let confirmation = own_side.and_then(|(own_side, _)| own_side.confirmation.as_ref());
        let committing = confirmation.is_some_and(|confirmation| confirmation.action.id == action.id);
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
        if self.commits.moves(item) {
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
        if self.commits.moves(item) || self.is_offered(requester.character, item) {
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
        if self.commits.count_of(character) < MAX_PENDING_ACTIONS {
            Ok(())
        } else {
            Err(Refusal::Unavailable)
        }
    }

    /// A dead avatar moves no property.
    pub(crate) fn check_alive(&self, character: CharacterId) -> Result<(), Refusal> {
        match self.bodies.avatar(character) {
            Some((body, _)) if body.alive() => Ok(()),
            Some(_) => Err(Refusal::Refused("a dead avatar cannot do that")),
            None => Err(Refusal::NotFound),
        }
    }
}
