//! The one kind of address that is ever attacked. A [`Loopback`] can only be made by checking, so nothing here can
//! send a byte anywhere else, whatever a name resolves to and whatever a server says of others.

use std::{fmt, net::SocketAddr};

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "SocketAddr", into = "SocketAddr")]
pub struct Loopback(SocketAddr);

/// Why an address is not attacked.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotLoopback {
    #[error(
        "{address}{name_suffix} is not a loopback address: this tool attacks nothing but the machine it runs on",
        name_suffix = name_suffix(.name)
    )]
    Remote { address: SocketAddr, name: Option<String> },
    #[error("{name}: {why}")]
    Unknown { name: String, why: String },
}

fn name_suffix(name: &Option<String>) -> String {
    name.as_ref().map_or_else(String::new, |name| format!(" ({name})"))
}

impl TryFrom<SocketAddr> for Loopback {
    type Error = NotLoopback;

    fn try_from(address: SocketAddr) -> Result<Self, NotLoopback> {
        if address.ip().to_canonical().is_loopback() {
            Ok(Self(address))
        } else {
            Err(NotLoopback::Remote { address, name: None })
        }
    }
}

impl From<Loopback> for SocketAddr {
    fn from(Loopback(address): Loopback) -> Self {
        address
    }
}

impl fmt::Display for Loopback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Loopback {
    pub fn address(self) -> SocketAddr {
        self.0
    }

    /// Every address of `host:port`; one that is elsewhere spoils them all.
    pub async fn resolve(name: &str) -> Result<Vec<Self>, NotLoopback> {
        let unknown = |why: String| NotLoopback::Unknown { name: name.to_owned(), why };
        let found = tokio::net::lookup_host(name).await.map_err(|error| unknown(error.to_string()))?;
        let found = all(name, found)?;
        if found.is_empty() { Err(unknown("it has no address".into())) } else { Ok(found) }
    }
}

/// Checks all that a name has led to.
pub fn all(
    name: &str,
    addresses: impl IntoIterator<Item = SocketAddr>,
) -> Result<Vec<Loopback>, NotLoopback> {
    let named = |address| NotLoopback::Remote { address, name: Some(name.to_owned()) };
    addresses.into_iter().map(|address| Loopback::try_from(address).map_err(|_| named(address))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn non_loopback_addresses_are_rejected() {
        for here in ["127.0.0.1:1", "127.9.8.7:53", "[::1]:7100", "[::ffff:127.0.0.1]:7100"] {
            assert!(Loopback::try_from(address(here)).is_ok(), "{here}");
        }
        for elsewhere in [
            "0.0.0.0:1",
            "10.0.0.1:1",
            "128.0.0.1:1",
            "192.0.2.1:53",
            "[::]:1",
            "[fe80::1]:1",
            "[::ffff:10.0.0.1]:1",
        ] {
            assert!(Loopback::try_from(address(elsewhere)).is_err(), "{elsewhere}");
        }
    }

    #[test]
    fn name_with_one_remote_address_is_rejected() {
        let mixed = [address("127.0.0.1:7100"), address("192.0.2.7:7100")];
        let error = all("login.example", mixed).unwrap_err();
        assert_eq!(
            error.to_string(),
            "192.0.2.7:7100 (login.example) is not a loopback address: this tool attacks nothing but the machine it \
             runs on"
        );
    }

    #[test]
    fn deserialized_address_must_be_loopback() {
        assert!(serde_json::from_str::<Loopback>("\"127.0.0.1:53\"").is_ok());
        assert!(serde_json::from_str::<Loopback>("\"192.0.2.1:53\"").is_err());
    }

    #[tokio::test]
    async fn resolved_addresses_must_be_loopback() {
        assert!(Loopback::resolve("localhost:53").await.is_ok());
        assert!(matches!(Loopback::resolve("192.0.2.1:53").await, Err(NotLoopback::Remote { .. })));
        assert!(matches!(Loopback::resolve("no port").await, Err(NotLoopback::Unknown { .. })));
    }
}
