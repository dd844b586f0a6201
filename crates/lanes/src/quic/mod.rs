//! QUIC (RFC 9000): one connection per player, with one bidirectional stream that the client opens, and datagrams
//! from the server (RFC 9221). One UDP socket serves all of them.

mod listen;
mod stream;

pub(crate) use listen::{IncomingConnection, Listener};
pub(crate) use stream::Stream;

use std::{sync::Arc, time::Duration};

use quinn::{IdleTimeout, TransportConfig, VarInt};

/// What the other side may send before it is read. A client's largest record fits into a quarter of it.
const SERVER_WINDOW: u32 = 32 << 10;
/// What a server sends before it is acknowledged, kept to be sent again: the bound of memory per slow client.
const SERVER_UNACKNOWLEDGED: u64 = 128 << 10;
pub(crate) const CLIENT_WINDOW: u32 = 256 << 10;
/// Datagrams that wait; the oldest gives way. Superseded state is not worth more.
const DATAGRAMS: usize = 16 << 10;
/// Who takes no datagrams at all may not send any, as the library has it. So small a one nobody can send.
const NO_DATAGRAM: usize = 1;
/// Application error codes of our closes: nothing went wrong with QUIC.
const NO_ERROR: VarInt = VarInt::from_u32(0);

/// `idle`: silence after which a side forgets the connection; the protocol's own pings come three times as often.
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

/// `window`: what the server may send before it is read.
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
