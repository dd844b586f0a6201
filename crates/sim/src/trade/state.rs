//! One trade between two avatars: invite → open → offers (each a new revision) → both confirm one revision → one
//! hard action → done. The trade itself moves nothing; the database moves everything or nothing.

use serde::{Deserialize, Serialize};
use shardkeep_types::{CharacterId, ItemId};

use crate::{
    event::{Refusal, TradeState},
    input::{ActionKey, Requester, TradeContribution},
    rules::MAX_REPEATS,
};

/// The consent to one revision, and the requests that wait for its outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Confirmation {
    pub(crate) action: ActionKey,
    pub(crate) requesters: Vec<Requester>,
}

impl Confirmation {
    fn add_requester(&mut self, requester: Requester) -> Result<(), Refusal> {
        if self.requesters.len() >= MAX_REPEATS {
            return Err(Refusal::Unavailable);
        }
        self.requesters.push(requester);
        Ok(())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Side {
    pub(crate) player: CharacterId,
    pub(crate) items: Vec<ItemId>,
    pub(crate) coins: i64,
    pub(crate) confirmation: Option<Confirmation>,
}

impl Side {
    fn of(player: CharacterId) -> Self {
        Self { player, items: Vec::new(), coins: 0, confirmation: None }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Trade {
    pub(crate) id: u64,
    /// The side that invited comes first.
    pub(crate) sides: [Side; 2],
    pub(crate) state: TradeState,
    pub(crate) revision: u32,
}

/// The effect of a confirmation.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ConfirmOutcome {
    Waiting,
    /// Both sides have confirmed: the trade can be committed.
    Complete,
}

impl Trade {
    pub(crate) fn invite(id: u64, from: CharacterId, to: CharacterId) -> Self {
        Self { id, sides: [Side::of(from), Side::of(to)], state: TradeState::Invited, revision: 0 }
    }

    pub(crate) fn participants(&self) -> [CharacterId; 2] {
        [self.sides[0].player, self.sides[1].player]
    }

    /// The side of this character, and that of the partner.
    pub(crate) fn sides_for(&self, player: CharacterId) -> Option<(&Side, &Side)> {
        match &self.sides {
            [mine, theirs] if mine.player == player => Some((mine, theirs)),
            [theirs, mine] if mine.player == player => Some((mine, theirs)),
            _ => None,
        }
    }

    fn side(&mut self, player: CharacterId) -> Result<&mut Side, Refusal> {
        self.sides.iter_mut().find(|side| side.player == player).ok_or(Refusal::NotFound)
    }

    fn check_open(&self) -> Result<(), Refusal> {
        match self.state {
            TradeState::Open => Ok(()),
            TradeState::Invited => Err(Refusal::Refused("the invitation is not accepted yet")),
            _ => Err(Refusal::Refused("the trade is being committed")),
        }
    }

    /// Only the invited avatar accepts, and only once.
    pub(crate) fn accept(&mut self, player: CharacterId) -> Result<(), Refusal> {
        if self.sides[1].player != player || self.state != TradeState::Invited {
            return Err(Refusal::Refused("there is nothing to answer"));
        }
        self.state = TradeState::Open;
        self.revision = 1;
        Ok(())
    }

    /// Replaces the offer of one side. Returns the requests whose confirmation no longer counts.
    pub(crate) fn offer(
        &mut self,
        player: CharacterId,
        items: Vec<ItemId>,
        coins: i64,
    ) -> Result<Vec<Requester>, Refusal> {
        self.check_open()?;
        let side = self.side(player)?;
        side.items = items;
        side.coins = coins;
        self.revision += 1;
        Ok(self.take_requesters())
    }

    pub(crate) fn confirm(
        &mut self,
        requester: Requester,
        action: ActionKey,
        revision: u32,
    ) -> Result<ConfirmOutcome, Refusal> {
        if self.state == TradeState::Committing {
            return self.confirm_again(requester, action);
        }
        self.check_open()?;
        if revision != self.revision {
            return Err(Refusal::Refused("the offer has changed"));
        }
        let side = self.side(requester.character)?;
        match &mut side.confirmation {
            Some(confirmation) if confirmation.action == action => confirmation.add_requester(requester)?,
            Some(confirmation) if confirmation.action.id == action.id => return Err(Refusal::Conflict),
            Some(_) => return Err(Refusal::Refused("already confirmed by another action")),
            none => *none = Some(Confirmation { action, requesters: vec![requester] }),
        }
        if self.sides.iter().all(|side| side.confirmation.is_some()) {
            self.state = TradeState::Committing;
            return Ok(ConfirmOutcome::Complete);
        }
        Ok(ConfirmOutcome::Waiting)
    }

    /// A client repeats its confirmation after a lost connection, while the commit is pending.
    fn confirm_again(&mut self, requester: Requester, action: ActionKey) -> Result<ConfirmOutcome, Refusal> {
        match &mut self.side(requester.character)?.confirmation {
            Some(confirmation) if confirmation.action == action => {
                confirmation.add_requester(requester).map(|()| ConfirmOutcome::Waiting)
            }
            _ => Err(Refusal::Conflict),
        }
    }

    /// The offers of both sides, once both have confirmed.
    pub(crate) fn contributions(&self) -> Option<[TradeContribution; 2]> {
        let contribution = |side: &Side| {
            let action = side.confirmation.as_ref()?.action;
            Some(TradeContribution {
                player: side.player,
                action,
                items: side.items.clone(),
                coins: side.coins,
            })
        };
        Some([contribution(&self.sides[0])?, contribution(&self.sides[1])?])
    }

    /// Clears both confirmations and returns the requests that waited for them.
    pub(crate) fn take_requesters(&mut self) -> Vec<Requester> {
        self.sides
            .iter_mut()
            .filter_map(|side| side.confirmation.take())
            .flat_map(|confirmation| confirmation.requesters)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: CharacterId = CharacterId(1);
    const BOB: CharacterId = CharacterId(2);

    fn requester(character: CharacterId) -> Requester {
        Requester { character, request: 1 }
    }

    fn action(id: u64) -> ActionKey {
        ActionKey { id, digest: [id as u8; 16] }
    }

    fn open() -> Trade {
        let mut trade = Trade::invite(9, ANN, BOB);
        trade.accept(BOB).unwrap();
        trade
    }

    #[test]
    fn only_invitee_accepts_and_offers_need_open_trade() {
        let mut trade = Trade::invite(9, ANN, BOB);
        assert!(trade.accept(ANN).is_err());
        assert!(trade.offer(ANN, vec![], 1).is_err());
        trade.accept(BOB).unwrap();
        assert!(trade.accept(BOB).is_err());
    }

    #[test]
    fn trade_commits_when_both_confirm_same_revision() {
        let mut trade = open();
        trade.offer(ANN, vec![ItemId(5)], 0).unwrap();
        assert_eq!(
            trade.confirm(requester(ANN), action(1), 1),
            Err(Refusal::Refused("the offer has changed"))
        );
        assert_eq!(trade.confirm(requester(ANN), action(1), 2), Ok(ConfirmOutcome::Waiting));
        assert_eq!(trade.contributions(), None);
        assert_eq!(trade.confirm(requester(BOB), action(7), 2), Ok(ConfirmOutcome::Complete));
        let [ann, bob] = trade.contributions().unwrap();
        assert_eq!((ann.items, bob.items), (vec![ItemId(5)], vec![]));
    }

    #[test]
    fn new_offer_clears_confirmations_and_returns_requesters() {
        let mut trade = open();
        trade.confirm(requester(ANN), action(1), 1).unwrap();
        assert_eq!(trade.offer(BOB, vec![], 3).unwrap(), vec![requester(ANN)]);
        assert_eq!(trade.confirm(requester(BOB), action(2), 2), Ok(ConfirmOutcome::Waiting));
    }

    #[test]
    fn repeated_confirmation_waits_and_changed_one_conflicts() {
        let mut trade = open();
        trade.confirm(requester(ANN), action(1), 1).unwrap();
        assert_eq!(trade.confirm(requester(ANN), action(1), 1), Ok(ConfirmOutcome::Waiting));
        let other = ActionKey { id: 1, digest: [9; 16] };
        assert_eq!(trade.confirm(requester(ANN), other, 1), Err(Refusal::Conflict));
        trade.confirm(requester(BOB), action(2), 1).unwrap();
        assert_eq!(trade.confirm(requester(ANN), action(1), 1), Ok(ConfirmOutcome::Waiting));
        assert!(trade.offer(ANN, vec![], 0).is_err());
        assert_eq!(trade.take_requesters().len(), 4);
    }
}
