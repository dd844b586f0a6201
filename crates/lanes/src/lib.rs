//! How the bytes of the client protocol travel: over TCP, in a stream of QUIC, or in the binary messages of a
//! WebSocket. Login, gateway and client speak through one [`Stream`] and do not know which of them it is.
//!
//! All lanes of a server share one address: QUIC has the UDP port of the same number, and a WebSocket begins on the
//! TCP port with the bytes of HTTP or TLS in place of the preface. So whoever knows where a server is knows it for
//! every lane, and nothing about lanes has to be announced, resolved or configured twice.
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
