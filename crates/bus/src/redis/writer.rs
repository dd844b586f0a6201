//! The connection that publishes. It also proves, by heartbeats, that the subscribing connection works.

use std::time::{Duration, Instant};

use bytes::Bytes;
use redis::{
    AsyncConnectionConfig, Client, ErrorKind, RedisError, RedisResult, Value, aio::MultiplexedConnection,
};
use tokio::{
    sync::mpsc,
    time::{interval, sleep},
};

use super::{address::RESPONSE_TIMEOUT, backoff::Backoff};
use crate::metrics::{DROPPED, GAPS, PUBLISHED};

/// Messages that may wait for Redis. Overflow: the newest is refused with [`PublishError::Full`](crate::PublishError).
pub const OUTGOING_QUEUE: usize = 1024;
/// How long a message may wait for Redis before the bus drops it.
pub const MAX_AGE: Duration = Duration::from_secs(10);
/// How often the connection checks the server's role and publishes a heartbeat.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);
/// Messages in one round trip.
const MAX_BATCH: usize = 64;

pub(super) struct Outgoing {
    pub(super) topic: String,
    pub(super) payload: Bytes,
    pub(super) queued_at: Instant,
}

pub(super) struct Writer {
    client: Client,
    queue: mpsc::Receiver<Outgoing>,
    heartbeat_topic: String,
}

impl Writer {
    pub(super) fn new(client: Client, queue: mpsc::Receiver<Outgoing>, heartbeat_topic: String) -> Self {
        Self { client, queue, heartbeat_topic }
    }

    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::default();
        // Not yet confirmed by Redis; sent again after a reconnection.
        let mut batch = Vec::with_capacity(MAX_BATCH);
        loop {
            let error = match connect(&self.client).await {
                Ok(connection) => match self.send(connection, &mut batch, &mut backoff).await {
                    Ok(()) => return,
                    Err(error) => {
                        // The server may have been demoted. A replica does not pass on the messages that it has
                        // received since the last check of its role.
                        metrics::counter!(GAPS, "side" => "publish").increment(1);
                        error
                    }
                },
                Err(error) => error,
            };
            tracing::warn!(%error, "the bus cannot publish to Redis");
            sleep(backoff.next()).await;
        }
    }

    /// Sends until the queue closes (`Ok`) or the connection is of no use.
    async fn send(
        &mut self,
        mut connection: MultiplexedConnection,
        batch: &mut Vec<Outgoing>,
        backoff: &mut Backoff,
    ) -> RedisResult<()> {
        let mut heartbeat = interval(HEARTBEAT_INTERVAL);
        loop {
            tokio::select! {
                // The first tick comes at once, so the role is checked before anything is published.
                biased;
                _ = heartbeat.tick() => {
                    check_role(&mut connection).await?;
                    redis::cmd("PUBLISH").arg(&self.heartbeat_topic).arg("").exec_async(&mut connection).await?;
                    backoff.reset();
                    continue;
                }
                received = self.queue.recv_many(batch, MAX_BATCH), if batch.is_empty() => if received == 0 {
                    return Ok(());
                },
                () = std::future::ready(()), if !batch.is_empty() => {}
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
        }
    }
}

pub(super) async fn connect(client: &Client) -> RedisResult<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(RESPONSE_TIMEOUT))
        .set_response_timeout(Some(RESPONSE_TIMEOUT));
    client.get_multiplexed_async_connection_with_config(&config).await
}

/// Refuses a replica: it accepts messages but does not pass them on to the primary.
pub(super) async fn check_role(connection: &mut MultiplexedConnection) -> RedisResult<()> {
    let role: Value = redis::cmd("ROLE").query_async(connection).await?;
    let name = match role {
        Value::Array(fields) => {
            fields.into_iter().next().map(redis::from_redis_value::<String>).transpose()?
        }
        _ => None,
    };
    if name.as_deref() == Some("master") {
        return Ok(());
    }
    let reason = "the server is a replica; messages published there do not reach the others";
    Err(RedisError::from((ErrorKind::Client, reason)))
}
