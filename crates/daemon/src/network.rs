//! Networks in settings: `10.0.0.0/8`, `2001:db8::/32`, or a single address.

use std::{fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Any number of networks. In settings a list of texts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Networks(Vec<Network>);

impl Networks {
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(address))
    }
}

impl FromIterator<Network> for Networks {
    fn from_iter<I: IntoIterator<Item = Network>>(networks: I) -> Self {
        Self(networks.into_iter().collect())
    }
}

/// Addresses that begin alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u32,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not a network such as 10.0.0.0/8, 2001:db8::/32 or 192.0.2.1")]
pub struct NetworkError(String);

impl Network {
    fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(network), IpAddr::V4(candidate)) => {
                (network.to_bits() ^ candidate.to_bits()).leading_zeros() >= self.bits
            }
            (IpAddr::V6(network), IpAddr::V6(candidate)) => {
                (network.to_bits() ^ candidate.to_bits()).leading_zeros() >= self.bits
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let wrong = || NetworkError(text.to_owned());
        let (address, bits) =
            text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let max_bits = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(max_bits), str::parse).map_err(|_| wrong())?;
        if bits <= max_bits { Ok(Self { address, bits }) } else { Err(wrong()) }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(texts: &[&str]) -> Networks {
        texts.iter().map(|text| text.parse::<Network>().unwrap()).collect()
    }

    #[test]
    fn networks_contain_only_their_addresses() {
        let networks = networks(&["10.0.0.0/8", "192.0.2.1", "2001:db8::/33"]);
        let contains = |text: &str| networks.contains(text.parse().unwrap());
        for inside in ["10.255.0.1", "192.0.2.1", "2001:db8:7fff::1", "::ffff:10.1.2.3"] {
            assert!(contains(inside), "{inside}");
        }
        for outside in ["11.0.0.1", "192.0.2.2", "2001:db8:8000::1", "::1"] {
            assert!(!contains(outside), "{outside}");
        }
        assert!(!Networks::default().contains([127, 0, 0, 1].into()));
        assert!("0.0.0.0/0".parse::<Network>().unwrap().contains([8, 8, 8, 8].into()));
    }

    #[test]
    fn invalid_network_text_is_refused() {
        for text in ["", "10.0.0.0/33", "::/129", "10.0.0.0/", "ten/8", "10.0.0.0/-1"] {
            assert_eq!(text.parse::<Network>(), Err(NetworkError(text.into())));
        }
    }

    #[test]
    fn network_text_round_trips() {
        for text in ["10.0.0.0/8", "2001:db8::/32"] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), text);
        }
        assert_eq!("::1".parse::<Network>().unwrap().to_string(), "::1/128");
    }
}
