//! The player's actions and chat. An action that moves property carries a unique id, so that it happens once however often
//! it is sent.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use shardkeep_types::EntityId;
use shardkeep_wire::{
    opcode,
    payload::{Attack, AttackResult, Channel, Committed, Drop, Inventory, PickUp, Speak, Spoken},
};
use tokio::time::{Instant, sleep};

use super::{Player, inventory_pages::InventoryPages};
use crate::{ClientError, random};

/// How long an action is repeated before it is given up, its outcome unknown.
const ACTION_TIMEOUT: Duration = Duration::from_secs(60);
/// How long one attempt waits for its reply.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after a refusal that names none.
const MIN_RETRY_PAUSE: Duration = Duration::from_millis(200);

impl Player {
    /// Heard in the 3 × 3 cells around.
    pub async fn say(&self, text: &str) -> Result<(), ClientError> {
        self.speak(Channel::Say, text, "").await
    }

    /// Heard by one character.
    pub async fn whisper(&self, to: &str, text: &str) -> Result<(), ClientError> {
        self.speak(Channel::Whisper, text, to).await
    }

    pub async fn speak(&self, channel: Channel, text: &str, to: &str) -> Result<(), ClientError> {
        let request = Speak { channel: channel as i32, text: text.to_owned(), to: to.to_owned() };
        let _: Spoken = self.session.call(opcode::SPEAK, &request, None).await?;
        Ok(())
    }

    /// Takes an item from the ground within reach.
    pub async fn pick_up(&self, item: EntityId) -> Result<Inventory, ClientError> {
        let action_id = self.next_action();
        self.send_action(opcode::PICK_UP, &PickUp { action_id, entity_id: item.0 }, ATTEMPT_TIMEOUT).await
    }

    /// Puts an item on the ground.
    pub async fn drop_item(&self, item_id: u64) -> Result<Inventory, ClientError> {
        let action_id = self.next_action();
        self.send_action(opcode::DROP, &Drop { action_id, item_id }, ATTEMPT_TIMEOUT).await
    }

    /// Strikes a creature within reach.
    pub async fn attack(&self, target: EntityId) -> Result<AttackResult, ClientError> {
        self.session.call(opcode::ATTACK, &Attack { target: target.0 }, None).await
    }

    /// An action id that was never used by this character.
    pub fn next_action(&self) -> u64 {
        self.action.fetch_add(1, Relaxed) + 1
    }

    /// Sends an action until it is answered, always with the same id.
    pub(super) async fn send_action(
        &self,
        opcode: u16,
        action: &impl prost::Message,
        attempt: Duration,
    ) -> Result<Inventory, ClientError> {
        let committed: Committed =
            self.retry(|| self.session.call(opcode, action, attempt), ACTION_TIMEOUT).await?;
        // The reply carries the first page, which is the whole inventory of most characters.
        match InventoryPages::default().push(committed.inventory.unwrap_or_default()) {
            Some(inventory) => {
                self.store_inventory(&inventory);
                Ok(inventory)
            }
            None => self.inventory().await,
        }
    }

    /// Repeats what may be repeated while the answer is "not now", or none comes.
    pub(super) async fn retry<R, F>(
        &self,
        mut attempt: impl FnMut() -> F,
        within: Duration,
    ) -> Result<R, ClientError>
    where
        F: Future<Output = Result<R, ClientError>>,
    {
        let end = Instant::now() + within;
        loop {
            let error = match attempt().await {
                Err(error) if Instant::now() < end => error,
                done => return done,
            };
            let pause = match &error {
                ClientError::Refused(refusal) if refusal.is_temporary() => {
                    refusal.retry_after.max(MIN_RETRY_PAUSE)
                }
                ClientError::Timeout(_) => Duration::ZERO,
                _ => return Err(error),
            };
            sleep(random::jitter(pause)).await;
        }
    }
}
