//! Turns a session's messages into changes of the view and events of the player.

use std::{sync::Arc, time::Instant};

use shardkeep_wire::{
    Kind, Message, WireError, opcode,
    payload::{Announcement, ChatMessage, Inventory, Placed, QueuePosition, Trade, Vitals},
};
use tokio::sync::{mpsc, watch};

use super::{inventory_pages::InventoryPages, shared::Shared, view::View};
use crate::{
    SessionEnd,
    session::{Event, Sink},
};

/// The events of a player that [`View`] does not show.
#[derive(Debug, Clone, PartialEq)]
pub enum GameEvent {
    ChatMessage(ChatMessage),
    Announcement(String),
    InventoryChanged(Inventory),
    Vitals(Vitals),
    /// A trade was offered, changed, done or cancelled.
    Trade(Trade),
    Placed(Placed),
    Queue(QueuePosition),
    /// An event or state message of a studio's own backend.
    Custom(Message),
    Lost,
    Resumed {
        continued: bool,
    },
    Ended(SessionEnd),
}

/// Bound of the events that wait to be read. At the bound the newest is dropped and counted.
const EVENT_QUEUE: usize = 256;

/// The reading end.
#[derive(Debug)]
pub struct GameEvents {
    receiver: mpsc::Receiver<GameEvent>,
    dropped: watch::Receiver<u64>,
}

impl GameEvents {
    /// The next one; `None` after the last. Cancel-safe.
    pub async fn next(&mut self) -> Option<GameEvent> {
        self.receiver.recv().await
    }

    /// One that is here already.
    pub fn try_next(&mut self) -> Option<GameEvent> {
        self.receiver.try_recv().ok()
    }

    /// Events lost because the queue was full.
    pub fn dropped(&self) -> u64 {
        *self.dropped.borrow()
    }
}

pub(super) type Parts = (Arc<Shared>, watch::Receiver<u64>, GameEvents);

/// The sink that keeps the picture, and what reads from it.
pub(super) fn sink() -> (impl Sink, Parts) {
    let (version, changes) = watch::channel(0);
    let shared = Arc::new(Shared::new(version));
    let (sender, receiver) = mpsc::channel(EVENT_QUEUE);
    let (dropped_sender, dropped) = watch::channel(0);
    let updater = ViewUpdater {
        shared: shared.clone(),
        sender,
        dropped: dropped_sender,
        inventory_pages: InventoryPages::default(),
    };
    (updater, (shared, changes, GameEvents { receiver, dropped }))
}

struct ViewUpdater {
    shared: Arc<Shared>,
    sender: mpsc::Sender<GameEvent>,
    dropped: watch::Sender<u64>,
    inventory_pages: InventoryPages,
}

impl Sink for ViewUpdater {
    fn on_event(&mut self, event: Event) {
        match event {
            Event::Message(message) => {
                if let Err(error) = self.handle_message(message) {
                    tracing::debug!(%error, "a message was dropped");
                }
            }
            Event::Lost => self.emit(GameEvent::Lost),
            Event::Resumed { continued } => {
                if !continued {
                    self.shared.change(View::clear_cells);
                }
                self.emit(GameEvent::Resumed { continued });
            }
            Event::Ended(end) => self.emit(GameEvent::Ended(end)),
        }
    }
}

impl ViewUpdater {
    fn handle_message(&mut self, message: Message) -> Result<(), WireError> {
        match (message.kind(), message.opcode) {
            (Kind::State, opcode::AVATAR) => self.update_view(|view| view.apply_avatar(&message.payload))?,
            (Kind::State, opcode::CELL) => {
                self.update_view(|view| view.apply_cell(&message, Instant::now()))?;
            }
            (Kind::Event, opcode::INVENTORY_CHANGED) => {
                if let Some(inventory) = self.inventory_pages.push(message.decode()?) {
                    self.shared.change(|view| view.inventory = Some(inventory.clone()));
                    self.emit(GameEvent::InventoryChanged(inventory));
                }
            }
            (Kind::Event, opcode::VITALS) => {
                let vitals: Vitals = message.decode()?;
                self.shared.change(|view| view.vitals = Some(vitals));
                self.emit(GameEvent::Vitals(vitals));
            }
            (Kind::Event, opcode::TRADE_CHANGED) => {
                let trade: Trade = message.decode()?;
                self.shared.change(|view| view.apply_trade(&trade));
                self.emit(GameEvent::Trade(trade));
            }
            (Kind::Event, opcode::PLACED) => {
                let placed: Placed = message.decode()?;
                self.shared.change(|view| view.place(placed.clone()));
                self.emit(GameEvent::Placed(placed));
            }
            (Kind::Event, opcode::QUEUE_POSITION) => {
                let place: QueuePosition = message.decode()?;
                self.shared.change(|view| view.queue = Some(place));
                self.emit(GameEvent::Queue(place));
            }
            (Kind::Event, opcode::CHAT_MESSAGE) => self.emit(GameEvent::ChatMessage(message.decode()?)),
            (Kind::Event, opcode::ANNOUNCEMENT) => {
                self.emit(GameEvent::Announcement(message.decode::<Announcement>()?.text));
            }
            _ => self.emit(GameEvent::Custom(message)),
        }
        Ok(())
    }

    fn update_view<E>(&self, update_view: impl FnOnce(&mut View) -> Result<(), E>) -> Result<(), E> {
        let mut result = Ok(());
        self.shared.change(|view| result = update_view(view));
        result
    }

    fn emit(&self, game_event: GameEvent) {
        if self.sender.try_send(game_event).is_err() {
            self.dropped.send_modify(|dropped| *dropped += 1);
        }
    }
}
