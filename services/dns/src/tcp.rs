//! TCP: length-prefixed queries, answered in order (RFC 7766). The number of connections is limited, in total and per
//! address, and idle connections are closed. At the limit the server closes the oldest connection of the network that has
//! the most: a client that loses an idle connection can open another.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use metrics::{counter, gauge};
use shardkeep_daemon::{ConnectionLimiter, ConnectionLimits, Full, accept, contained};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::{
    metrics::{TCP_CONNECTIONS, TCP_REFUSED, TCP_SLOWED},
    random::Random,
    responder::{Responder, Shared},
    transport::Transport,
};

/// The server closes a connection that announces a longer query.
const MAX_QUERY: usize = 1500;
/// Size of one read in bytes.
const READ_BUFFER: usize = 4 << 10;
/// Answers to queries that are already received are written together, up to this number of bytes.
const MAX_BUFFERED_ANSWERS: usize = 16 << 10;
/// Limit of the time between messages, and of the time for one message (RFC 7766, 6.2.3).
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Answers queries until `stop`.
pub(crate) async fn serve(
    listener: TcpListener,
    shared: Arc<Shared>,
    bounds: ConnectionLimits,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let limiter = ConnectionLimiter::new(bounds);
    while let Some((stream, from)) = stop.run_until_cancelled(accept(|| listener.accept())).await {
        let slot = match limiter.admit(from.ip()) {
            Ok(slot) => slot,
            Err(full) => {
                let bound = match full {
                    Full::All => "in_all",
                    Full::Origin => "per_address",
                };
                counter!(TCP_REFUSED, "bound" => bound).increment(1);
                continue;
            }
        };
        let responder = Responder::new(shared.clone(), Transport::Tcp, Random::from_entropy());
        let stop = stop.clone();
        gauge!(TCP_CONNECTIONS).increment(1.0);
        // A connection shares only the zone's data with others, and reads it.
        let connection = contained("DNS over TCP", async move {
            tokio::select! {
                ended = serve_connection(stream, from, responder) => if let Err(error) = ended {
                    debug!(%error, "TCP client");
                },
                () = slot.evicted() => counter!(TCP_REFUSED, "bound" => "displaced").increment(1),
                () = stop.cancelled() => {}
            }
        });
        // supervision: the connection is contained, see above.
        tokio::spawn(async move {
            connection.await;
            gauge!(TCP_CONNECTIONS).decrement(1.0);
        });
    }
    Ok(())
}

/// Serves one client. Queries that arrive together are answered in one write.
async fn serve_connection(stream: TcpStream, from: SocketAddr, mut responder: Responder) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::with_capacity(READ_BUFFER, stream);
    let mut buffer = vec![0; MAX_QUERY];
    let (mut answer, mut framed) = (Vec::new(), Vec::new());
    let mut throttle = QueryThrottle::new(Instant::now());
    loop {
        let length = match timeout(IDLE_TIMEOUT, stream.read_u16()).await? {
            Ok(length) => usize::from(length),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        };
        let packet = buffer.get_mut(..length).ok_or_else(|| io::Error::other("query too long"))?;
        timeout(IDLE_TIMEOUT, stream.read_exact(packet)).await??;
        let wait = throttle.wait(Instant::now());
        if !wait.is_zero() {
            counter!(TCP_SLOWED).increment(1);
            sleep(wait).await;
        }
        let answered = responder.answer(packet, from.ip(), responder.now(), &mut answer);
        if answered {
            framed.extend_from_slice(&u16::try_from(answer.len()).map_err(io::Error::other)?.to_be_bytes());
            framed.extend_from_slice(&answer);
        }
        if !answered || framed.len() >= MAX_BUFFERED_ANSWERS || !has_complete_query(stream.buffer()) {
            timeout(IDLE_TIMEOUT, stream.write_all(&framed)).await??;
            framed.clear();
        }
        if !answered {
            return Err(io::Error::other("not a query"));
        }
    }
}

/// Whether the read buffer holds a whole query.
fn has_complete_query(buffer: &[u8]) -> bool {
    buffer
        .split_first_chunk()
        .is_some_and(|(length, rest)| rest.len() >= usize::from(u16::from_be_bytes(*length)))
}

/// Rate limit of one client, stored as the time at which it has its whole burst again. The server reads a faster client
/// more slowly, so TCP flow control slows the client down and no query is lost.
struct QueryThrottle {
    full_at: Instant,
}

impl QueryThrottle {
    const INTERVAL: Duration = Duration::from_millis(1);
    const BURST: u32 = 256;

    fn new(now: Instant) -> Self {
        Self { full_at: now }
    }

    /// Delay of the query that has just arrived.
    fn wait(&mut self, now: Instant) -> Duration {
        self.full_at = self.full_at.max(now) + Self::INTERVAL;
        (self.full_at - now).saturating_sub(Self::INTERVAL * Self::BURST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn throttle_passes_burst_then_delays() {
        let start = Instant::now();
        let mut throttle = QueryThrottle::new(start);
        assert!((0..QueryThrottle::BURST).all(|_| throttle.wait(start).is_zero()));
        assert_eq!(throttle.wait(start), QueryThrottle::INTERVAL);
        assert_eq!(throttle.wait(start + QueryThrottle::INTERVAL), QueryThrottle::INTERVAL);
        assert!(throttle.wait(start + Duration::from_secs(1)).is_zero());
    }

    #[test]
    fn partial_query_is_not_complete() {
        assert!(!has_complete_query(&[]) && !has_complete_query(&[0]) && !has_complete_query(&[0, 2, 1]));
        assert!(has_complete_query(&[0, 2, 1, 2]) && has_complete_query(&[0, 0]));
    }
}
