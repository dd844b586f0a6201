//! Publish/subscribe between replicas of a daemon: over the process's own memory on a laptop, over Redis in a
//! cluster. Nothing is kept for who is not listening, and nobody who listens slowly holds up the others.
//!
//! A message reaches each subscriber at least once while the bus is connected; around a reconnection it may
//! arrive twice, and what waited longer than [`MAX_AGE`] is dropped and counted. Messages of one publisher keep
//! their order.

mod metrics;
mod redis;
mod subscription;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

pub use crate::metrics::describe;
pub use crate::subscription::{Delivery, Subscription};
use crate::{redis::RedisBus, subscription::Topics};

/// Messages that a subscriber may be behind before it loses the oldest.
pub const SUBSCRIBER_QUEUE: usize = 1024;

/// Messages that may wait for Redis. Overflow: the newest is refused, [`PublishError::Full`].
pub const OUTGOING_QUEUE: usize = 1024;

/// How long a message may wait for Redis before it is no longer worth telling.
pub const MAX_AGE: Duration = Duration::from_secs(10);

/// The address of a bus is not one.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("unknown bus {0:?}: expected \"memory:\" or \"redis://host:port\"")]
    Scheme(String),
    #[error("bus address: {0}")]
    Address(#[source] ::redis::RedisError),
}

/// The message was not taken. Always ours to report, never the publisher's fault.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PublishError {
    #[error("{OUTGOING_QUEUE} messages wait for the bus already")]
    Full,
    #[error("the bus is closed")]
    Closed,
}

/// A handle to one bus; clones share it. It closes when the last handle is gone.
#[derive(Clone)]
pub struct Bus(Arc<Transport>);

enum Transport {
    Memory(Topics),
    Redis(RedisBus),
}

impl Bus {
    /// Opens `memory:` or `redis://[user:password@]host:port[/db]`. Redis need not be there yet: the bus connects
    /// and reconnects behind the scenes. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the address is neither.
    pub fn open(url: &str) -> Result<Self, OpenError> {
        let transport = if url == "memory:" {
            ::metrics::gauge!(metrics::CONNECTED).set(1.0);
            Transport::Memory(Topics::default())
        } else if url.starts_with("redis://") {
            Transport::Redis(RedisBus::open(url).map_err(OpenError::Address)?)
        } else {
            return Err(OpenError::Scheme(without_password(url)));
        };
        Ok(Self(Arc::new(transport)))
    }

    /// Whether `url` leads to other processes.
    pub fn is_shared(url: &str) -> bool {
        url != "memory:"
    }

    /// Takes the message and returns at once. Publishers hear their own messages too, if they subscribe.
    ///
    /// # Errors
    /// When too much waits already; the message is lost and counted.
    pub fn publish(&self, topic: &str, payload: Bytes) -> Result<(), PublishError> {
        match &*self.0 {
            Transport::Memory(topics) => {
                topics.deliver(topic, payload);
                Ok(())
            }
            Transport::Redis(redis) => redis.publish(topic, payload, Instant::now()),
        }
    }

    /// Listens to a topic from now on, across reconnections.
    pub fn subscribe(&self, topic: &str) -> Subscription {
        match &*self.0 {
            Transport::Memory(topics) => topics.subscribe(topic),
            Transport::Redis(redis) => redis.subscribe(topic),
        }
    }

    /// Returns once the other side has confirmed the subscription to `topic`: what anybody publishes from then on
    /// will be heard.
    pub async fn subscribed(&self, topic: &str) {
        if let Transport::Redis(redis) = &*self.0 {
            redis.subscribed(topic).await;
        }
    }

    /// Whether messages reach other processes at this moment; a bus in memory is always connected.
    pub fn connected(&self) -> bool {
        match &*self.0 {
            Transport::Memory(_) => true,
            Transport::Redis(redis) => redis.connected(),
        }
    }
}

/// The address for an error message: what stands before an `@` may be a password.
fn without_password(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://***@{host}"),
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn memory_bus_reaches_every_subscriber_of_the_topic() {
        let bus = Bus::open("memory:").unwrap();
        let (mut a, mut b, mut other) = (bus.subscribe("chat"), bus.subscribe("chat"), bus.subscribe("mail"));
        bus.subscribed("chat").await;
        bus.publish("chat", Bytes::from_static(b"hello")).unwrap();
        bus.publish("mail", Bytes::from_static(b"letter")).unwrap();
        assert_eq!(a.next().await, Some(Delivery::Message(Bytes::from_static(b"hello"))));
        assert_eq!(b.next().await, Some(Delivery::Message(Bytes::from_static(b"hello"))));
        assert_eq!(other.next().await, Some(Delivery::Message(Bytes::from_static(b"letter"))));
    }

    #[tokio::test]
    async fn slow_subscriber_loses_the_oldest_and_gets_the_count() {
        let bus = Bus::open("memory:").unwrap();
        let mut slow = bus.subscribe("chat");
        for number in 0..SUBSCRIBER_QUEUE + 3 {
            bus.publish("chat", Bytes::from(number.to_string())).unwrap();
        }
        assert_eq!(slow.next().await, Some(Delivery::Lost(3)));
        assert_eq!(slow.next().await, Some(Delivery::Message(Bytes::from_static(b"3"))));
    }

    #[test]
    fn open_error_hides_the_password() {
        let error = Bus::open("nats://user:secret@host:4222").err().unwrap().to_string();
        assert!(error.contains("nats://***@host:4222") && error.contains("redis://"), "{error}");
        assert!(!error.contains("secret"));
    }
}
