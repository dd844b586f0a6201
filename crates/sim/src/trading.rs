//! Trades between the avatars of one zone: who may trade with whom, and who is told what.

use std::sync::Arc;

use shardkeep_types::{CharacterId, EntityId, ItemId};

use crate::{
    Event, Sim,
    actions::Answer,
    event::{Refusal, Reply, TradeSideView, TradeState, TradeView},
    input::{Action, Ask, Item, Want},
    rules::{TRADE_DISTANCE, TRADE_ITEMS},
    trade::{Confirmed, Side, Trade},
};

impl Sim {
    pub(crate) fn invite(&mut self, ask: Ask, entity: EntityId) -> Answer {
        let partner = entity.as_character().filter(|&who| who != ask.character).ok_or(Refusal::NotFound)?;
        self.may_trade(ask.character)?;
        let (mine, _) = self.bodies.avatar(ask.character).ok_or(Refusal::NotFound)?;
        let Some((theirs, _)) = self.bodies.avatar(partner) else {
            let beyond = self.bodies.find(entity).is_some();
            return Err(if beyond { Refusal::Refused("too far away") } else { Refusal::NotFound });
        };
        if !mine.within(theirs, TRADE_DISTANCE) || theirs.frozen {
            return Err(Refusal::Refused("too far away"));
        }
        self.may_trade(partner).map_err(|_| Refusal::Refused("the other is busy"))?;
        let id = self.number();
        let trade = Trade::invite(id, ask.character, partner);
        for who in trade.both() {
            if let Some((_, avatar)) = self.bodies.avatar_mut(who) {
                avatar.trade = Some(id);
            }
        }
        self.trades.insert(id, trade);
        self.tell_trade(id, Some(ask.character));
        Ok(Some(Reply::Invited { trade: id }))
    }

    fn may_trade(&self, who: CharacterId) -> Result<(), Refusal> {
        self.must_be_able(who)?;
        match self.bodies.avatar(who) {
            Some((_, avatar)) if avatar.trade.is_none() => Ok(()),
            _ => Err(Refusal::Refused("already trading")),
        }
    }

    pub(crate) fn answer_trade(&mut self, ask: Ask, id: u64, accept: bool) -> Answer {
        if !accept {
            return self.cancel(ask, id);
        }
        self.part_of(ask.character, id)?.accept(ask.character)?;
        self.told_reply(ask, id)
    }

    pub(crate) fn offer(&mut self, ask: Ask, id: u64, mut items: Vec<ItemId>, coins: i64) -> Answer {
        items.sort_unstable();
        items.dedup();
        if items.len() > TRADE_ITEMS {
            return Err(Refusal::Refused("too many items"));
        }
        let own = self.possessions(ask.character).ok_or(Refusal::NotFound)?;
        if coins < 0 || coins > own.coins {
            return Err(Refusal::Refused("not enough coins"));
        }
        if !items.iter().all(|item| own.items.iter().any(|own| own.id == *item)) {
            return Err(Refusal::NotFound);
        }
        if items.iter().any(|&item| self.is_moving(item)) {
            return Err(Refusal::Refused("an item is on its way elsewhere"));
        }
        let unsettled = self.part_of(ask.character, id)?.offer(ask.character, items, coins)?;
        for ask in unsettled {
            self.reply(ask, Err(Refusal::Refused("the offer has changed")));
        }
        self.told_reply(ask, id)
    }

    pub(crate) fn confirm(&mut self, ask: Ask, action: Action, id: u64, revision: u32) -> Answer {
        let trade = self.part_of(ask.character, id)?;
        let confirmed = trade.confirm(ask, action, revision)?;
        if confirmed == Confirmed::Both
            && let Some(sides) = trade.gives()
        {
            self.commit(Want::Trade { sides }, Vec::new(), Some(id));
        }
        self.tell_trade(id, None);
        Ok(None)
    }

    pub(crate) fn cancel(&mut self, ask: Ask, id: u64) -> Answer {
        let trade = self.part_of(ask.character, id)?;
        if trade.state == TradeState::Committing {
            return Err(Refusal::Refused("the trade is being committed"));
        }
        trade.state = TradeState::Cancelled;
        let view = self.trade_view(id, ask.character).ok_or(Refusal::NotFound)?;
        self.end_trade(id, TradeState::Cancelled, Refusal::Refused("the trade was cancelled"));
        Ok(Some(Reply::Trade(Box::new(view))))
    }

