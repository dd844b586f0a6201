//! An HTTP/1.1 server with limits: connections in all and per address, and a time-out for each request head. The
//! console and the admin endpoints use it.

use std::{net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use metrics::{counter, describe_counter};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

use crate::{ConnectionLimiter, ConnectionLimits, Full, OverflowPolicy, Slot, contained};

/// Connections closed by a limit, by server and reason.
const REFUSED: &str = "shardkeep_http_refused_connections_total";
/// Pause after a failed accept, for example without free file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Limits of one HTTP server. Overflow: beyond `per_address` the new connection is closed. Beyond `connections` the
/// oldest unauthenticated connection of the address prefix with most of them is closed. Both are counted.
#[derive(Debug, Clone, Copy)]
pub struct HttpLimits {
    /// Names the server in the counter.
    pub server: &'static str,
    pub connections: usize,
    /// From one IPv4 address or one IPv6 /64.
    pub per_address: usize,
    /// Time for a complete request head. An idle connection is closed after this time too.
    pub head_timeout: Duration,
}

/// The connection that a request came by, as an extension of the request.
#[derive(Debug, Clone)]
pub struct HttpClient {
    address: SocketAddr,
    slot: Arc<Slot>,
}

impl HttpClient {
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The client has proved its identity: the limit no longer closes this connection in favour of another.
    pub fn authenticated(&self) {
        self.slot.proved();
    }
}

pub(crate) fn describe(server: &'static str) {
    describe_counter!(REFUSED, "HTTP connections closed by a limit, by server and reason");
    for reason in ["full", "address", "evicted"] {
        counter!(REFUSED, "server" => server, "reason" => reason).increment(0);
    }
}

/// Serves until `stop`, then closes idle connections and completes the requests in progress.
pub async fn serve_http(listener: TcpListener, router: Router, limits: HttpLimits, stop: CancellationToken) {
    describe(limits.server);
    let limiter = ConnectionLimiter::new(ConnectionLimits {
        all: limits.connections,
        per_origin: limits.per_address,
        overflow: OverflowPolicy::EvictOldest,
    });
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(server = limits.server, %error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        match limiter.admit(address.ip()) {
            Ok(slot) => {
                let client = HttpClient { address, slot: Arc::new(slot) };
                let connection = serve_connection(stream, router.clone(), client, limits, stop.clone());
                // A connection shares nothing with others but the limiter, whose lock no request holds.
                connections.spawn(contained("HTTP connection", connection));
            }
            Err(Full::All) => refuse(limits, "full"),
            Err(Full::Origin) => refuse(limits, "address"),
        }
    }
    connections.close();
    connections.wait().await;
}

fn refuse(limits: HttpLimits, reason: &'static str) {
    counter!(REFUSED, "server" => limits.server, "reason" => reason).increment(1);
}

async fn serve_connection(
    stream: TcpStream,
    router: Router,
    client: HttpClient,
    limits: HttpLimits,
    stop: CancellationToken,
) {
    let (address, evicted) = (client.address, client.slot.evicted());
    let service = TowerToHyperService::new(router.layer(Extension(client)));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .serve_connection(TokioIo::new(stream), service);
    let (mut connection, mut evicted) = (pin!(connection), pin!(evicted));
    let mut stopping = false;
    loop {
        tokio::select! {
            ended = &mut connection => {
                if let Err(error) = ended {
                    debug!(%address, %error, "HTTP connection ended");
                }
                return;
            }
            () = &mut evicted => return refuse(limits, "evicted"),
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const LIMITS: HttpLimits =
        HttpLimits { server: "test", connections: 4, per_address: 2, head_timeout: Duration::from_secs(10) };

    struct Server {
        address: SocketAddr,
        stop: CancellationToken,
        task: tokio::task::JoinHandle<()>,
    }

    impl Server {
        async fn start() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let router = Router::new().route("/", get(|| async { "ok" })).route(
                "/sign-in",
                get(|Extension(client): Extension<HttpClient>| async move {
                    client.authenticated();
                    "signed in"
                }),
            );
            let stop = CancellationToken::new();
            let task = tokio::spawn(serve_http(listener, router, LIMITS, stop.clone()));
            Self { address, stop, task }
        }

        /// A connection from this loopback address.
        async fn connect(&self, from: [u8; 4]) -> TcpStream {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind((from, 0).into()).unwrap();
            socket.connect(self.address).await.unwrap()
        }
    }

    async fn get_path(stream: &mut TcpStream, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut buffer = [0; 512];
        let bytes = stream.read(&mut buffer).await.unwrap();
        String::from_utf8_lossy(&buffer[..bytes]).into_owned()
    }

    async fn is_closed(stream: &mut TcpStream) -> bool {
        !matches!(stream.read(&mut [0; 64]).await, Ok(1..))
    }

    #[tokio::test]
    async fn slow_clients_do_not_close_the_server_to_others() {
        let server = Server::start().await;
        let mut slow = Vec::new();
        for host in [1, 1, 2, 2] {
            let mut stream = server.connect([127, 0, 0, host]).await;
            stream.write_all(b"GET / HT").await.unwrap();
            slow.push(stream);
        }
        let mut one_too_many = server.connect([127, 0, 0, 1]).await;
        assert!(is_closed(&mut one_too_many).await, "two connections per address");
        let mut other = server.connect([127, 0, 9, 1]).await;
        assert!(get_path(&mut other, "/").await.ends_with("ok"));
        assert!(is_closed(&mut slow[0]).await, "the oldest slow client makes room");
    }

    #[tokio::test]
    async fn authenticated_connection_is_kept() {
        let server = Server::start().await;
        let mut operator = server.connect([127, 0, 0, 1]).await;
        assert!(get_path(&mut operator, "/sign-in").await.ends_with("signed in"));
        let mut others = Vec::new();
        for host in 2..9 {
            others.push(server.connect([127, 0, 0, host]).await);
        }
        assert!(is_closed(&mut others[0]).await);
        assert!(get_path(&mut operator, "/").await.ends_with("ok"));
    }

    #[tokio::test(start_paused = true)]
    async fn incomplete_request_head_times_out() {
        let server = Server::start().await;
        let began = tokio::time::Instant::now();
        let mut slow = server.connect([127, 0, 0, 1]).await;
        slow.write_all(b"GET / HTTP/1.1\r\nhost:").await.unwrap();
        assert!(is_closed(&mut slow).await);
        assert!(began.elapsed() >= LIMITS.head_timeout, "{:?}", began.elapsed());
        server.stop.cancel();
        server.task.await.unwrap();
    }
}
