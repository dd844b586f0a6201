//! QUIC (RFC 9000): one connection per player, with one bidirectional stream that the client opens, and datagrams
//! from the server (RFC 9221). One UDP socket serves all of them.

mod listen;
mod stream;

pub(crate) use listen::{IncomingConnection, Listener};
pub(crate) use stream::Stream;

use std::{sync::Arc, time::Duration};

use quinn::{IdleTimeout, TransportConfig, VarInt};

/// Receive window of a server. The largest record of a client fits into a quarter of it.
const SERVER_WINDOW: u32 = 32 << 10;
/// Bytes that a server sends before an acknowledgement. This bounds the memory of a slow client.
const SERVER_UNACKNOWLEDGED: u64 = 128 << 10;
pub(crate) const CLIENT_WINDOW: u32 = 256 << 10;
/// Bound of queued datagrams in bytes. Overflow: the oldest is dropped, because newer state supersedes it.
const DATAGRAMS: usize = 16 << 10;
/// The library forbids sending datagrams when receiving is off. A limit of one byte makes receiving impossible in
/// practice.
const NO_DATAGRAM: usize = 1;
/// Application error code of our closes.
const NO_ERROR: VarInt = VarInt::from_u32(0);

/// `idle` is the idle timeout. The protocol's pings are three times as frequent.
fn server_transport(idle: Duration) -> Arc<TransportConfig> {
    let mut transport = common(idle);
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .stream_receive_window(VarInt::from_u32(SERVER_WINDOW))
        .receive_window(VarInt::from_u32(SERVER_WINDOW))
        .send_window(SERVER_UNACKNOWLEDGED)
        .datagram_receive_buffer_size(Some(NO_DATAGRAM))
        .datagram_send_buffer_size(DATAGRAMS);
    Arc::new(transport)
}

/// `window` limits the bytes that the server may send before the client reads.
pub(crate) fn client_transport(window: u32) -> Arc<TransportConfig> {
    const IDLE: Duration = Duration::from_secs(30);
    let mut transport = common(IDLE);
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(window))
        .receive_window(VarInt::from_u32(window))
        .datagram_receive_buffer_size(Some(DATAGRAMS));
    Arc::new(transport)
}

fn common(idle: Duration) -> TransportConfig {
    let mut transport = TransportConfig::default();
    let idle = u32::try_from(idle.as_millis()).unwrap_or(u32::MAX);
    transport
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(idle))))
        .max_concurrent_uni_streams(VarInt::from_u32(0));
    transport
}
