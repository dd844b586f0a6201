//! A stub resolver for one given server: SRV and address records over UDP, over TCP when the answer was cut, with
//! time-outs and repeats. Nothing is cached: answers live for seconds, and a fresh one is the load balancing.

pub(crate) mod error;
mod exchange;
mod select;

use std::{
    net::{IpAddr, SocketAddr},
    str::FromStr,
    time::Duration,
};

use hickory_proto::rr::{Name, RData, RecordType};

pub use error::DnsError;

use select::{Candidate, order_candidates};

/// Asks one server.
#[derive(Debug, Clone)]
pub struct Resolver {
    server: SocketAddr,
    /// For one attempt.
    pub timeout: Duration,
    pub attempts: u32,
}

impl Resolver {
    pub fn new(server: SocketAddr) -> Self {
        Self { server, timeout: Duration::from_secs(1), attempts: 3 }
    }

    pub fn server(&self) -> SocketAddr {
        self.server
    }

    /// Addresses of the service `_shardkeep._tcp.<host>`, in the order to try them (RFC 2782).
    pub async fn service(&self, host: &str) -> Result<Vec<SocketAddr>, DnsError> {
        let name = parse(&format!("_shardkeep._tcp.{host}"))?;
        let response = self.lookup(&name, RecordType::SRV).await?;
        let candidates: Vec<_> = response
            .answers
            .iter()
            .filter_map(|record| match &record.data {
                RData::SRV(srv) if record.name == name => Some(srv),
                _ => None,
            })
            .map(|srv| Candidate {
                priority: srv.priority,
                weight: srv.weight,
                port: srv.port,
                target: srv.target.clone(),
            })
            .collect();

        let (mut addresses, mut last) = (Vec::new(), None);
        for candidate in order_candidates(candidates, crate::random::below) {
            let glue = response.additionals.iter().filter(|record| record.name == candidate.target);
            let mut ips: Vec<IpAddr> = glue.filter_map(|record| record.data.ip_addr()).collect();
            if ips.is_empty() {
                // One target without an address leaves the others usable.
                match self.addresses_of(&candidate.target).await {
                    Ok(found) => ips = found,
                    Err(error) => last = Some(error),
                }
            }
            addresses.extend(ips.into_iter().map(|ip| SocketAddr::new(ip, candidate.port)));
        }
        match last {
            _ if !addresses.is_empty() => Ok(addresses),
            Some(error) => Err(error),
            None => Err(DnsError::NoRecords { name, kind: RecordType::SRV }),
        }
    }

    /// A, or else AAAA records of a host.
    pub async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, DnsError> {
        self.addresses_of(&parse(host)?).await
    }

    async fn addresses_of(&self, name: &Name) -> Result<Vec<IpAddr>, DnsError> {
        for kind in [RecordType::A, RecordType::AAAA] {
            let response = self.lookup(name, kind).await?;
            let found: Vec<_> = response.answers.iter().filter_map(|record| record.data.ip_addr()).collect();
            if !found.is_empty() {
                return Ok(found);
            }
        }
        Err(DnsError::NoRecords { name: name.clone(), kind: RecordType::A })
    }
}

fn parse(host: &str) -> Result<Name, DnsError> {
    let mut name = Name::from_str(host).map_err(|source| DnsError::Name { name: host.to_owned(), source })?;
    name.set_fqdn(true);
    Ok(name)
}
