//! Channels to peers: one per address, made lazily, kept, and secured by mutual TLS.

use std::{collections::HashMap, io, sync::Arc, time::Duration};

use parking_lot::Mutex;
use shardkeep_types::DaemonKind;
use tonic::{
    codegen::http::Uri,
    transport::{Channel, Endpoint, Error},
};
use tracing::warn;

use crate::{
    Identity, OperatorName,
    server::{CONNECTION_WINDOW, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, STREAM_WINDOW},
};

const CONNECT_DEADLINE: Duration = Duration::from_secs(2);
/// Restarted peers use new ports, so old addresses accumulate. Beyond this number, all channels are dropped from the
/// cache: callers keep theirs, and the others are created again at their next use.
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
        let channel = match self.endpoint(kind, grpc_address) {
            Ok(endpoint) => endpoint.connect_lazy(),
            Err(error) => {
                warn!(%kind, grpc_address, %error, "not an address");
                unreachable_channel()
            }
        };
        channels.insert(key, channel.clone());
        channel
    }

    fn endpoint(&self, kind: DaemonKind, grpc_address: &str) -> Result<Endpoint, Error> {
        with_transport_settings(Endpoint::from_shared(format!("https://{grpc_address}"))?)
            .user_agent(self.inner.user_agent.clone())?
            .tls_config(self.inner.identity.client_config(kind))
    }
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

/// A channel for a peer that advertises an invalid address. Every call fails as if the peer were down.
fn unreachable_channel() -> Channel {
    let refuse = |_: Uri| async {
        Err::<hyper_util::rt::TokioIo<tokio::net::TcpStream>, _>(io::Error::from(
            io::ErrorKind::AddrNotAvailable,
        ))
    };
    Endpoint::from_static("http://unreachable.invalid").connect_with_connector_lazy(tower::service_fn(refuse))
}
