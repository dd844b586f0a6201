//! Kinds of daemons, and of backends to which a gateway routes.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Kind of a process. `Cli` is the operator's tool, which holds a certificate but serves nothing. `Backend` is a
/// studio's service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DaemonKind {
    Dns,
    Login,
    Registry,
    Gateway,
    World,
    Zone,
    Ai,
    Chat,
    Dbcache,
    Billing,
    Gm,
    Logs,
    Backend,
    Cli,
}

impl DaemonKind {
    /// The twelve daemons, in the order in which a cluster starts them.
    pub const DAEMONS: [Self; 12] = [
        Self::Registry,
        Self::Logs,
        Self::Dbcache,
        Self::World,
        Self::Ai,
        Self::Zone,
        Self::Chat,
        Self::Billing,
        Self::Gateway,
        Self::Login,
        Self::Dns,
        Self::Gm,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Login => "login",
            Self::Registry => "registry",
            Self::Gateway => "gateway",
            Self::World => "world",
            Self::Zone => "zone",
            Self::Ai => "ai",
            Self::Chat => "chat",
            Self::Dbcache => "dbcache",
            Self::Billing => "billing",
            Self::Gm => "gm",
            Self::Logs => "logs",
            Self::Backend => "backend",
            Self::Cli => "cli",
        }
    }
}

impl fmt::Display for DaemonKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("unknown kind of daemon {0:?}")]
pub struct UnknownKind(pub String);

impl FromStr for DaemonKind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        Self::DAEMONS
            .into_iter()
            .chain([Self::Backend, Self::Cli])
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| UnknownKind(text.to_owned()))
    }
}

/// Kind of backend that a route leads to: the high byte of group kinds, and the `kind` of a binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BackendKind(pub u8);

impl BackendKind {
    pub const WORLD: Self = Self(1);
    pub const ZONE: Self = Self(2);
    pub const CHAT: Self = Self(3);
    /// First kind that a studio may use for its own backends.
    pub const FIRST_CUSTOM: Self = Self(64);
}

impl fmt::Display for BackendKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::WORLD => f.pad("world"),
            Self::ZONE => f.pad("zone"),
            Self::CHAT => f.pad("chat"),
            Self(other) => write!(f, "backend-{other}"),
        }
    }
}
