//! Transports of the client protocol: TCP, a QUIC stream, or binary WebSocket messages. Login, gateway and client
//! use one [`Stream`] type for all of them.
//!
//! All lanes of a server share one address: QUIC uses the UDP port of the same number, and a WebSocket begins on the
//! TCP port with the bytes of HTTP or TLS instead of the preface. A client that knows the address of a server knows
//! it for every lane.
//!
//! ```text
//! server:  Listener ── accept ──▶ Arrival ── open ──▶ Stream ── first ──▶ Stream, preface
//! client:  Connector ── connect ──▶ Stream
//! ```

mod connect;
mod lane;
mod listen;
mod quic;
mod read_ahead;
mod rewind;
mod settings;
mod stream;
mod tcp;
mod tls;
mod websocket;

pub use connect::{Connector, Trust, TrustError};
pub use lane::Lane;
pub use listen::{BindError, IncomingConnection, Listener, Upgrade};
pub use settings::{Retry, Settings};
pub use stream::Stream;
pub use tls::{CertificateError, PLAYER_CERTIFICATE_NAME};
