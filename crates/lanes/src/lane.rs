//! The names of the lanes.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lane {
    Tcp,
    Quic,
    /// A WebSocket over plain TCP.
    Ws,
    /// A WebSocket over TLS.
    Wss,
}

impl Lane {
    pub const ALL: [Self; 4] = [Self::Tcp, Self::Quic, Self::Ws, Self::Wss];

    /// Name on the command line and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Quic => "quic",
            Self::Ws => "ws",
            Self::Wss => "wss",
        }
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Lane {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let lane = Self::ALL.into_iter().find(|lane| lane.as_str() == text);
        lane.ok_or_else(|| format!("{text:?} is no lane; there are tcp, quic, ws and wss"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lane_names_round_trip() {
        for lane in Lane::ALL {
            assert_eq!(lane.to_string().parse(), Ok(lane));
        }
        assert!("udp".parse::<Lane>().is_err());
    }
}
