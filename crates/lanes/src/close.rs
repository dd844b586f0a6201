//! Why a server closes a connection, as the close code of a WebSocket (RFC 6455, section 7.4.1, and the registry of
//! IANA). Other lanes have no such code.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum CloseCode {
    /// The session ended by the client's request, or continues on another connection.
    Normal = 1000,
    /// The server leaves: resume at another one.
    GoingAway = 1001,
    /// Bytes do not follow the protocol.
    Protocol = 1002,
    /// A text message came; messages are binary.
    Unsupported = 1003,
    /// The server refuses the client, or ends its session; the protocol's `Error` says why.
    Policy = 1008,
    TooLarge = 1009,
    /// The client may try again later.
    TryAgainLater = 1013,
}
