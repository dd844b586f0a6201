//! The bus over Redis: one connection that publishes, one that listens, each of which comes back by itself.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use redis::{
    AsyncConnectionConfig, Client, RedisResult,
    aio::{MultiplexedConnection, PubSubSink, PubSubStream},
};
use tokio::{
    sync::{mpsc, watch},
    time::{interval, sleep, timeout},
};
use tokio_stream::StreamExt;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    MAX_AGE, OUTGOING_QUEUE, PublishError, Subscription,
    metrics::{CONNECTED, DROPPED, PUBLISHED},
    subscription::Topics,
};

/// How long Redis may take to accept a connection or answer a command.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);
/// How often the listening connection proves that it is alive.
const PING_INTERVAL: Duration = Duration::from_secs(3);
/// Messages sent in one round trip.
const MAX_BATCH: usize = 64;

pub(crate) struct RedisBus {
    outgoing: mpsc::Sender<Outgoing>,
    topics: Arc<Topics>,
    requested: watch::Sender<BTreeSet<String>>,
    confirmed: watch::Receiver<BTreeSet<String>>,
    _stop: DropGuard,
}

struct Outgoing {
    topic: String,
    payload: Bytes,
    queued_at: Instant,
}

impl RedisBus {
    pub(crate) fn open(url: &str) -> RedisResult<Self> {
        let client = Client::open(url)?;
        let stop = CancellationToken::new();
        // Bound: OUTGOING_QUEUE; overflow: publish is refused; counter DROPPED{reason="full"}.
        let (outgoing, queue) = mpsc::channel(OUTGOING_QUEUE);
        let topics = Arc::new(Topics::default());
        let (requested, requested_receiver) = watch::channel(BTreeSet::new());
        let (confirmed_sender, confirmed) = watch::channel(BTreeSet::new());
        tokio::spawn(stop.clone().run_until_cancelled_owned(Writer { client: client.clone(), queue }.run()));
        let reader = Reader {
            client,
            topics: topics.clone(),
            requested: requested_receiver,
            confirmed: confirmed_sender,
        };
        tokio::spawn(stop.clone().run_until_cancelled_owned(reader.run()));
        Ok(Self { outgoing, topics, requested, confirmed, _stop: stop.drop_guard() })
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
        // Fails only when the reader is gone, and it lives as long as `self`.
        let _ = self.confirmed.clone().wait_for(|confirmed| confirmed.contains(topic)).await;
    }

    pub(crate) fn connected(&self) -> bool {
        !self.confirmed.borrow().is_empty()
    }
}

struct Writer {
    client: Client,
    queue: mpsc::Receiver<Outgoing>,
}

impl Writer {
    async fn run(mut self) {
        let mut backoff = Backoff::default();
        // Not yet confirmed by Redis; sent again after a reconnection.
        let mut batch = Vec::with_capacity(MAX_BATCH);
        loop {
            let config = AsyncConnectionConfig::new()
                .set_connection_timeout(Some(RESPONSE_TIMEOUT))
                .set_response_timeout(Some(RESPONSE_TIMEOUT));
            let error = match self.client.get_multiplexed_async_connection_with_config(&config).await {
                Ok(connection) => match self.send(connection, &mut batch, &mut backoff).await {
                    Ok(()) => return,
                    Err(error) => error,
                },
                Err(error) => error,
            };
            tracing::warn!(%error, "redis does not take messages");
            sleep(backoff.next()).await;
        }
    }

    /// Sends until the queue closes (`Ok`) or the connection breaks.
    async fn send(
        &mut self,
        mut connection: MultiplexedConnection,
        batch: &mut Vec<Outgoing>,
        backoff: &mut Backoff,
    ) -> RedisResult<()> {
        loop {
            if batch.is_empty() && self.queue.recv_many(batch, MAX_BATCH).await == 0 {
                return Ok(());
            }
            let waited = batch.len();
            batch.retain(|message| message.queued_at.elapsed() < MAX_AGE);
            metrics::counter!(DROPPED, "reason" => "old").increment((waited - batch.len()) as u64);
            if batch.is_empty() {
                continue;
            }
            let mut pipe = redis::pipe();
            for message in &*batch {
                pipe.publish(&message.topic, &message.payload[..]).ignore();
            }
            pipe.query_async::<()>(&mut connection).await?;
            metrics::counter!(PUBLISHED).increment(batch.len() as u64);
            batch.clear();
            backoff.reset();
        }
    }
}

struct Reader {
    client: Client,
    topics: Arc<Topics>,
    requested: watch::Receiver<BTreeSet<String>>,
    confirmed: watch::Sender<BTreeSet<String>>,
}

impl Reader {
    async fn run(mut self) {
        let mut backoff = Backoff::default();
        loop {
            let error = match timeout(RESPONSE_TIMEOUT, self.client.get_async_pubsub()).await {
                Ok(Ok(connection)) => {
                    let (sink, stream) = connection.split();
                    self.listen(sink, stream, &mut backoff).await
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer".to_owned(),
            };
            metrics::gauge!(CONNECTED).set(0.0);
            self.confirmed.send_if_modified(|confirmed| !std::mem::take(confirmed).is_empty());
            tracing::warn!(error, "redis is not heard");
            sleep(backoff.next()).await;
        }
    }

    /// Listens until the connection breaks; returns why.
    async fn listen(
        &mut self,
        mut sink: PubSubSink,
        mut stream: PubSubStream,
        backoff: &mut Backoff,
    ) -> String {
        let mut ping = interval(PING_INTERVAL);
        loop {
            if let Err(error) = self.subscribe_missing(&mut sink).await {
                return error;
            }
            backoff.reset();
            tokio::select! {
                message = stream.next() => match message {
                    Some(message) => {
                        let payload = Bytes::copy_from_slice(message.get_payload_bytes());
                        self.topics.deliver(message.get_channel_name(), payload);
                    }
                    None => return "connection closed".to_owned(),
                },
                changed = self.requested.changed() => if changed.is_err() {
                    return "bus closed".to_owned();
                },
                _ = ping.tick() => match timeout(RESPONSE_TIMEOUT, sink.ping::<redis::Value>()).await {
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => return error.to_string(),
                    Err(_) => return "no answer to ping".to_owned(),
                },
            }
        }
    }

    async fn subscribe_missing(&mut self, sink: &mut PubSubSink) -> Result<(), String> {
        let missing: Vec<String> = {
            let requested = self.requested.borrow_and_update();
            requested.difference(&self.confirmed.borrow()).cloned().collect()
        };
        if missing.is_empty() {
            return Ok(());
        }
        match timeout(RESPONSE_TIMEOUT, sink.subscribe(&missing)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => return Err("no answer to subscribe".to_owned()),
        }
        metrics::gauge!(CONNECTED).set(1.0);
        self.confirmed.send_modify(|confirmed| confirmed.extend(missing));
        Ok(())
    }
}

/// Waits that double from 100 ms to 3.2 s.
#[derive(Default)]
struct Backoff(u32);

impl Backoff {
    fn next(&mut self) -> Duration {
        let wait = Duration::from_millis(100 << self.0);
        self.0 = (self.0 + 1).min(5);
        wait
    }

    fn reset(&mut self) {
        self.0 = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reconnect_delays_grow_to_limit_and_reset() {
        let mut backoff = Backoff::default();
        let waits: Vec<u128> = (0..7).map(|_| backoff.next().as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 3200]);
        backoff.reset();
        assert_eq!(backoff.next().as_millis(), 100);
    }
}
