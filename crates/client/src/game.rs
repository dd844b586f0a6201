//! The game of one player: requests as methods, and a current view of the world. The session's task keeps the view, so a
//! player needs one task and no copies.

mod actions;
mod entity;
mod game_event;
mod inventory_pages;
mod shared;
mod trade;
mod view;
mod walk;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use shardkeep_wire::{
    opcode,
    payload::{
        CharacterCreated, CharacterList, CharacterSummary, CreateCharacter, Enter, Entered, GetInventory,
        Inventory, Leave, Left, ListCharacters,
    },
};
use tokio::{sync::watch, time::timeout};

use self::inventory_pages::InventoryPages;
use crate::{ClientError, Config, SessionEnd, login::GatewayTicket, session::Session};

pub use entity::{CellView, Entity};
pub use game_event::{GameEvent, GameEvents};
pub use view::View;
pub use walk::MAX_SPEED;

use shared::Shared;

/// Longest wait in the queue of a full world, and interval of repeated requests. A repeated request keeps the place, and
/// registers it at a world that has restarted.
const MAX_QUEUE_WAIT: Duration = Duration::from_secs(3_600);
const ENTER_RETRY_AFTER: Duration = Duration::from_secs(10);
/// How long a request is repeated while its answer is "not now" or does not come.
const MAX_ANSWER_WAIT: Duration = Duration::from_secs(60);

/// One player in a session. Methods take `&self` and may run side by side.
#[derive(Debug)]
pub struct Player {
    session: Session,
    shared: Arc<Shared>,
    changes: watch::Receiver<u64>,
    /// The sequence number of the last `Move`.
    sequence: AtomicU32,
    /// The character played last, and the last action id it used.
    character: AtomicU64,
    action: AtomicU64,
}

impl Player {
    /// Attaches, and begins to keep the view. The second value gives the player's events in order.
    pub async fn attach(
        config: &Config,
        gateway_ticket: GatewayTicket,
    ) -> Result<(Self, GameEvents), ClientError> {
        let (sink, parts) = game_event::sink();
        let session = Session::attach(config, gateway_ticket, sink).await?;
        Ok(Self::with(session, parts))
    }

    fn with(session: Session, (shared, changes, game_events): game_event::Parts) -> (Self, GameEvents) {
        let (sequence, character, action) = (AtomicU32::new(0), AtomicU64::new(0), AtomicU64::new(0));
        (Self { session, shared, changes, sequence, character, action }, game_events)
    }

    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Reads the view. The session's task waits while the closure runs, so the closure must be short.
    pub fn with_view<R>(&self, with_view: impl FnOnce(&View) -> R) -> R {
        self.shared.look(with_view)
    }

    /// Counts the changes of the view, for callers that wait for one.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }

    /// Waits until `see` returns a value. It reads the view now and after each change.
    pub async fn wait_until<R>(
        &self,
        within: Duration,
        mut see: impl FnMut(&View) -> Option<R>,
    ) -> Result<R, ClientError> {
        let mut changes = self.changes.clone();
        let watching = async {
            loop {
                changes.borrow_and_update();
                if let Some(seen) = self.with_view(&mut see) {
                    return Ok(seen);
                }
                if changes.changed().await.is_err() {
                    return Err(ClientError::Ended(self.session.ended().await));
                }
            }
        };
        timeout(within, watching).await.map_err(|_| ClientError::Timeout("what was watched for"))?
    }

    pub async fn list_characters(&self) -> Result<CharacterList, ClientError> {
        self.retry(|| self.session.call(opcode::LIST_CHARACTERS, &ListCharacters {}, None), MAX_ANSWER_WAIT)
            .await
    }

    pub async fn create_character(&self, name: &str) -> Result<CharacterSummary, ClientError> {
        let request = CreateCharacter { name: name.to_owned() };
        let created: CharacterCreated = self.session.call(opcode::CREATE_CHARACTER, &request, None).await?;
        Ok(created.character.unwrap_or_default())
    }

    /// Enters the world, however long the queue; returns when the avatar stands in its zone and the inventory is
    /// known. While it waits, [`View::queue`] tells the place.
    pub async fn enter(&self, character_id: u64) -> Result<Entered, ClientError> {
        let request = Enter { character_id };
        let entered: Entered = self
            .retry(|| self.session.call(opcode::ENTER, &request, ENTER_RETRY_AFTER), MAX_QUEUE_WAIT)
            .await?;
        // Action ids belong to a character. If the same character enters again, the count goes on, because an id is
        // never used twice, even if its action failed.
        if self.character.swap(character_id, Relaxed) != character_id {
            self.action.store(0, Relaxed);
        }
        self.shared.change(|view| view.enter(entered.clone()));
        self.inventory().await?;
        Ok(entered)
    }

    /// Leaves the world. The session goes back to the character list.
    pub async fn leave(&self) -> Result<(), ClientError> {
        let _: Left =
            self.retry(|| self.session.call(opcode::LEAVE, &Leave {}, None), MAX_ANSWER_WAIT).await?;
        self.shared.change(View::leave);
        Ok(())
    }

    /// Asks for the inventory, page by page. It also arrives by itself after every change.
    pub async fn inventory(&self) -> Result<Inventory, ClientError> {
        let mut pages = InventoryPages::default();
        loop {
            let request = GetInventory { first: pages.next_first() };
            let page: Inventory = self
                .retry(|| self.session.call(opcode::GET_INVENTORY, &request, None), MAX_ANSWER_WAIT)
                .await?;
            if let Some(inventory) = pages.push(page) {
                self.store_inventory(&inventory);
                return Ok(inventory);
            }
        }
    }

    /// Ends the session at the server.
    pub async fn logout(&self) -> SessionEnd {
        self.session.logout().await
    }

    fn store_inventory(&self, inventory: &Inventory) {
        self.action.fetch_max(inventory.last_action, Relaxed);
        self.shared.change(|view| view.inventory = Some(inventory.clone()));
    }
}
