//! An HTTP/1.1 server with a bounded number of connections and time limits for every phase of a request. It serves the
//! operators' console and the admin endpoints.

use std::{convert::Infallible, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::Request,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics::counter;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tracing::debug;

use crate::{ConnectionLimiter, ConnectionLimits, Full, OverflowPolicy, Slot, accept, contained};

const REFUSED: &str = "shardkeep_http_connections_refused_total";
const EVICTED: &str = "shardkeep_http_connections_evicted_total";
/// The kernel closes a connection when the client has not acknowledged data for this long.
const UNACKNOWLEDGED_DATA_TIMEOUT: Duration = Duration::from_secs(60);

/// Bounds of an HTTP server.
#[derive(Debug, Clone, Copy)]
pub struct HttpLimits {
    /// Connections at once. When all are in use, a new connection replaces the oldest one that no request has
    /// authenticated, in the address prefix with the most of them. If all are authenticated, it is refused.
    pub connections: usize,
    /// Time in which a client must send the complete head of a request. Idle connections are closed after it too.
    pub head_timeout: Duration,
    /// Time from the head of a request to the head of the response. It includes reading the request body.
    pub request_timeout: Duration,
}

/// The connection that carries a request. Handlers find it among the request's extensions.
#[derive(Debug, Clone)]
pub struct HttpConnection {
    address: SocketAddr,
    slot: Arc<Slot>,
}

impl HttpConnection {
    /// The peer's address: the client's, or that of a proxy.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Keeps this connection when a new one needs a slot. Call it once the request has proved its sender's identity.
    pub fn authenticated(&self) {
        self.slot.proved();
    }
}

/// Serves `router` until `stop`, then lets requests in flight finish. `name` is the label of the metrics. If this
/// future is dropped, the open connections are closed at once.
pub async fn serve_http(
    name: &'static str,
    listener: TcpListener,
    router: Router,
    limits: HttpLimits,
    stop: CancellationToken,
) {
    let server = HttpServer { name, router, limits };
    for total in [REFUSED, EVICTED] {
        counter!(total, "server" => name).increment(0);
    }
    let limiter = ConnectionLimiter::new(ConnectionLimits {
        all: limits.connections,
        // One address may use all slots, because another client can always replace its silent connections. Behind a
        // proxy all clients share one address.
        per_origin: usize::MAX,
        overflow: OverflowPolicy::EvictOldest,
    });
    let mut connections = JoinSet::new();
    while let Some((stream, address)) = stop.run_until_cancelled(accept(|| listener.accept())).await {
        while connections.try_join_next().is_some() {}
        match limiter.admit(address.ip()) {
            Ok(slot) => {
                let connection = HttpConnection { address, slot: Arc::new(slot) };
                let serving = server.clone().serve_connection(stream, connection, stop.clone());
                // A handler shares no state with the server that a panic could leave half changed.
                connections.spawn(contained("HTTP connection", serving));
            }
            Err(Full::All | Full::Origin) => counter!(REFUSED, "server" => name).increment(1),
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

#[derive(Clone)]
struct HttpServer {
    name: &'static str,
    router: Router,
    limits: HttpLimits,
}

impl HttpServer {
    async fn serve_connection(self, stream: TcpStream, connection: HttpConnection, stop: CancellationToken) {
        let socket = socket2::SockRef::from(&stream);
        if let Err(error) = socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_DATA_TIMEOUT)) {
            debug!(%error, "the socket has no time limit for unacknowledged data");
        }
        let evicted = connection.slot.evicted();
        let (address, name) = (connection.address, self.name);
        let service = service_fn(|request| self.answer(request, connection.clone()));
        let mut serving = pin!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(self.limits.head_timeout)
                .serve_connection(TokioIo::new(stream), service)
        );
        let mut evicted = pin!(evicted);
        let mut stopping = false;
        loop {
            tokio::select! {
                served = serving.as_mut() => {
                    if let Err(error) = served {
                        debug!(%address, %error, "an HTTP connection ended early");
                    }
                    return;
                }
                () = evicted.as_mut() => {
                    counter!(EVICTED, "server" => name).increment(1);
                    return;
                }
                () = stop.cancelled(), if !stopping => {
                    stopping = true;
                    serving.as_mut().graceful_shutdown();
                }
            }
        }
    }

    async fn answer(
        &self,
        mut request: Request<Incoming>,
        connection: HttpConnection,
    ) -> Result<Response, Infallible> {
        request.extensions_mut().insert(connection);
        let answered = self.router.clone().oneshot(request.map(axum::body::Body::new));
        match tokio::time::timeout(self.limits.request_timeout, answered).await {
            Ok(response) => response,
            Err(_) => {
                Ok((StatusCode::REQUEST_TIMEOUT, "The request took too long. Send it again.\n")
                    .into_response())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::{Extension, routing::get};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const LIMITS: HttpLimits = HttpLimits {
        connections: 4,
        head_timeout: Duration::from_secs(60),
        request_timeout: Duration::from_secs(60),
    };

    struct TestServer {
        address: SocketAddr,
        stop: CancellationToken,
        served: tokio::task::JoinHandle<()>,
    }

    async fn start(limits: HttpLimits) -> TestServer {
        let sign_in = |Extension(connection): Extension<HttpConnection>| async move {
            connection.authenticated();
            "signed in"
        };
        let router = Router::new()
            .route("/", get(|| async { "hello" }))
            .route("/sign-in", get(sign_in))
            .route("/body", axum::routing::post(|body: String| async move { body }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        let served = tokio::spawn(serve_http("test", listener, router, limits, stop.clone()));
        TestServer { address, stop, served }
    }

    impl TestServer {
        async fn open(&self) -> TcpStream {
            TcpStream::connect(self.address).await.unwrap()
        }

        /// Sends a request on a kept connection and returns the response, which must fit one read.
        async fn request(stream: &mut TcpStream, path: &str) -> String {
            stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
            let mut answer = vec![0; 4096];
            let length = stream.read(&mut answer).await.unwrap_or_default();
            String::from_utf8_lossy(&answer[..length]).into_owned()
        }
    }

    /// Bytes until the server closes the connection. A reset counts as a close.
    async fn read_until_closed(stream: &mut TcpStream) -> Vec<u8> {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes).await;
        bytes
    }

    #[tokio::test]
    async fn silent_connections_of_one_host_do_not_keep_out_a_new_client() {
        let server = start(LIMITS).await;
        let mut silent = Vec::new();
        for _ in 0..LIMITS.connections {
            silent.push(server.open().await);
        }
        let mut client = server.open().await;
        assert!(TestServer::request(&mut client, "/").await.ends_with("hello"));
        assert!(read_until_closed(&mut silent[0]).await.is_empty(), "the oldest silent connection is closed");
    }

    #[tokio::test]
    async fn authenticated_connection_is_never_evicted() {
        let server = start(LIMITS).await;
        let mut operator = server.open().await;
        assert!(TestServer::request(&mut operator, "/sign-in").await.ends_with("signed in"));
        let mut silent = Vec::new();
        for _ in 0..3 * LIMITS.connections {
            silent.push(server.open().await);
        }
        let mut client = server.open().await;
        assert!(TestServer::request(&mut client, "/").await.ends_with("hello"));
        assert!(TestServer::request(&mut operator, "/").await.ends_with("hello"));
    }

    #[tokio::test]
    async fn client_that_sends_its_head_byte_by_byte_is_closed_at_the_head_timeout() {
        let server = start(HttpLimits { head_timeout: Duration::from_millis(50), ..LIMITS }).await;
        let (mut read, mut write) = server.open().await.into_split();
        let trickle = tokio::spawn(async move {
            // The writes fail once the server has closed the connection.
            while write.write_all(b"x").await.is_ok() {
                tokio::task::yield_now().await;
            }
        });
        let mut bytes = Vec::new();
        let _ = read.read_to_end(&mut bytes).await;
        trickle.await.unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains("200"), "{bytes:?}");
    }

    #[tokio::test]
    async fn client_that_withholds_its_body_gets_request_timeout() {
        let server = start(HttpLimits { request_timeout: Duration::from_millis(50), ..LIMITS }).await;
        let mut client = server.open().await;
        client.write_all(b"POST /body HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\n12").await.unwrap();
        let answer = String::from_utf8(read_until_closed(&mut client).await).unwrap();
        assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    }

    #[tokio::test]
    async fn stop_closes_idle_connections_and_returns() {
        let server = start(LIMITS).await;
        let mut idle = server.open().await;
        assert!(TestServer::request(&mut idle, "/").await.ends_with("hello"));
        server.stop.cancel();
        assert!(read_until_closed(&mut idle).await.is_empty());
        server.served.await.unwrap();
    }
}
