//! A handle to one bus, whichever transport it has.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;

use crate::{
    error::{OpenError, PublishError},
    redis::RedisBus,
    subscription::{Subscription, Topics},
};

/// A handle to one bus; clones share it. The bus closes when the last handle is dropped.
#[derive(Clone)]
pub struct Bus(Arc<Transport>);

enum Transport {
    Memory(Topics),
    Redis(RedisBus),
}

impl Bus {
    /// Opens `memory:`, `redis://[user:password@]host:port[/db]`, or `rediss://…` for TLS. `rediss://` trusts the
    /// system's authorities, or the one in the file that `?sslrootcert=<path>` names. The bus connects and reconnects in
    /// the background, so Redis may start later. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the URL is malformed or its `sslrootcert` cannot be read.
    pub fn open(url: &str) -> Result<Self, OpenError> {
        let transport = if url == "memory:" {
            Transport::Memory(Topics::default())
        } else {
            Transport::Redis(RedisBus::open(url)?)
        };
        Ok(Self(Arc::new(transport)))
    }

    /// Whether `url` leads to other processes.
    pub fn is_shared(url: &str) -> bool {
        url != "memory:"
    }

    /// Queues the message and returns at once. Publishers receive their own messages too, if they subscribe.
    ///
    /// # Errors
    /// When the queue is full; the message is lost and counted.
    pub fn publish(&self, topic: &str, payload: Bytes) -> Result<(), PublishError> {
        match &*self.0 {
            Transport::Memory(topics) => {
                topics.deliver(topic, payload);
                Ok(())
            }
            Transport::Redis(redis) => redis.publish(topic, payload, Instant::now()),
        }
    }

    /// Subscribes to a topic from now on, across reconnections.
    pub fn subscribe(&self, topic: &str) -> Subscription {
        match &*self.0 {
            Transport::Memory(topics) => topics.subscribe(topic),
            Transport::Redis(redis) => redis.subscribe(topic),
        }
    }

    /// Returns once the subscription to `topic` is confirmed: the subscriber receives what is published from then on.
    pub async fn subscribed(&self, topic: &str) {
        if let Transport::Redis(redis) = &*self.0 {
            redis.subscribed(topic).await;
        }
    }

    /// Whether messages reach other processes now. A bus in memory is always connected.
    pub fn connected(&self) -> bool {
        match &*self.0 {
            Transport::Memory(_) => true,
            Transport::Redis(redis) => redis.connected(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Delivery, SUBSCRIBER_QUEUE};

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
        assert!(error.contains("nats://user:***@host:4222") && error.contains("redis://"), "{error}");
        assert!(!error.contains("secret"));
    }

    #[test]
    fn missing_authority_file_is_named() {
        let error = Bus::open("rediss://host:6380?sslrootcert=/nowhere/ca.pem").err().unwrap().to_string();
        assert!(error.contains("/nowhere/ca.pem"), "{error}");
    }
}
