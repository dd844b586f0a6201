//! The fan-out inside a process: one ring per topic, and one position in it per subscriber.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::sync::broadcast::{self, error::RecvError};

use crate::metrics::LOST;

/// Messages that a subscriber may be behind before it loses the oldest.
pub const SUBSCRIBER_QUEUE: usize = 1024;

/// An event for a subscriber.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    Message(Bytes),
    /// The subscriber was too slow and lost this many messages.
    Lost(u64),
}

/// A subscriber's position in a topic.
pub struct Subscription(broadcast::Receiver<Bytes>);

impl Subscription {
    /// The next message, in order; `None` when the bus is closed. Cancel safe.
    pub async fn next(&mut self) -> Option<Delivery> {
        match self.0.recv().await {
            Ok(message) => Some(Delivery::Message(message)),
            Err(RecvError::Lagged(lost)) => {
                metrics::counter!(LOST).increment(lost);
                Some(Delivery::Lost(lost))
            }
            Err(RecvError::Closed) => None,
        }
    }
}

#[derive(Default)]
pub(crate) struct Topics(Mutex<HashMap<String, broadcast::Sender<Bytes>>>);

impl Topics {
    pub(crate) fn subscribe(&self, topic: &str) -> Subscription {
        let mut topics = self.lock();
        topics.retain(|name, sender| sender.receiver_count() > 0 || name == topic);
        // Bound: SUBSCRIBER_QUEUE messages per topic; overflow: the slow subscriber loses the oldest; counter LOST.
        let sender = topics.entry(topic.to_owned()).or_insert_with(|| broadcast::channel(SUBSCRIBER_QUEUE).0);
        Subscription(sender.subscribe())
    }

    pub(crate) fn deliver(&self, topic: &str, payload: Bytes) {
        if let Some(sender) = self.lock().get(topic) {
            // Fails only when the topic has no subscriber.
            let _ = sender.send(payload);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, broadcast::Sender<Bytes>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
