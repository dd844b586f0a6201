//! The two connections to Redis as one transport.

use std::{
    collections::BTreeSet,
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    address::client,
    reader::{Reader, Subscribed},
    writer::{OUTGOING_QUEUE, Outgoing, Writer},
};
use crate::{
    error::{OpenError, PublishError},
    metrics::DROPPED,
    subscription::{Subscription, Topics},
};

/// One connection publishes and one subscribes; each reconnects by itself.
pub(crate) struct RedisBus {
    outgoing: mpsc::Sender<Outgoing>,
    topics: Arc<Topics>,
    requested: watch::Sender<BTreeSet<String>>,
    subscribed: watch::Receiver<Subscribed>,
    _stop: DropGuard,
}

impl RedisBus {
    pub(crate) fn open(url: &str) -> Result<Self, OpenError> {
        let client = client(url)?;
        let stop = CancellationToken::new();
        // Bound: OUTGOING_QUEUE; overflow: publish is refused; counter DROPPED{reason="full"}.
        let (outgoing, queue) = mpsc::channel(OUTGOING_QUEUE);
        let topics = Arc::new(Topics::default());
        let (requested, requested_receiver) = watch::channel(BTreeSet::new());
        let (subscribed_sender, subscribed) = watch::channel(Subscribed::default());
        // Each bus hears only its own heartbeats. `RandomState` is seeded at random in each process.
        let heartbeat_topic = format!("shardkeep:heartbeat:{:016x}", RandomState::new().hash_one(0));
        let writer = Writer::new(client.clone(), queue, heartbeat_topic.clone());
        let reader = Reader {
            client,
            topics: topics.clone(),
            requested: requested_receiver,
            subscribed: subscribed_sender,
            heartbeat_topic,
        };
        tokio::spawn(stop.clone().run_until_cancelled_owned(writer.run()));
        tokio::spawn(stop.clone().run_until_cancelled_owned(reader.run()));
        Ok(Self { outgoing, topics, requested, subscribed, _stop: stop.drop_guard() })
    }

    pub(crate) fn publish(&self, topic: &str, payload: Bytes, now: Instant) -> Result<(), PublishError> {
        let message = Outgoing { topic: topic.to_owned(), payload, queued_at: now };
        self.outgoing.try_send(message).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                metrics::counter!(DROPPED, "reason" => "full").increment(1);
                PublishError::Full
            }
            mpsc::error::TrySendError::Closed(_) => PublishError::Closed,
        })
    }

    pub(crate) fn subscribe(&self, topic: &str) -> Subscription {
        let subscription = self.topics.subscribe(topic);
        self.requested.send_if_modified(|topics| topics.insert(topic.to_owned()));
        subscription
    }

    pub(crate) async fn subscribed(&self, topic: &str) {
        // The reader holds the sender and lives as long as `self`, so this never fails.
        let _ = self.subscribed.clone().wait_for(|subscribed| subscribed.includes(topic)).await;
    }

    pub(crate) fn connected(&self) -> bool {
        self.subscribed.borrow().is_connected()
    }
}
