//! The connection that subscribes.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use redis::{
    Client,
    aio::{PubSubSink, PubSubStream},
};
use tokio::{
    sync::watch,
    time::{Instant, interval, sleep, sleep_until, timeout},
};
use tokio_stream::StreamExt as _;

use super::{address::RESPONSE_TIMEOUT, backoff::Backoff};
use crate::{
    metrics::{CONNECTED, GAPS},
    subscription::Topics,
};

/// How often the connection proves that it is alive.
const PING_INTERVAL: Duration = Duration::from_secs(3);
/// After this time without a heartbeat of the writer, the connection leads to a server that does not receive what the
/// primary publishes. A few heartbeats may come late.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(4);

/// The present state of the subscription.
#[derive(Debug, Clone, Default)]
pub(super) struct Subscribed {
    /// Topics that the server has confirmed.
    topics: BTreeSet<String>,
    /// Whether a heartbeat has arrived over this connection.
    heartbeat: bool,
}

impl Subscribed {
    pub(super) fn includes(&self, topic: &str) -> bool {
        self.heartbeat && self.topics.contains(topic)
    }

    pub(super) fn is_connected(&self) -> bool {
        self.heartbeat
    }
}

pub(super) struct Reader {
    pub(super) client: Client,
    pub(super) topics: Arc<Topics>,
    pub(super) requested: watch::Receiver<BTreeSet<String>>,
    pub(super) subscribed: watch::Sender<Subscribed>,
    pub(super) heartbeat_topic: String,
}

impl Reader {
    pub(super) async fn run(mut self) {
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
            if self.subscribed.send_replace(Subscribed::default()).heartbeat {
                metrics::counter!(GAPS, "side" => "subscribe").increment(1);
            }
            tracing::warn!(error, "the bus receives nothing from Redis");
            sleep(backoff.next()).await;
        }
    }

    /// Listens until the connection breaks or leads to the wrong server; returns why.
    async fn listen(
        &mut self,
        mut sink: PubSubSink,
        mut stream: PubSubStream,
        backoff: &mut Backoff,
    ) -> String {
        let mut ping = interval(PING_INTERVAL);
        let mut heartbeat_due = Instant::now() + HEARTBEAT_TIMEOUT;
        loop {
            if let Err(error) = self.subscribe_missing(&mut sink).await {
                return error;
            }
            tokio::select! {
                message = stream.next() => match message {
                    Some(message) if message.get_channel_name() == self.heartbeat_topic => {
                        heartbeat_due = Instant::now() + HEARTBEAT_TIMEOUT;
                        backoff.reset();
                        self.heartbeat_arrived();
                    }
                    Some(message) => {
                        let payload = Bytes::copy_from_slice(message.get_payload_bytes());
                        self.topics.deliver(message.get_channel_name(), payload);
                    }
                    None => return "connection closed".to_owned(),
                },
                changed = self.requested.changed() => if changed.is_err() {
                    return "bus closed".to_owned();
                },
                () = sleep_until(heartbeat_due) => return "no heartbeat arrives over this server".to_owned(),
                _ = ping.tick() => match timeout(RESPONSE_TIMEOUT, sink.ping::<redis::Value>()).await {
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => return error.to_string(),
                    Err(_) => return "no answer to ping".to_owned(),
                },
            }
        }
    }

    fn heartbeat_arrived(&self) {
        let first = self
            .subscribed
            .send_if_modified(|subscribed| !std::mem::replace(&mut subscribed.heartbeat, true));
        if first {
            metrics::gauge!(CONNECTED).set(1.0);
        }
    }

    async fn subscribe_missing(&mut self, sink: &mut PubSubSink) -> Result<(), String> {
        let missing: Vec<String> = {
            let requested = self.requested.borrow_and_update();
            let subscribed = self.subscribed.borrow();
            let wanted = requested.iter().chain([&self.heartbeat_topic]);
            wanted.filter(|topic| !subscribed.topics.contains(*topic)).cloned().collect()
        };
        if missing.is_empty() {
            return Ok(());
        }
        match timeout(RESPONSE_TIMEOUT, sink.subscribe(&missing)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => return Err("no answer to subscribe".to_owned()),
        }
        self.subscribed.send_modify(|subscribed| subscribed.topics.extend(missing));
        Ok(())
    }
}
