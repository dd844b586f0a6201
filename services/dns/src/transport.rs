//! The protocol that a query came by.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    /// The sender's address may be forged, and an answer must be short.
    Udp,
    Tcp,
}

impl Transport {
    /// The value of the label `transport` of metrics.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }
}
