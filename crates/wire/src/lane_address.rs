//! The addresses of a gateway's lanes. A lane without an entry has the gateway's own address. Daemons learn the addresses
//! of other gateways from attributes in the registry: `lane.wss` is `play.example:443`, or with the name in the
//! certificate `play.example:443 play.example`.

use std::collections::BTreeMap;

use crate::payload::{Lane, LaneAddress};

const PREFIX: &str = "lane.";

/// Where the lane of a server is, which has `server` as its own address.
pub fn address_of<'a>(lane: Lane, server: &'a str, lanes: &'a [LaneAddress]) -> &'a str {
    lanes.iter().find(|it| it.lane() == lane).map_or(server, |it| it.address.as_str())
}

impl LaneAddress {
    /// Key and value of the attribute in the registry.
    pub fn to_attribute(&self) -> (String, String) {
        let key = format!("{PREFIX}{}", name(self.lane()));
        let value = format!("{} {}", self.address, self.certificate_name);
        (key, value.trim_end().to_owned())
    }

    /// Reads the attributes of an instance. Lanes that this version does not know are left out.
    pub fn from_attributes(attributes: &BTreeMap<String, String>) -> Vec<Self> {
        let read = |(key, value): (&String, &String)| {
            let lane = key.strip_prefix(PREFIX)?;
            let lane =
                [Lane::Tcp, Lane::Quic, Lane::Ws, Lane::Wss].into_iter().find(|it| name(*it) == lane)?;
            let (address, certificate_name) = value.split_once(' ').unwrap_or((value, ""));
            let (address, certificate_name) = (address.to_owned(), certificate_name.to_owned());
            Some(Self { lane: lane.into(), address, certificate_name })
        };
        attributes.iter().filter_map(read).collect()
    }
}

fn name(lane: Lane) -> &'static str {
    match lane {
        Lane::Unspecified => "unspecified",
        Lane::Tcp => "tcp",
        Lane::Quic => "quic",
        Lane::Ws => "ws",
        Lane::Wss => "wss",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lane_addresses_round_trip_through_attributes() {
        let named = LaneAddress {
            lane: Lane::Wss.into(),
            address: "play.example:443".into(),
            certificate_name: "play.example".into(),
        };
        let unnamed =
            LaneAddress { lane: Lane::Quic.into(), address: "[::1]:7200".into(), ..Default::default() };
        let mut attributes = BTreeMap::from([unnamed.to_attribute(), named.to_attribute()]);
        attributes.insert("lane.carrier-pigeon".into(), "roof:1".into());
        attributes.insert("region".into(), "eu".into());
        let lanes = LaneAddress::from_attributes(&attributes);
        assert_eq!(lanes, [unnamed, named]);
        assert_eq!(address_of(Lane::Wss, "gateway:7200", &lanes), "play.example:443");
        assert_eq!(address_of(Lane::Tcp, "gateway:7200", &lanes), "gateway:7200");
    }
}
