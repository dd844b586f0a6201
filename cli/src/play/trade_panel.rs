//! The trade that the screen shows: both offers, and their revision.

use shardkeep_client::wire::payload::{Item, Trade, TradeState};

#[derive(Debug, Default)]
pub struct TradePanel(Option<Trade>);

/// The player's own side after a change.
pub struct Offer {
    pub trade: u64,
    pub items: Vec<u64>,
    pub coins: i64,
}

impl TradePanel {
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
    pub fn toggle(&mut self, item: Item) {
        let Some(own_side) = self.0.as_mut().map(|trade| trade.own_side.get_or_insert_default()) else {
            return;
        };
        let before = own_side.items.len();
        own_side.items.retain(|offered| offered.id != item.id);
        if own_side.items.len() == before {
            own_side.items.push(item);
        }
    }

    pub fn add_coins(&mut self, more: i64) {
        let Some(own_side) = self.0.as_mut().map(|trade| trade.own_side.get_or_insert_default()) else {
            return;
        };
        own_side.coins = (own_side.coins + more).max(0);
    }

    pub fn offer(&self) -> Offer {
        let own_side = self.0.as_ref().and_then(|trade| trade.own_side.as_ref());
        Offer {
            trade: self.trade(),
            items: own_side.map(|side| side.items.iter().map(|item| item.id).collect()).unwrap_or_default(),
            coins: own_side.map_or(0, |side| side.coins),
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
    fn toggle_adds_and_removes_items() {
        let mut trade_panel = TradePanel::default();
        trade_panel.take(open());
        for (id, template) in [(5, 1), (6, 4), (5, 1)] {
            trade_panel.toggle(Item { id, template, count: 1 });
        }
        trade_panel.add_coins(-4);
        let offer = trade_panel.offer();
        assert_eq!((offer.trade, offer.items, offer.coins), (7, vec![6], 0));
        let shown = &trade_panel.shown().unwrap().own_side.as_ref().unwrap().items;
        assert_eq!(shown[0].template, 4, "the screen names offered items by their template");
    }

    #[test]
    fn end_of_another_trade_is_ignored() {
        let mut trade_panel = TradePanel::default();
        trade_panel.take(open());
        trade_panel.take(Trade {
            trade_id: 8,
            state: TradeState::TradeCancelled as i32,
            ..Default::default()
        });
        assert!(trade_panel.is_open());
    }
}
