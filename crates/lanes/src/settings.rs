//! The settings `[gateway.lanes]` and `[login.lanes]`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Lanes that a server offers besides TCP.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// QUIC, on the UDP port of the same number as the TCP port.
    pub quic: bool,
    /// WebSockets (`ws` and `wss`), on the TCP port itself.
    pub websocket: bool,
    /// PEM file of the certificate chain for QUIC and `wss`. The default is created at each start and proves nothing
    /// by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// PEM file of its private key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// When a QUIC client must prove its address first.
    pub retry: Retry,
}

/// When a server answers with Retry, which needs no memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Retry {
    /// While many handshakes are in progress.
    Load,
    Always,
}

impl Default for Settings {
    fn default() -> Self {
        Self { quic: true, websocket: true, certificate: None, key: None, retry: Retry::Load }
    }
}

impl Settings {
    /// # Errors
    /// Returns a sentence that begins with the invalid key.
    pub fn validate(&self) -> Result<(), String> {
        if self.certificate.is_some() != self.key.is_some() {
            return Err("lanes: certificate and key go together".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificate_without_key_is_invalid() {
        assert_eq!(Settings::default().validate(), Ok(()));
        let half = Settings { certificate: Some("a.pem".into()), ..Settings::default() };
        assert!(half.validate().unwrap_err().starts_with("lanes: "));
    }
}
