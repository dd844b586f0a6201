//! How the bytes of the client protocol travel: over TCP, in a stream of QUIC, or in the binary messages of a WebSocket.
//! Login, gateway and client use one [`Stream`] and need not know which of them it is.
//!
//! By default, all lanes of a server share one address: QUIC has the UDP port of the same number, and a WebSocket begins on
//! the TCP port with HTTP or TLS in place of the preface.
//!
//! ```text
//! server:  Listener ── accept ──▶ IncomingConnection ── open ──▶ Stream ── first ──▶ Stream, preface
//! client:  Connector ── connect ──▶ Stream
//! ```

mod close;
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
mod upgrade;
mod websocket;

pub use close::CloseCode;
pub use connect::{Connector, Trust, TrustError};
pub use lane::Lane;
pub use listen::{BindError, IncomingConnection, Listener};
pub use settings::{Retry, Settings};
pub use stream::Stream;
pub use tls::{CertificateError, PLAYER_CERTIFICATE_NAME};
pub use upgrade::Upgrade;
