//! Channels to peers: one per address, made lazily, kept, and secured by mutual TLS.

use std::{collections::HashMap, io, sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use shardkeep_types::DaemonKind;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::{
    codegen::http::Uri,
    transport::{Channel, Endpoint, Error},
};
use tracing::warn;

use crate::{
    Identity, OperatorName, peer,
    peer_stream::PeerStream,
    server::{CONNECTION_WINDOW, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, STREAM_WINDOW},
};

const CONNECT_DEADLINE: Duration = Duration::from_secs(2);
/// A restarted peer has a new port, so unused channels accumulate. At this number the cache drops all channels: callers
/// keep those that they use, and the next use of another makes it again.
const MAX_CACHED_CHANNELS: usize = 1024;

/// Dials peers with one identity. Daemons use it through [`crate::Node::channel`], tools directly.
#[derive(Clone)]
pub struct Dialer {
    inner: Arc<Inner>,
}

struct Inner {
    identity: Arc<Identity>,
    user_agent: String,
    channels: Mutex<HashMap<(DaemonKind, String), Channel>>,
}

impl Dialer {
    pub fn new(identity: Arc<Identity>) -> Self {
        let user_agent = identity.peer().to_string();
        Self { inner: Arc::new(Inner { identity, user_agent, channels: Mutex::default() }) }
    }

    /// For a tool that `operator` uses: its calls name the operator.
    pub fn with_operator(identity: Arc<Identity>, operator: &OperatorName) -> Self {
        let user_agent = operator.user_agent(identity.peer());
        Self { inner: Arc::new(Inner { identity, user_agent, channels: Mutex::default() }) }
    }

    /// Cached, lazily connecting channel to a peer of this kind. It reconnects by itself; a call fails while the
    /// peer can not be reached or its certificate is not of this kind.
    pub fn channel(&self, kind: DaemonKind, grpc_address: &str) -> Channel {
        let mut channels = self.inner.channels.lock();
        let key = (kind, grpc_address.to_owned());
        if let Some(channel) = channels.get(&key) {
            return channel.clone();
        }
        if channels.len() >= MAX_CACHED_CHANNELS {
            channels.clear();
        }
        let channel = match self.connect_lazy(kind, grpc_address) {
            Ok(channel) => channel,
            Err(error) => {
                warn!(%kind, grpc_address, %error, "a peer advertises an invalid gRPC address, so calls to it fail");
                unreachable_channel()
            }
        };
        channels.insert(key, channel.clone());
        channel
    }

    /// TLS is made here and not by tonic, so that each connection uses the certificate that is in force.
    fn connect_lazy(&self, kind: DaemonKind, grpc_address: &str) -> Result<Channel, Error> {
        let identity = self.inner.identity.clone();
        let endpoint = with_transport_settings(Endpoint::from_shared(format!("http://{grpc_address}"))?)
            .user_agent(self.inner.user_agent.clone())?;
        let address = grpc_address.to_owned();
        let connector = move |_: Uri| connect(kind, address.clone(), identity.clone());
        Ok(endpoint.connect_with_connector_lazy(tower::service_fn(connector)))
    }
}

/// Connects, and checks that the peer's certificate is of this kind.
async fn connect(
    kind: DaemonKind,
    address: String,
    identity: Arc<Identity>,
) -> io::Result<TokioIo<PeerStream>> {
    let name = ServerName::try_from(peer::dns_name(kind)).map_err(io::Error::other)?;
    let stream = TcpStream::connect(&address).await?;
    stream.set_nodelay(true)?;
    let version = identity.version();
    let tls = TlsConnector::from(Arc::new(identity.client_config()));
    let stream = tls.connect(name, stream).await?;
    Ok(TokioIo::new(PeerStream::new(stream, identity, version)?))
}

/// A channel without TLS to a collector outside the cluster.
pub(crate) fn plaintext_channel(url: &str) -> Result<Channel, Error> {
    Ok(with_transport_settings(Endpoint::from_shared(url.to_owned())?).connect_lazy())
}

fn with_transport_settings(endpoint: Endpoint) -> Endpoint {
    endpoint
        .connect_timeout(CONNECT_DEADLINE)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .tcp_nodelay(true)
}

/// A channel on which every call fails as if the peer were down. It stands for a peer that advertises an invalid address.
fn unreachable_channel() -> Channel {
    let refuse =
        |_: Uri| async { Err::<TokioIo<TcpStream>, _>(io::Error::from(io::ErrorKind::AddrNotAvailable)) };
    Endpoint::from_static("http://unreachable.invalid").connect_with_connector_lazy(tower::service_fn(refuse))
}
