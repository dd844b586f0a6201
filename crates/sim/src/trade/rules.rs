//! Trades between avatars of one zone: the conditions for a trade, and the events for its participants.

use std::sync::Arc;

use shardkeep_types::{CharacterId, EntityId, ItemId};

use crate::{
    Event, Sim,
    event::{Answer, Refusal, Reply, TradeSideView, TradeState, TradeView},
    input::{ActionKey, HardChange, Item, Requester},
    rules::{MAX_TRADE_ITEMS, TRADE_DISTANCE},
    trade::{ConfirmOutcome, Side, Trade},
};

impl Sim {
    pub(crate) fn invite(&mut self, requester: Requester, entity: EntityId) -> Answer {
        let partner =
            entity.as_character().filter(|&player| player != requester.character).ok_or(Refusal::NotFound)?;
        self.check_can_trade(requester.character)?;
        let (own_side, _) = self.bodies.avatar(requester.character).ok_or(Refusal::NotFound)?;
        let Some((partner_side, _)) = self.bodies.avatar(partner) else {
            let is_remote = self.bodies.find(entity).is_some();
            return Err(if is_remote { Refusal::Refused("too far away") } else { Refusal::NotFound });
        };
        if !own_side.within(partner_side, TRADE_DISTANCE) || partner_side.is_held() {
            return Err(Refusal::Refused("too far away"));
        }
        self.check_can_trade(partner).map_err(|_| Refusal::Refused("the other is busy"))?;
        let id = self.number();
        let trade = Trade::invite(id, requester.character, partner);
        for player in trade.participants() {
            if let Some((_, avatar)) = self.bodies.avatar_mut(player) {
                avatar.trade = Some(id);
            }
        }
        self.trades.insert(id, trade);
        self.notify_trade(id, Some(requester.character));
        Ok(Some(Reply::Invited { trade: id }))
    }

    fn check_can_trade(&self, player: CharacterId) -> Result<(), Refusal> {
        self.check_alive(player)?;
        match self.bodies.avatar(player) {
            Some((_, avatar)) if avatar.trade.is_none() => Ok(()),
            _ => Err(Refusal::Refused("already trading")),
        }
    }

    pub(crate) fn answer_trade(&mut self, requester: Requester, id: u64, accept: bool) -> Answer {
        if !accept {
            return self.cancel(requester, id);
        }
        self.trade_of(requester.character, id)?.accept(requester.character)?;
        self.trade_reply(requester, id)
    }

    pub(crate) fn offer(
        &mut self,
        requester: Requester,
        id: u64,
        mut items: Vec<ItemId>,
        coins: i64,
    ) -> Answer {
        items.sort_unstable();
        items.dedup();
        if items.len() > MAX_TRADE_ITEMS {
            return Err(Refusal::Refused("too many items"));
        }
        let own = self.possessions(requester.character).ok_or(Refusal::NotFound)?;
        if coins < 0 || coins > own.coins {
            return Err(Refusal::Refused("not enough coins"));
        }
        if !items.iter().all(|item| own.items.iter().any(|own| own.id == *item)) {
            return Err(Refusal::NotFound);
        }
        if items.iter().any(|&item| self.commits.moves(item)) {
            return Err(Refusal::Refused("an item is on its way elsewhere"));
        }
        let cleared = self.trade_of(requester.character, id)?.offer(requester.character, items, coins)?;
        for requester in cleared {
            self.reply(requester, Err(Refusal::Refused("the offer has changed")));
        }
        self.trade_reply(requester, id)
    }

    pub(crate) fn confirm(
        &mut self,
        requester: Requester,
        action: ActionKey,
        id: u64,
        revision: u32,
    ) -> Answer {
        let trade = self.trade_of(requester.character, id)?;
        let confirmed = trade.confirm(requester, action, revision)?;
        if confirmed == ConfirmOutcome::Complete
            && let Some(sides) = trade.contributions()
        {
            self.commit(HardChange::Trade { sides }, Vec::new(), Some(id));
        }
        self.notify_trade(id, None);
        Ok(None)
    }

    pub(crate) fn cancel(&mut self, requester: Requester, id: u64) -> Answer {
        let trade = self.trade_of(requester.character, id)?;
        if trade.state == TradeState::Committing {
            return Err(Refusal::Refused("the trade is being committed"));
        }
        trade.state = TradeState::Cancelled;
        let view = self.trade_view(id, requester.character).ok_or(Refusal::NotFound)?;
        self.end_trade(id, TradeState::Cancelled, Refusal::Refused("the trade was cancelled"));
        Ok(Some(Reply::Trade(Box::new(view))))
    }

