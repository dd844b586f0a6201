//! Receives a session's events. A sink is called in the session's own task, so a sink can keep a picture of the world
//! up to date without another task. The sink of [`events`] is a bounded queue.

use shardkeep_wire::{Kind, Message};
use tokio::sync::mpsc;

use crate::SessionEnd;

/// The events of a session, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// An event or state message of the server's.
    Message(Message),
    /// The connection is lost; the session is trying to resume.
    Lost,
    /// The session continues on a new connection. If `continued` is false, cells are unknown until their keyframes arrive.
    Resumed { continued: bool },
    /// The last event.
    Ended(SessionEnd),
}

/// Takes events. Must not block.
pub trait Sink: Send + 'static {
    fn on_event(&mut self, event: Event);
}

impl<F: FnMut(Event) + Send + 'static> Sink for F {
    fn on_event(&mut self, event: Event) {
        self(event);
    }
}

/// A queue of events. Bound: `capacity`; overflow: state messages leave the last quarter free and are dropped first,
/// anything is dropped when the queue is full, and both are counted.
pub fn events(capacity: usize) -> (impl Sink, Events) {
    let (sender, receiver) = mpsc::channel(capacity.max(4));
    let (dropped_sender, dropped) = tokio::sync::watch::channel(0);
    let sink = move |event: Event| {
        let state = matches!(&event, Event::Message(message) if message.kind() == Kind::State);
        let reserve = if state { sender.max_capacity() / 4 } else { 0 };
        if sender.capacity() <= reserve || sender.try_send(event).is_err() {
            dropped_sender.send_modify(|dropped| *dropped += 1);
        }
    };
    (sink, Events { receiver, dropped })
}

/// The reading end of [`events`].
#[derive(Debug)]
pub struct Events {
    receiver: mpsc::Receiver<Event>,
    dropped: tokio::sync::watch::Receiver<u64>,
}

impl Events {
    /// The next event; `None` after the last.
    pub async fn next(&mut self) -> Option<Event> {
        self.receiver.recv().await
    }

    /// An event that is here already.
    pub fn try_next(&mut self) -> Option<Event> {
        self.receiver.try_recv().ok()
    }

    /// Events lost because the queue was full.
    pub fn dropped(&self) -> u64 {
        *self.dropped.borrow()
    }
}
