//! A view: the replicas that answers may name, with addresses, ports and weights. A new view replaces the old one when
//! something changes in the registries.

use std::{net::IpAddr, time::Duration};

use futures::future::join_all;
use shardkeep_cluster::{Instance, REGION_ATTRIBUTE, State};
use tracing::warn;

const RESOLVE_DEADLINE: Duration = Duration::from_secs(1);

/// The services that have names: `login.<zone>`, `gateway.<zone>`, `ns.<zone>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    Login,
    Gateway,
    NameServer,
}

impl Service {
    pub(crate) const ALL: [Self; 3] = [Self::Login, Self::Gateway, Self::NameServer];

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Gateway => "gateway",
            Self::NameServer => "ns",
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct View {
    /// Whether a registry has answered. Before that, an empty list means "unknown".
    pub(crate) registry_answered: bool,
    /// SOA serial: the time of this view, in seconds since the Unix epoch.
    pub(crate) serial: u32,
    login: Vec<Target>,
    gateway: Vec<Target>,
    name_server: Vec<Target>,
}

/// One replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) port: u16,
    /// 1 to 100, computed from the reported load.
    pub(crate) weight: u16,
    /// Region of the replica, or empty.
    pub(crate) region: String,
}

impl View {
    pub(crate) fn new(registry_answered: bool, serial: u32) -> Self {
        Self { registry_answered, serial, ..Self::default() }
    }

    pub(crate) fn targets(&self, service: Service) -> &[Target] {
        match service {
            Service::Login => &self.login,
            Service::Gateway => &self.gateway,
            Service::NameServer => &self.name_server,
        }
    }

    pub(crate) fn set_targets(&mut self, service: Service, targets: Vec<Target>) {
        match service {
            Service::Login => self.login = targets,
            Service::Gateway => self.gateway = targets,
            Service::NameServer => self.name_server = targets,
        }
    }

    /// Whether both views give the same answers.
    pub(crate) fn same_except_serial(&self, other: &Self) -> bool {
        let without_serial = |view: &Self| Self { serial: 0, ..view.clone() };
        without_serial(self) == without_serial(other)
    }
}

/// The instances that accept players. Full instances are left out unless all are full.
pub(crate) async fn targets(instances: &[Instance]) -> Vec<Target> {
    let up: Vec<&Instance> = instances.iter().filter(|instance| instance.state == State::Up).collect();
    let any_has_capacity = up.iter().any(|instance| instance.load < 1.0);
    let accepting = up.into_iter().filter(|instance| instance.load < 1.0 || !any_has_capacity);
    // In parallel, so that several names that cannot be resolved take one deadline together.
    join_all(accepting.map(target)).await.into_iter().flatten().collect()
}

async fn target(instance: &Instance) -> Option<Target> {
    let (host, port) = instance.client_address.rsplit_once(':')?;
    let port = port.parse().ok()?;
    let addresses = resolve(host, port).await;
    if addresses.is_empty() {
        warn!(instance = %instance.id, address = instance.client_address, "cannot resolve the advertised address of a replica, so DNS leaves the replica out");
        return None;
    }
    let region = instance.attributes.get(REGION_ATTRIBUTE).cloned().unwrap_or_default();
    Some(Target { name: instance.id.name.clone(), addresses, port, weight: weight(instance.load), region })
}

/// An idle replica has a hundred times the weight of a full one.
fn weight(load: f64) -> u16 {
    ((1.0 - load.clamp(0.0, 1.0)) * 100.0).round().max(1.0) as u16
}

/// The addresses of a numeric address or a host name, each once. Container networks advertise host names.
async fn resolve(host: &str, port: u16) -> Vec<IpAddr> {
    if let Ok(address) = host.trim_matches(['[', ']']).parse() {
        return vec![address];
    }
    match tokio::time::timeout(RESOLVE_DEADLINE, tokio::net::lookup_host((host, port))).await {
        Ok(Ok(found)) => {
            let mut addresses: Vec<IpAddr> = found.map(|address| address.ip().to_canonical()).collect();
            addresses.sort_unstable();
            addresses.dedup();
            addresses
        }
        Ok(Err(_)) | Err(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use shardkeep_types::{DaemonKind, InstanceId};

    use super::*;

    fn instance(name: &str, state: State, address: &str, load: f64) -> Instance {
        let id = InstanceId { kind: DaemonKind::Gateway, name: name.into(), incarnation: 1 };
        Instance { client_address: address.into(), load, ..Instance::new(id, state) }
    }

    #[tokio::test]
    async fn only_accepting_instances_become_targets() {
        let instances = [
            instance("up", State::Up, "203.0.113.1:4000", 0.25),
            instance("six", State::Up, "[2001:db8::1]:4000", 0.0),
            instance("full", State::Up, "203.0.113.2:4000", 1.0),
            instance("draining", State::Draining, "203.0.113.3:4000", 0.0),
            instance("offline", State::Offline, "203.0.113.4:4000", 0.0),
            instance("silent", State::Up, "", 0.0),
        ];
        let found = targets(&instances).await;
        let summary: Vec<_> = found.iter().map(|t| (t.name.as_str(), t.port, t.weight)).collect();
        assert_eq!(summary, [("up", 4000, 75), ("six", 4000, 100)]);
        let full = targets(&instances[2..3]).await;
        assert_eq!(full[0].weight, 1, "a full replica is named when all are full");
    }
}