    fn trade_of(&mut self, player: CharacterId, id: u64) -> Result<&mut Trade, Refusal> {
        self.trades
            .get_mut(&id)
            .filter(|trade| trade.participants().contains(&player))
            .ok_or(Refusal::NotFound)
    }

    /// The partner gets an event, the requester gets a reply.
    fn trade_reply(&mut self, requester: Requester, id: u64) -> Answer {
        self.notify_trade(id, Some(requester.character));
        let view = self.trade_view(id, requester.character).ok_or(Refusal::NotFound)?;
        Ok(Some(Reply::Trade(Box::new(view))))
    }

    fn notify_trade(&mut self, id: u64, except: Option<CharacterId>) {
        let Some(trade) = self.trades.get(&id) else { return };
        for character in trade.participants().into_iter().filter(|&player| Some(player) != except) {
            if let Some(view) = self.trade_view(id, character) {
                self.events.push(Event::Trade { character, view: Box::new(view) });
            }
        }
    }

    /// The trade from the view of this character.
    pub fn trade_view(&self, id: u64, player: CharacterId) -> Option<TradeView> {
        let trade = self.trades.get(&id)?;
        let (own_side, partner_side) = trade.sides_for(player)?;
        let partner_name =
            self.bodies.avatar(partner_side.player).map_or(Arc::from(""), |(_, avatar)| avatar.name.clone());
        Some(TradeView {
            trade: id,
            partner: partner_side.player,
            partner_name,
            state: trade.state,
            own_side: self.side_view(own_side),
            partner_side: self.side_view(partner_side),
            revision: trade.revision,
        })
    }

    fn side_view(&self, side: &Side) -> TradeSideView {
        let own: &[Item] = self.possessions(side.player).map_or(&[], |own| &own.items);
        let items = own.iter().filter(|item| side.items.contains(&item.id)).copied().collect();
        TradeSideView { items, coins: side.coins, confirmed: side.confirmation.is_some() }
    }

    pub(crate) fn is_offered(&self, player: CharacterId, item: ItemId) -> bool {
        let sides = self.current_trade(player).and_then(|trade| trade.sides_for(player));
        sides.is_some_and(|(own_side, _)| own_side.items.contains(&item))
    }

    /// The trade in which the avatar takes part.
    pub(crate) fn current_trade(&self, player: CharacterId) -> Option<&Trade> {
        self.trades.get(&self.bodies.avatar(player)?.1.trade?)
    }

    /// Cancels the trade of an avatar that leaves, dies or freezes, unless it is being committed.
    pub(crate) fn cancel_trade_of(&mut self, player: CharacterId) {
        let Some(id) = self.bodies.avatar(player).and_then(|(_, avatar)| avatar.trade) else { return };
        if self.trades.get(&id).is_some_and(|trade| trade.state != TradeState::Committing) {
            self.end_trade(id, TradeState::Cancelled, Refusal::Refused("the trade was cancelled"));
        }
    }

    /// Cancels the trades of avatars that are too far apart.
    pub(crate) fn cancel_distant_trades(&mut self) {
        let distant = |trade: &&Trade| {
            let [a, b] = trade.participants().map(|player| self.bodies.avatar(player));
            let near = matches!((a, b), (Some((a, _)), Some((b, _))) if a.within(b, TRADE_DISTANCE));
            !near && trade.state != TradeState::Committing
        };
        let ids: Vec<u64> = self.trades.values().filter(distant).map(|trade| trade.id).collect();
        for id in ids {
            self.end_trade(id, TradeState::Cancelled, Refusal::Refused("too far away"));
        }
    }

    /// The database has committed the trade.
    pub(crate) fn finish_trade(&mut self, id: u64) {
        let Some(trade) = self.trades.get_mut(&id) else { return };
        trade.state = TradeState::Done;
        let confirmations: Vec<_> = trade.sides.iter().filter_map(|side| side.confirmation.clone()).collect();
        self.notify_trade(id, None);
        for confirmation in confirmations {
            for requester in confirmation.requesters {
                self.reply(requester, Ok(Reply::Committed { action: confirmation.action.id }));
            }
        }
        self.forget_trade(id);
    }

    pub(crate) fn end_trade(&mut self, id: u64, state: TradeState, why: Refusal) {
        let Some(trade) = self.trades.get_mut(&id) else { return };
        trade.state = state;
        let requesters = trade.take_requesters();
        self.notify_trade(id, None);
        for requester in requesters {
            self.reply(requester, Err(why));
        }
        self.forget_trade(id);
    }

    fn forget_trade(&mut self, id: u64) {
        let Some(trade) = self.trades.remove(&id) else { return };
        for player in trade.participants() {
            if let Some((_, avatar)) = self.bodies.avatar_mut(player) {
                avatar.trade = None;
            }
        }
    }
}
