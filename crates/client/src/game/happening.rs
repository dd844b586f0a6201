//! From a session's events to the picture, and to what a player wants to be told.

use std::{sync::Arc, time::Instant};

use parking_lot::Mutex;
use shardkeep_wire::{
    Kind, Message, WireError, opcode,
    payload::{Announcement, Heard, Inventory, Placed, QueuePlace, Trade, Vitals},
};
use tokio::sync::{mpsc, watch};

use super::{Shared, view::View};
use crate::{
    SessionEnd,
    session::{Event, Sink},
};

/// What happens to a player, beside what [`View`] shows.
#[derive(Debug, Clone, PartialEq)]
pub enum Happening {
    Heard(Heard),
    Announcement(String),
    InventoryChanged(Inventory),
    Vitals(Vitals),
    /// A trade was offered, changed, done or cancelled.
    Trade(Trade),
    Placed(Placed),
    Queue(QueuePlace),
    /// An event or state message of a studio's own backend.
    Custom(Message),
    Lost,
    Resumed {
        continued: bool,
    },
    Ended(SessionEnd),
}

/// Happenings that wait to be read. Bound: this many; overflow: the newest is dropped and counted.
const WAITING: usize = 256;

/// The reading end.
#[derive(Debug)]
pub struct Happenings {
    receiver: mpsc::Receiver<Happening>,
    dropped: watch::Receiver<u64>,
}

impl Happenings {
    /// The next one; `None` after the last. Cancel-safe.
    pub async fn next(&mut self) -> Option<Happening> {
        self.receiver.recv().await
    }

    /// One that is here already.
    pub fn try_next(&mut self) -> Option<Happening> {
        self.receiver.try_recv().ok()
    }

    /// Happenings lost because nobody read them in time.
    pub fn dropped(&self) -> u64 {
        *self.dropped.borrow()
    }
}

pub(super) type Parts = (Arc<Shared>, watch::Receiver<u64>, Happenings);

/// The sink that keeps the picture, and what reads from it.
pub(super) fn sink() -> (impl Sink, Parts) {
    let (version, changes) = watch::channel(0);
    let shared = Arc::new(Shared { view: Mutex::new(View::default()), version });
    let (sender, receiver) = mpsc::channel(WAITING);
    let (dropped_sender, dropped) = watch::channel(0);
    let painter = Painter { shared: shared.clone(), sender, dropped: dropped_sender };
    (painter, (shared, changes, Happenings { receiver, dropped }))
}

struct Painter {
    shared: Arc<Shared>,
    sender: mpsc::Sender<Happening>,
    dropped: watch::Sender<u64>,
}

impl Sink for Painter {
    fn take(&mut self, event: Event) {
        match event {
            Event::Message(message) => {
                if let Err(error) = self.take_message(message) {
                    tracing::debug!(%error, "a message was dropped");
                }
            }
            Event::Lost => self.tell(Happening::Lost),
            Event::Resumed { continued } => {
                if !continued {
                    self.shared.change(View::forget_cells);
                }
                self.tell(Happening::Resumed { continued });
            }
            Event::Ended(end) => self.tell(Happening::Ended(end)),
        }
    }
}

impl Painter {
    fn take_message(&self, message: Message) -> Result<(), WireError> {
        match (message.kind(), message.opcode) {
            (Kind::State, opcode::AVATAR) => self.paint(|view| view.take_avatar(&message.payload))?,
            (Kind::State, opcode::CELL) => self.paint(|view| view.take_cell(&message, Instant::now()))?,
            (Kind::Event, opcode::INVENTORY_CHANGED) => {
                let inventory: Inventory = message.decode()?;
                self.shared.change(|view| view.inventory = Some(inventory.clone()));
                self.tell(Happening::InventoryChanged(inventory));
            }
            (Kind::Event, opcode::VITALS) => {
                let vitals: Vitals = message.decode()?;
                self.shared.change(|view| view.vitals = Some(vitals));
                self.tell(Happening::Vitals(vitals));
            }
            (Kind::Event, opcode::TRADE_CHANGED) => {
                let trade: Trade = message.decode()?;
                self.shared.change(|view| view.take_trade(&trade));
                self.tell(Happening::Trade(trade));
            }
            (Kind::Event, opcode::PLACED) => {
                let placed: Placed = message.decode()?;
                self.shared.change(|view| view.placed = Some(placed.clone()));
                self.tell(Happening::Placed(placed));
            }
            (Kind::Event, opcode::QUEUE_PLACE) => {
                let place: QueuePlace = message.decode()?;
                self.shared.change(|view| view.queue = Some(place));
                self.tell(Happening::Queue(place));
            }
            (Kind::Event, opcode::HEARD) => self.tell(Happening::Heard(message.decode()?)),
            (Kind::Event, opcode::ANNOUNCEMENT) => {
                self.tell(Happening::Announcement(message.decode::<Announcement>()?.text));
            }
            _ => self.tell(Happening::Custom(message)),
        }
        Ok(())
    }

    fn paint<E>(&self, paint: impl FnOnce(&mut View) -> Result<(), E>) -> Result<(), E> {
        let mut painted = Ok(());
        self.shared.change(|view| painted = paint(view));
        painted
    }

    fn tell(&self, happening: Happening) {
        if self.sender.try_send(happening).is_err() {
            self.dropped.send_modify(|dropped| *dropped += 1);
        }
    }
}
