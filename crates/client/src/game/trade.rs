//! Trading: both offer, both confirm the same revision, and one transaction moves everything or nothing.

use std::time::Duration;

use shardkeep_types::EntityId;
use shardkeep_wire::{
    opcode,
    payload::{
        Inventory, Trade, TradeAnswer, TradeCancel, TradeConfirm, TradeInvite, TradeInvited, TradeOffer,
    },
};

use super::Player;
use crate::ClientError;

/// A confirmation is answered only once the other side has confirmed too.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(30);

impl Player {
    /// Asks a neighbour to trade; returns the trade's id.
    pub async fn invite(&self, neighbour: EntityId) -> Result<u64, ClientError> {
        let request = TradeInvite { entity_id: neighbour.0 };
        let invited: TradeInvited = self.session.call(opcode::TRADE_INVITE, &request, None).await?;
        Ok(invited.trade_id)
    }

    /// Accepts or declines an invitation.
    pub async fn answer(&self, trade_id: u64, accept: bool) -> Result<Trade, ClientError> {
        self.change(opcode::TRADE_ANSWER, &TradeAnswer { trade_id, accept }).await
    }

    /// Replaces this side's offer.
    pub async fn offer(&self, trade_id: u64, item_ids: Vec<u64>, coins: i64) -> Result<Trade, ClientError> {
        self.change(opcode::TRADE_OFFER, &TradeOffer { trade_id, item_ids, coins }).await
    }

    /// Agrees to this revision; returns when the trade is done.
    pub async fn confirm(&self, trade_id: u64, revision: u32) -> Result<Inventory, ClientError> {
        let action_id = self.next_action();
        let request = TradeConfirm { action_id, trade_id, revision };
        self.send_action(opcode::TRADE_CONFIRM, &request, CONFIRM_TIMEOUT).await
    }

    pub async fn cancel(&self, trade_id: u64) -> Result<Trade, ClientError> {
        self.change(opcode::TRADE_CANCEL, &TradeCancel { trade_id }).await
    }

    async fn change(&self, opcode: u16, request: &impl prost::Message) -> Result<Trade, ClientError> {
        let trade: Trade = self.session.call(opcode, request, None).await?;
        self.shared.change(|view| view.apply_trade(&trade));
        Ok(trade)
    }
}