    fn part_of(&mut self, who: CharacterId, id: u64) -> Result<&mut Trade, Refusal> {
        self.trades.get_mut(&id).filter(|trade| trade.both().contains(&who)).ok_or(Refusal::NotFound)
    }

    /// The other side hears of it by event, the one who asked by the reply.
    fn told_reply(&mut self, ask: Ask, id: u64) -> Answer {
        self.tell_trade(id, Some(ask.character));
        let view = self.trade_view(id, ask.character).ok_or(Refusal::NotFound)?;
        Ok(Some(Reply::Trade(Box::new(view))))
    }

    fn tell_trade(&mut self, id: u64, but: Option<CharacterId>) {
        let Some(trade) = self.trades.get(&id) else { return };
        for character in trade.both().into_iter().filter(|&who| Some(who) != but) {
            if let Some(view) = self.trade_view(id, character) {
                self.events.push(Event::Trade { character, view: Box::new(view) });
            }
        }
    }

    /// The trade as this character sees it.
    pub fn trade_view(&self, id: u64, who: CharacterId) -> Option<TradeView> {
        let trade = self.trades.get(&id)?;
        let (mine, theirs) = trade.seen_by(who)?;
        let partner_name =
            self.bodies.avatar(theirs.who).map_or(Arc::from(""), |(_, avatar)| avatar.name.clone());
        Some(TradeView {
            trade: id,
            partner: theirs.who,
            partner_name,
            state: trade.state,
            mine: self.side_view(mine),
            theirs: self.side_view(theirs),
            revision: trade.revision,
        })
    }

    fn side_view(&self, side: &Side) -> TradeSideView {
        let own: &[Item] = self.possessions(side.who).map_or(&[], |own| &own.items);
        let items = own.iter().filter(|item| side.items.contains(&item.id)).copied().collect();
        TradeSideView { items, coins: side.coins, confirmed: side.consent.is_some() }
    }

    pub(crate) fn is_offered(&self, who: CharacterId, item: ItemId) -> bool {
        let sides = self.trades.values().filter_map(|trade| trade.seen_by(who));
        sides.into_iter().any(|(mine, _)| mine.items.contains(&item))
    }

    /// Someone leaves, dies or freezes. A trade on its way to the database is no longer theirs to stop.
    pub(crate) fn cancel_trade_of(&mut self, who: CharacterId) {
        let Some(id) = self.bodies.avatar(who).and_then(|(_, avatar)| avatar.trade) else { return };
        if self.trades.get(&id).is_some_and(|trade| trade.state != TradeState::Committing) {
            self.end_trade(id, TradeState::Cancelled, Refusal::Refused("the trade was cancelled"));
        }
    }

    /// Those who went apart trade no longer.
    pub(crate) fn part_distant_traders(&mut self) {
        let distant = |trade: &&Trade| {
            let [a, b] = trade.both().map(|who| self.bodies.avatar(who));
            let near = matches!((a, b), (Some((a, _)), Some((b, _))) if a.within(b, TRADE_DISTANCE));
            !near && trade.state != TradeState::Committing
        };
        let ids: Vec<u64> = self.trades.values().filter(distant).map(|trade| trade.id).collect();
        for id in ids {
            self.end_trade(id, TradeState::Cancelled, Refusal::Refused("too far away"));
        }
    }

    /// The database has moved everything.
    pub(crate) fn finish_trade(&mut self, id: u64) {
        let Some(trade) = self.trades.get_mut(&id) else { return };
        trade.state = TradeState::Done;
        let consents: Vec<_> = trade.sides.iter().filter_map(|side| side.consent.clone()).collect();
        self.tell_trade(id, None);
        for consent in consents {
            for ask in consent.asks {
                self.reply(ask, Ok(Reply::Committed { action: consent.action.id }));
            }
        }
        self.forget_trade(id);
    }

    pub(crate) fn end_trade(&mut self, id: u64, state: TradeState, why: Refusal) {
        let Some(trade) = self.trades.get_mut(&id) else { return };
        trade.state = state;
        let asks = trade.take_asks();
        self.tell_trade(id, None);
        for ask in asks {
            self.reply(ask, Err(why));
        }
        self.forget_trade(id);
    }

    fn forget_trade(&mut self, id: u64) {
        let Some(trade) = self.trades.remove(&id) else { return };
        for who in trade.both() {
            if let Some((_, avatar)) = self.bodies.avatar_mut(who) {
                avatar.trade = None;
            }
        }
    }
}
