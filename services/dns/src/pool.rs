//! Address pools: lists of addresses that replace the live replicas in answers. An operator switches to a pool to move
//! players away from flooded addresses.
//!
//! The replica that receives the command publishes the switch as an attribute in the registry. Other replicas, and a
//! replica that restarts, follow the latest switch in the registry. When all replicas restart together, `dns.pool`
//! decides.

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Serialize};
use shardkeep_cluster::Instance;

use crate::view::{Service, Target};

/// Name of the pool of the live replicas, which the registry lists.
pub(crate) const LIVE: &str = "live";
/// The registry attribute that carries a [`Switch`].
pub(crate) const ATTRIBUTE: &str = "pool";

/// `[dns.pools.<name>]`: numeric addresses with ports. For a service with an empty list, answers name the live replicas.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pool {
    pub login: Vec<String>,
    pub gateway: Vec<String>,
}

impl Pool {
    /// The replicas that replace the live ones, or `None` if the pool lists none for this service.
    pub(crate) fn targets(&self, service: Service) -> Option<Vec<Target>> {
        let addresses = match service {
            Service::Login => &self.login,
            Service::Gateway => &self.gateway,
            Service::NameServer => return None,
        };
        let targets: Vec<Target> = addresses.iter().enumerate().filter_map(target).collect();
        (!targets.is_empty()).then_some(targets)
    }

    pub(crate) fn validate(&self) -> Result<(), String> {
        match self.login.iter().chain(&self.gateway).find(|address| parse(address).is_none()) {
            Some(wrong) => Err(format!("{wrong:?} is not an address with a port, such as 203.0.113.9:3724")),
            None => Ok(()),
        }
    }
}

fn target((at, address): (usize, &String)) -> Option<Target> {
    let (address, port) = parse(address)?;
    let name = format!("pool-{}", at + 1);
    Some(Target { name, addresses: vec![address], port, weight: 1, region: String::new() })
}

fn parse(address: &str) -> Option<(IpAddr, u16)> {
    address.parse::<std::net::SocketAddr>().ok().map(|address| (address.ip(), address.port()))
}

/// The choice of an operator, with its time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Switch {
    /// Milliseconds since the Unix epoch; 0: the choice comes from the settings.
    pub(crate) since_ms: u64,
    pub(crate) pool: String,
}

impl Switch {
    pub(crate) fn attribute(&self) -> String {
        format!("{} {}", self.since_ms, self.pool)
    }

    pub(crate) fn from_attribute(text: &str) -> Option<Self> {
        let (since_ms, pool) = text.split_once(' ')?;
        Some(Self { since_ms: since_ms.parse().ok()?, pool: pool.to_owned() })
    }

    /// The latest of `ours` and the switches of other replicas. Switches to pools that are not configured here are ignored.
    pub(crate) fn latest(ours: Self, others: &[Instance], pools: &BTreeMap<String, Pool>) -> Self {
        others
            .iter()
            .filter_map(|instance| Self::from_attribute(instance.attributes.get(ATTRIBUTE)?))
            .filter(|switch| exists(pools, &switch.pool))
            .fold(ours, Self::max)
    }
}

pub(crate) fn exists(pools: &BTreeMap<String, Pool>, name: &str) -> bool {
    name == LIVE || pools.contains_key(name)
}

#[cfg(test)]
mod tests {
    use shardkeep_cluster::State;
    use shardkeep_types::{DaemonKind, InstanceId};

    use super::*;

    fn replica(attribute: &str) -> Instance {
        let id = InstanceId { kind: DaemonKind::Dns, name: "dns-2".into(), incarnation: 1 };
        Instance {
            attributes: BTreeMap::from([(ATTRIBUTE.to_owned(), attribute.to_owned())]),
            ..Instance::new(id, State::Up)
        }
    }

    #[test]
    fn latest_known_switch_wins() {
        let pools = BTreeMap::from([("shelter".to_owned(), Pool::default())]);
        let ours = Switch { since_ms: 5, pool: LIVE.into() };
        let follow = |attribute| Switch::latest(ours.clone(), &[replica(attribute)], &pools).pool;
        assert_eq!(follow("7 shelter"), "shelter");
        for ignored in ["3 shelter", "9 unknown", "x shelter", "", "9"] {
            assert_eq!(follow(ignored), LIVE, "{ignored}");
        }
        let switch = Switch { since_ms: 9, pool: "shelter".into() };
        assert_eq!(Switch::from_attribute(&switch.attribute()), Some(switch));
    }

    #[test]
    fn pool_replaces_only_listed_services() {
        let pool =
            Pool { login: vec!["203.0.113.9:3724".into(), "[2001:db8::9]:3724".into()], ..Pool::default() };
        let targets = pool.targets(Service::Login).unwrap();
        assert_eq!(targets.iter().map(|target| target.port).collect::<Vec<_>>(), [3724, 3724]);
        assert!(pool.targets(Service::Gateway).is_none());
        assert!(Pool { gateway: vec!["gateway:1".into()], ..Pool::default() }.validate().is_err());
    }
}
