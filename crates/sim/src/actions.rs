//! What a player asks an avatar to do, but for trading. Here it is decided whether it may be tried; whether it
//! happened, the combat stage or the database says.

use shardkeep_types::{CharacterId, EntityId, ItemId, Position};

use crate::{
    Sim,
    event::Refusal,
    input::{Act, Action, Ask, Want},
    rules::{ACTIONS_ON_THEIR_WAY, HEARSAY, HEARSAY_MS, REACH, REPEATS},
    sim::{Hearsay, Strike},
};

/// What became of a request: `None` when the answer comes later.
pub(crate) type Answer = Result<Option<crate::Reply>, Refusal>;

impl Sim {
    pub(crate) fn act(&mut self, ask: Ask, act: Act) {
        let answer = match self.bodies.avatar(ask.character) {
            None => Err(Refusal::NotFound),
            Some((body, _)) if body.frozen => Err(Refusal::Unavailable),
            Some(_) => self.try_act(ask, act),
        };
        match answer {
            Ok(None) => {}
            Ok(Some(reply)) => self.reply(ask, Ok(reply)),
            Err(refusal) => self.reply(ask, Err(refusal)),
        }
    }

    fn try_act(&mut self, ask: Ask, act: Act) -> Answer {
        match act {
            Act::Attack { target } => {
                self.strikes.push(Strike { ask, target });
                Ok(None)
            }
            Act::PickUp { action, entity } => {
                if self.repeats(ask, action)? {
                    return Ok(None);
                }
                self.pick_up(ask, action, entity)
            }
            Act::Drop { action, item } => {
                if self.repeats(ask, action)? {
                    return Ok(None);
                }
                self.put_down(ask, action, item)
            }
            Act::Invite { entity } => self.invite(ask, entity),
            Act::Answer { trade, accept } => self.answer_trade(ask, trade, accept),
            Act::Offer { trade, items, coins } => self.offer(ask, trade, items, coins),
            Act::Confirm { action, trade, revision } => {
                if self.repeats(ask, action)? {
                    return Ok(None);
                }
                self.confirm(ask, action, trade, revision)
            }
            Act::Cancel { trade } => self.cancel(ask, trade),
        }
    }

    /// Whether this action was asked for before: then it waits for the same outcome, or the database is asked
    /// for the stored one.
    fn repeats(&mut self, ask: Ask, action: Action) -> Result<bool, Refusal> {
        let same = |other: &Action| {
            if other.digest == action.digest { Ok(true) } else { Err(Refusal::Conflict) }
        };
        for commit in self.commits.values_mut() {
            let of = |who: CharacterId, its: &Action| who == ask.character && its.id == action.id;
            let found = match &commit.want {
                Want::PickUp { who, action: its, .. }
                | Want::Drop { who, action: its, .. }
                | Want::Recall { who, action: its } => of(*who, its).then_some(its),
                // The trade itself knows who waits for it.
                Want::Trade { .. } | Want::Loot { .. } => None,
            };
            if let Some(its) = found {
                let same = same(its)?;
                if commit.asks.len() >= REPEATS {
                    return Err(Refusal::Unavailable);
                }
                commit.asks.push(ask);
                return Ok(same);
            }
        }
        self.must_not_pile_up(ask.character)?;
        let past = self.possessions(ask.character).is_some_and(|own| action.id <= own.last_action);
        let committing = self.trades.values().any(|trade| {
            let side = trade.seen_by(ask.character).and_then(|(mine, _)| mine.consent.as_ref());
            side.is_some_and(|consent| consent.action.id == action.id)
        });
        if past && !committing {
            let want = Want::Recall { who: ask.character, action };
            self.commit(want, vec![ask], None);
            return Ok(true);
        }
        Ok(false)
    }

    fn pick_up(&mut self, ask: Ask, action: Action, entity: EntityId) -> Answer {
        let item = entity.as_item().ok_or(Refusal::NotFound)?;
        let (body, _) = self.bodies.avatar(ask.character).ok_or(Refusal::NotFound)?;
        let Some(at) = self.place_of(entity) else {
            if !self.beside_foreign(body.cell) || self.hearsay.len() >= HEARSAY {
                return Err(Refusal::NotFound);
            }
            self.hearsay.push(Hearsay { ask, action, entity, until: self.now + HEARSAY_MS });
            return Ok(None);
        };
        let reach = REACH.unsigned_abs();
        if body.position(self.map.id).distance_squared(at) > u64::from(reach).pow(2) {
            return Err(Refusal::Refused("out of reach"));
        }
        self.must_be_able(ask.character)?;
        if self.is_moving(item) {
            return Err(Refusal::Refused("somebody else is taking it"));
        }
        let from = at.cell();
        self.commit(Want::PickUp { who: ask.character, action, item, from }, vec![ask], None);
        Ok(None)
    }

    /// Where an item lies, here or just beyond a border.
    fn place_of(&self, item: EntityId) -> Option<Position> {
        let here = self.cells.find_item(item).map(|(index, place)| self.cells.all[index].ground[place].at);
        here.or_else(|| self.beyond.get(&item).map(|(at, _)| *at))
    }

    /// Those who reached for what this zone had not heard of: has it by now?
    pub(crate) fn hear(&mut self) {
        for waiting in std::mem::take(&mut self.hearsay) {
            let Hearsay { ask, action, entity, until } = waiting;
            if self.place_of(entity).is_some() {
                self.act(ask, Act::PickUp { action, entity });
            } else if self.now < until {
                self.hearsay.push(waiting);
            } else {
                self.reply(ask, Err(Refusal::NotFound));
            }
        }
    }

    fn put_down(&mut self, ask: Ask, action: Action, item: ItemId) -> Answer {
        let (body, avatar) = self.bodies.avatar(ask.character).ok_or(Refusal::NotFound)?;
        let own = avatar.possessions.items.iter().find(|own| own.id == item);
        let stack = *own.ok_or(Refusal::NotFound)?;
        if !self.cells.all[body.cell as usize].ready {
            return Err(Refusal::Unavailable);
        }
        let at = body.position(self.map.id);
        self.must_be_able(ask.character)?;
        if self.is_moving(item) || self.is_offered(ask.character, item) {
            return Err(Refusal::Refused("it is promised to somebody"));
        }
        self.commit(Want::Drop { who: ask.character, action, item: stack, at }, vec![ask], None);
        Ok(None)
    }

    /// While the database is away, what waits for it stays bounded.
    fn must_not_pile_up(&self, character: CharacterId) -> Result<(), Refusal> {
        let of = |want: &Want| want.characters().any(|who| who == character);
        let waiting = self.commits.values().filter(|commit| of(&commit.want)).count();
        if waiting < ACTIONS_ON_THEIR_WAY { Ok(()) } else { Err(Refusal::Unavailable) }
    }

    /// The dead move no property.
    pub(crate) fn must_be_able(&self, character: CharacterId) -> Result<(), Refusal> {
        match self.bodies.avatar(character) {
            Some((body, _)) if body.alive() => Ok(()),
            Some(_) => Err(Refusal::Refused("the dead cannot do that")),
            None => Err(Refusal::NotFound),
        }
    }

    /// A commit on its way moves this item.
    pub(crate) fn is_moving(&self, item: ItemId) -> bool {
        self.commits.values().any(|commit| match &commit.want {
            Want::PickUp { item: moving, .. } => *moving == item,
            Want::Drop { item: moving, .. } => moving.id == item,
            Want::Trade { sides } => sides.iter().any(|side| side.items.contains(&item)),
            Want::Loot { .. } | Want::Recall { .. } => false,
        })
    }
}
