//! One trade between two avatars: invite → open → offers (each a new revision) → both confirm that revision →
//! one hard action → done. Nothing changes hands here; the database moves everything or nothing.

use shardkeep_types::{CharacterId, ItemId};

use crate::{
    event::{Refusal, TradeState},
    input::{Action, Ask, TradeGive},
    rules::REPEATS,
};

/// An agreement to one revision, and who waits for its outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Consent {
    pub(crate) action: Action,
    pub(crate) asks: Vec<Ask>,
}

impl Consent {
    fn wait(&mut self, ask: Ask) -> Result<(), Refusal> {
        if self.asks.len() >= REPEATS {
            return Err(Refusal::Unavailable);
        }
        self.asks.push(ask);
        Ok(())
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Side {
    pub(crate) who: CharacterId,
    pub(crate) items: Vec<ItemId>,
    pub(crate) coins: i64,
    pub(crate) consent: Option<Consent>,
}

impl Side {
    fn of(who: CharacterId) -> Self {
        Self { who, items: Vec::new(), coins: 0, consent: None }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trade {
    pub(crate) id: u64,
    /// The one who invited first.
    pub(crate) sides: [Side; 2],
    pub(crate) state: TradeState,
    pub(crate) revision: u32,
}

/// What a confirmation led to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Confirmed {
    Waiting,
    /// Both agree: to be committed.
    Both,
}

impl Trade {
    pub(crate) fn invite(id: u64, from: CharacterId, to: CharacterId) -> Self {
        Self { id, sides: [Side::of(from), Side::of(to)], state: TradeState::Invited, revision: 0 }
    }

    pub(crate) fn both(&self) -> [CharacterId; 2] {
        [self.sides[0].who, self.sides[1].who]
    }

    /// This character's side, and the partner's.
    pub(crate) fn seen_by(&self, who: CharacterId) -> Option<(&Side, &Side)> {
        match &self.sides {
            [mine, theirs] if mine.who == who => Some((mine, theirs)),
            [theirs, mine] if mine.who == who => Some((mine, theirs)),
            _ => None,
        }
    }

    fn side(&mut self, who: CharacterId) -> Result<&mut Side, Refusal> {
        self.sides.iter_mut().find(|side| side.who == who).ok_or(Refusal::NotFound)
    }

    fn must_be_open(&self) -> Result<(), Refusal> {
        match self.state {
            TradeState::Open => Ok(()),
            TradeState::Invited => Err(Refusal::Refused("the invitation is not accepted yet")),
            _ => Err(Refusal::Refused("the trade is being committed")),
        }
    }

    /// Only the one invited answers, once.
    pub(crate) fn accept(&mut self, who: CharacterId) -> Result<(), Refusal> {
        if self.sides[1].who != who || self.state != TradeState::Invited {
            return Err(Refusal::Refused("there is nothing to answer"));
        }
        self.state = TradeState::Open;
        self.revision = 1;
        Ok(())
    }

    /// Replaces one side's offer; whoever had confirmed is told that it no longer counts.
    pub(crate) fn offer(
        &mut self,
        who: CharacterId,
        items: Vec<ItemId>,
        coins: i64,
    ) -> Result<Vec<Ask>, Refusal> {
        self.must_be_open()?;
        let side = self.side(who)?;
        side.items = items;
        side.coins = coins;
        self.revision += 1;
        Ok(self.take_asks())
    }

    pub(crate) fn confirm(&mut self, ask: Ask, action: Action, revision: u32) -> Result<Confirmed, Refusal> {
        if self.state == TradeState::Committing {
            return self.confirm_again(ask, action);
        }
        self.must_be_open()?;
        if revision != self.revision {
            return Err(Refusal::Refused("the offer has changed"));
        }
        let side = self.side(ask.character)?;
        match &mut side.consent {
            Some(consent) if consent.action == action => consent.wait(ask)?,
            Some(consent) if consent.action.id == action.id => return Err(Refusal::Conflict),
            Some(_) => return Err(Refusal::Refused("already confirmed by another action")),
            none => *none = Some(Consent { action, asks: vec![ask] }),
        }
        if self.sides.iter().all(|side| side.consent.is_some()) {
            self.state = TradeState::Committing;
            return Ok(Confirmed::Both);
        }
        Ok(Confirmed::Waiting)
    }

    /// A client that lost its connection repeats the request while the commit is on its way.
    fn confirm_again(&mut self, ask: Ask, action: Action) -> Result<Confirmed, Refusal> {
        match &mut self.side(ask.character)?.consent {
            Some(consent) if consent.action == action => consent.wait(ask).map(|()| Confirmed::Waiting),
            _ => Err(Refusal::Conflict),
        }
    }

    /// What each side gives, when both agree.
    pub(crate) fn gives(&self) -> Option<[TradeGive; 2]> {
        let give = |side: &Side| {
            let action = side.consent.as_ref()?.action;
            Some(TradeGive { who: side.who, action, items: side.items.clone(), coins: side.coins })
        };
        Some([give(&self.sides[0])?, give(&self.sides[1])?])
    }

    /// Clears both confirmations and returns who waited for them.
    pub(crate) fn take_asks(&mut self) -> Vec<Ask> {
        self.sides
            .iter_mut()
            .filter_map(|side| side.consent.take())
            .flat_map(|consent| consent.asks)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: CharacterId = CharacterId(1);
    const BOB: CharacterId = CharacterId(2);

    fn ask(character: CharacterId) -> Ask {
        Ask { character, request: 1 }
    }

    fn action(id: u64) -> Action {
        Action { id, digest: [id as u8; 16] }
    }

    fn open() -> Trade {
        let mut trade = Trade::invite(9, ANN, BOB);
        trade.accept(BOB).unwrap();
        trade
    }

    #[test]
    fn only_the_invited_accepts_and_nothing_is_offered_before() {
        let mut trade = Trade::invite(9, ANN, BOB);
        assert!(trade.accept(ANN).is_err());
        assert!(trade.offer(ANN, vec![], 1).is_err());
        trade.accept(BOB).unwrap();
        assert!(trade.accept(BOB).is_err());
    }

    #[test]
    fn both_must_confirm_the_same_revision() {
        let mut trade = open();
        trade.offer(ANN, vec![ItemId(5)], 0).unwrap();
        assert_eq!(trade.confirm(ask(ANN), action(1), 1), Err(Refusal::Refused("the offer has changed")));
        assert_eq!(trade.confirm(ask(ANN), action(1), 2), Ok(Confirmed::Waiting));
        assert_eq!(trade.gives(), None);
        assert_eq!(trade.confirm(ask(BOB), action(7), 2), Ok(Confirmed::Both));
        let [ann, bob] = trade.gives().unwrap();
        assert_eq!((ann.items, bob.items), (vec![ItemId(5)], vec![]));
    }

    #[test]
    fn a_new_offer_clears_confirmations_and_says_so() {
        let mut trade = open();
        trade.confirm(ask(ANN), action(1), 1).unwrap();
        assert_eq!(trade.offer(BOB, vec![], 3).unwrap(), vec![ask(ANN)]);
        assert_eq!(trade.confirm(ask(BOB), action(2), 2), Ok(Confirmed::Waiting));
    }

    #[test]
    fn a_repeated_confirmation_waits_along_and_another_conflicts() {
        let mut trade = open();
        trade.confirm(ask(ANN), action(1), 1).unwrap();
        assert_eq!(trade.confirm(ask(ANN), action(1), 1), Ok(Confirmed::Waiting));
        let other = Action { id: 1, digest: [9; 16] };
        assert_eq!(trade.confirm(ask(ANN), other, 1), Err(Refusal::Conflict));
        trade.confirm(ask(BOB), action(2), 1).unwrap();
        assert_eq!(trade.confirm(ask(ANN), action(1), 1), Ok(Confirmed::Waiting));
        assert!(trade.offer(ANN, vec![], 0).is_err());
        assert_eq!(trade.take_asks().len(), 4);
    }
}
