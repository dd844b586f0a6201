//! The one trade that the screen shows: what is offered, and at which revision.

use shardkeep_client::wire::payload::{Trade, TradeState};

#[derive(Debug, Default)]
pub struct Barter(Option<Trade>);

/// My side, as it should become.
pub struct Offer {
    pub trade: u64,
    pub items: Vec<u64>,
    pub coins: i64,
}

impl Barter {
    pub fn take(&mut self, trade: Trade) {
        let over = matches!(trade.state(), TradeState::TradeDone | TradeState::TradeCancelled);
        let other = self.0.as_ref().is_some_and(|shown| shown.trade_id != trade.trade_id);
        if over {
            if !other {
                self.0 = None;
            }
        } else {
            self.0 = Some(trade);
        }
    }

    pub fn shown(&self) -> Option<&Trade> {
        self.0.as_ref()
    }

    pub fn is_open(&self) -> bool {
        self.0.as_ref().is_some_and(|trade| trade.state() == TradeState::TradeOpen)
    }

    pub fn is_invited(&self) -> bool {
        self.0.as_ref().is_some_and(|trade| trade.state() == TradeState::TradeInvited)
    }

    pub fn trade(&self) -> u64 {
        self.0.as_ref().map_or(0, |trade| trade.trade_id)
    }

    pub fn revision(&self) -> u32 {
        self.0.as_ref().map_or(0, |trade| trade.revision)
    }

    /// Offers the item, or takes it back.
    pub fn toggle(&mut self, id: u64) {
        let Some(mine) = self.0.as_mut().map(|trade| trade.mine.get_or_insert_default()) else { return };
        let before = mine.items.len();
        mine.items.retain(|item| item.id != id);
        if mine.items.len() == before {
            mine.items.push(shardkeep_client::wire::payload::Item { id, ..Default::default() });
        }
    }

    pub fn add_coins(&mut self, more: i64) {
        let Some(mine) = self.0.as_mut().map(|trade| trade.mine.get_or_insert_default()) else { return };
        mine.coins = (mine.coins + more).max(0);
    }

    pub fn offer(&self) -> Offer {
        let mine = self.0.as_ref().and_then(|trade| trade.mine.as_ref());
        Offer {
            trade: self.trade(),
            items: mine.map(|side| side.items.iter().map(|item| item.id).collect()).unwrap_or_default(),
            coins: mine.map_or(0, |side| side.coins),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> Trade {
        Trade { trade_id: 7, state: TradeState::TradeOpen as i32, revision: 3, ..Default::default() }
    }

    #[test]
    fn items_go_in_and_out() {
        let mut barter = Barter::default();
        barter.take(open());
        barter.toggle(5);
        barter.toggle(6);
        barter.toggle(5);
        barter.add_coins(-4);
        let offer = barter.offer();
        assert_eq!((offer.trade, offer.items, offer.coins), (7, vec![6], 0));
    }

    #[test]
    fn the_end_of_another_trade_changes_nothing() {
        let mut barter = Barter::default();
        barter.take(open());
        barter.take(Trade { trade_id: 8, state: TradeState::TradeCancelled as i32, ..Default::default() });
        assert!(barter.is_open());
    }
}
