//! `[gateway.lanes]` and `[login.lanes]` of the settings.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Lanes that a server offers beside TCP.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// QUIC, on the UDP port of the same number as the TCP port.
    pub quic: bool,
    /// WebSockets (`ws` and `wss`), on the TCP port itself.
    pub websocket: bool,
    /// PEM file of the certificate chain for QUIC and `wss`. A changed file is used from the next handshake on. Default: a
    /// certificate made at each start, which proves nothing by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// PEM file of its private key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// Origins of web pages that may open WebSockets, such as `https://play.example`. Empty: every origin. Clients that
    /// send no origin, which browsers always do, are not restricted.
    pub allowed_origins: Vec<String>,
    /// When a QUIC client must prove first that its address is its own.
    pub retry: Retry,
}

/// When QUIC answers a client with Retry, for which the server keeps nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Retry {
    /// While many handshakes are under way.
    Load,
    Always,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            quic: true,
            websocket: true,
            certificate: None,
            key: None,
            allowed_origins: Vec::new(),
            retry: Retry::Load,
        }
    }
}

impl Settings {
    /// # Errors
    /// A sentence that begins with the key at fault.
    pub fn validate(&self) -> Result<(), String> {
        if self.certificate.is_some() != self.key.is_some() {
            return Err("lanes: certificate and key go together; set both or neither".into());
        }
        let is_origin = |origin: &String| {
            origin
                .split_once("://")
                .is_some_and(|(scheme, host)| !scheme.is_empty() && !host.is_empty() && !host.contains('/'))
        };
        if let Some(origin) = self.allowed_origins.iter().find(|origin| !is_origin(origin)) {
            return Err(format!(
                "lanes: allowed_origins: {origin:?} is no origin; write scheme and host, such as https://play.example"
            ));
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

    #[test]
    fn origin_with_path_is_invalid() {
        let origins = |origin: &str| Settings { allowed_origins: vec![origin.into()], ..Settings::default() };
        assert_eq!(origins("https://play.example:8443").validate(), Ok(()));
        for wrong in ["play.example", "https://play.example/game", "https://"] {
            assert!(origins(wrong).validate().unwrap_err().contains("is no origin"), "{wrong}");
        }
    }
}
