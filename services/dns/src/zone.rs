//! The zone: its names and their records. Pure: turns a view into a table of encoded answers.
//!
//! | name | records |
//! | --- | --- |
//! | `<zone>` | SOA, NS |
//! | `<name>.<zone>` of `dns.name_servers` | A, AAAA from the settings |
//! | `ns.<zone>` | A, AAAA of the DNS replicas that are up |
//! | `login.<zone>`, `gateway.<zone>` | A, AAAA of the replicas that are up |
//! | `_shardkeep._tcp.login.<zone>`, `_shardkeep._tcp.gateway.<zone>` | SRV: the replicas with ports and weights |
//! | `<instance>.login.<zone>`, `<instance>.gateway.<zone>` | A, AAAA of that replica: the targets of SRV |
//!
//! The NS records name the servers of `dns.name_servers`, which the parent zone names too. They and their addresses
//! have a long TTL: resolvers replace the parent's records by these, and must be able to reach a name server after
//! the short TTL of the other records (RFC 2181, 5.4.1). Without `dns.name_servers` the one NS record names `ns`.

use std::{
    collections::{BTreeMap, hash_map},
    net::IpAddr,
};

use hickory_proto::{ProtoError, rr::Name, serialize::binary::BinEncodable};

use crate::{
    Config,
    table::{Entry, RecordGroup, RecordSet, Records, RegionalSets, Soa, Table, pointer_to},
    view::{Service, Target, View},
    wire::{HEADER, MAX_LABEL, MAX_NAME, class, kind},
};

/// The services that have SRV records.
const SRV_SERVICES: [Service; 2] = [Service::Login, Service::Gateway];
/// The labels before a service's name in the owner of its SRV records (RFC 2782).
const SRV: &[u8] = b"\x0a_shardkeep\x04_tcp";
const TCP: &[u8] = b"\x04_tcp";
const HOSTMASTER: &str = "hostmaster";
/// SOA timers for secondaries (RFC 1912, 2.2). This zone has no secondaries.
const REFRESH: u32 = 3600;
const RETRY: u32 = 600;
const EXPIRE: u32 = 86_400;

/// The zone's name and the rules of its answers.
pub(crate) struct Zone {
    /// In wire format, with the letter case of the settings.
    origin: Vec<u8>,
    /// Addresses of the name servers from the settings, by the label below the zone.
    name_servers: BTreeMap<String, Vec<IpAddr>>,
    name_server_ttl: u32,
    ttl: u32,
    negative_ttl: u32,
    max_answers: usize,
    regions: Vec<String>,
}

impl Zone {
    /// # Errors
    /// When the text is not a domain name.
    pub(crate) fn new(origin: &str, config: &Config) -> Result<Self, ProtoError> {
        let mut origin = Name::from_ascii(origin)?;
        origin.set_fqdn(true);
        Ok(Self {
            origin: origin.to_bytes()?,
            name_servers: config.name_servers.clone(),
            name_server_ttl: config.name_server_ttl_s,
            ttl: config.ttl_s,
            negative_ttl: config.negative_ttl_s,
            max_answers: config.max_answers,
            regions: config.regions.keys().cloned().collect(),
        })
    }

    /// All answers for this view.
    pub(crate) fn table(&self, view: &View) -> Table {
        let mut table = Table {
            origin: self.origin.to_ascii_lowercase().into(),
            negative: self.soa(view, self.negative_ttl),
            registry_answered: view.registry_answered,
            ..Table::default()
        };
        let mut add_entry = |labels: &[&[u8]], entry| {
            let name = labels.concat().to_ascii_lowercase();
            if name.len() + self.origin.len() <= MAX_NAME
                && let hash_map::Entry::Vacant(vacant) = table.names.entry(name.into())
            {
                vacant.insert(entry);
            }
        };
        add_entry(&[], self.apex(view));
        for (name, addresses) in &self.name_servers {
            add_entry(&[&label(name)], self.address_entry(addresses, self.name_server_ttl));
        }
        for service in Service::ALL {
            add_entry(&[&label(service.label())], self.service(view, service));
        }
        for service in SRV_SERVICES {
            let service_label = label(service.label());
            add_entry(&[SRV, &service_label], self.srv(view, service));
            // An empty non-terminal: no records, but a name below it (RFC 4592, 2.2.2).
            add_entry(&[TCP, &service_label], Entry::default());
            for target in view.targets(service).iter().filter(|target| is_label(&target.name)) {
                add_entry(
                    &[&label(&target.name), &service_label],
                    self.address_entry(&target.addresses, self.ttl),
                );
            }
        }
        table
    }

    fn apex(&self, view: &View) -> Entry {
        let mut soa = Records { count: 1, ..Records::default() };
        self.soa(view, self.ttl).write(HEADER, &mut soa.bytes);
        let soa = || RecordSet::single(RecordGroup { answers: soa.clone(), additionals: Records::default() });
        let mut ns = RecordGroup::default();
        let mut add_server = |name: &str, addresses: &[IpAddr]| {
            let host = [&label(name)[..], &pointer_to(HEADER)].concat();
            ns.answers.add(&record(&pointer_to(HEADER), kind::NS, self.name_server_ttl, &host));
            for address in addresses {
                ns.additionals.add(&address_record(&host, self.name_server_ttl, address));
            }
        };
        if self.name_servers.is_empty() {
            let live = addresses(view.targets(Service::NameServer)).into_iter().take(self.max_answers);
            let live: Vec<IpAddr> = live.map(|(address, _)| address).collect();
            add_server(Service::NameServer.label(), &live);
        }
        for (name, addresses) in &self.name_servers {
            add_server(name, addresses);
        }
        // RFC 8482 (4.1) allows one record set in answer to ANY. Few clients send ANY, and floods do.
        let sets = [(kind::SOA, soa()), (kind::ANY, soa()), (kind::NS, RecordSet::single(ns))];
        Entry { sets: sets.map(|(kind, set)| (kind, RegionalSets::all_regions(set))).into(), unknown: false }
    }

    /// The addresses of a service. Replicas at one address share a record, which is drawn by the sum of their weights.
    fn service(&self, view: &View, service: Service) -> Entry {
        let ttl = match service {
            Service::Login | Service::Gateway => self.ttl,
            Service::NameServer => self.name_server_ttl,
        };
        let sets = [kind::A, kind::AAAA, kind::ANY].map(|qtype| {
            let set = |targets: &[&Target]| {
                let addresses = addresses(targets.iter().copied());
                let wanted = wanted_family(qtype, addresses.iter().map(|(address, _)| address));
                let chosen = addresses.iter().filter(|(address, _)| address.is_ipv4() == wanted);
                let (groups, weights): (Vec<_>, Vec<_>) = chosen
                    .map(|(address, weight)| {
                        let mut group = RecordGroup::default();
                        group.answers.add(&address_record(&pointer_to(HEADER), ttl, address));
                        (group, *weight)
                    })
                    .unzip();
                RecordSet::new(groups, weights.into_iter(), self.max_answers)
            };
            (qtype, self.by_region(view.targets(service), set))
        });
        Entry { sets: sets.into(), unknown: unknown(view, service) }
    }

    fn srv(&self, view: &View, service: Service) -> Entry {
        let sets = [kind::SRV, kind::ANY].map(|qtype| {
            let set = |targets: &[&Target]| {
                let (groups, weights): (Vec<_>, Vec<_>) = targets
                    .iter()
                    .filter_map(|target| Some((self.srv_group(target, service)?, target.weight)))
                    .unzip();
                RecordSet::new(groups, weights.into_iter(), self.max_answers)
            };
            (qtype, self.by_region(view.targets(service), set))
        });
        Entry { sets: sets.into(), unknown: unknown(view, service) }
    }

    /// A name whose addresses are always given whole.
    fn address_entry(&self, addresses: &[IpAddr], ttl: u32) -> Entry {
        let sets = [kind::A, kind::AAAA, kind::ANY].map(|qtype| {
            let wanted = wanted_family(qtype, addresses.iter());
            let mut group = RecordGroup::default();
            for address in addresses.iter().filter(|address| address.is_ipv4() == wanted) {
                group.answers.add(&address_record(&pointer_to(HEADER), ttl, address));
            }
            (qtype, group)
        });
        let sets = sets.into_iter().filter(|(_, group)| group.answers.count > 0);
        let sets = sets.map(|(qtype, group)| (qtype, RegionalSets::all_regions(RecordSet::single(group))));
        Entry { sets: sets.collect(), unknown: false }
    }

    /// The records of all targets, and those of each region that has targets.
    fn by_region(&self, targets: &[Target], set: impl Fn(&[&Target]) -> RecordSet) -> RegionalSets {
        let regions = self.regions.iter().map(|region| {
            let near: Vec<&Target> = targets.iter().filter(|target| target.region == *region).collect();
            let set = set(&near);
            (!set.groups.is_empty()).then_some(set)
        });
        let all: Vec<&Target> = targets.iter().collect();
        RegionalSets { all_regions: set(&all), regions: regions.collect() }
    }

    fn srv_group(&self, target: &Target, service: Service) -> Option<RecordGroup> {
        // The name must be one label. RFC 2782 forbids to compress the target.
        let (name, service_label) = (label(&target.name), label(service.label()));
        let host = [&name[..], &service_label, &self.origin].concat();
        if !is_label(&target.name) || host.len() > MAX_NAME {
            return None;
        }
        let mut data = vec![0; 2];
        data.extend_from_slice(&target.weight.to_be_bytes());
        data.extend_from_slice(&target.port.to_be_bytes());
        data.extend_from_slice(&host);
        let mut group = RecordGroup::default();
        group.answers.add(&record(&pointer_to(HEADER), kind::SRV, self.ttl, &data));
        // The question holds the service's name after the SRV labels.
        let owner = [&name[..], &pointer_to(HEADER + SRV.len())].concat();
        for address in &target.addresses {
            group.additionals.add(&address_record(&owner, self.ttl, address));
        }
        Some(group)
    }

    fn soa(&self, view: &View, ttl: u32) -> Soa {
        let unknown_yet = pointer_to(0);
        let primary = self.name_servers.keys().next().map_or(Service::NameServer.label(), String::as_str);
        let name_server = [&label(primary)[..], &unknown_yet].concat();
        let mut data = [&name_server[..], &label(HOSTMASTER), &unknown_yet].concat();
        let names = data.len();
        for number in [view.serial, REFRESH, RETRY, EXPIRE, self.negative_ttl] {
            data.extend_from_slice(&number.to_be_bytes());
        }
        let bytes = record(&unknown_yet, kind::SOA, ttl, &data);
        let start = bytes.len() - data.len();
        let pointers = [0, start + name_server.len() - 2, start + names - 2];
        Soa::new(bytes, pointers)
    }
}

/// The addresses of these replicas, each once, with the sum of the weights of the replicas that have it.
fn addresses<'a>(targets: impl IntoIterator<Item = &'a Target>) -> Vec<(IpAddr, u16)> {
    let mut found: Vec<(IpAddr, u16)> = Vec::new();
    for target in targets {
        for address in &target.addresses {
            match found.iter_mut().find(|(known, _)| known == address) {
                Some((_, weight)) => *weight = weight.saturating_add(target.weight),
                None => found.push((*address, target.weight)),
            }
        }
    }
    found
}

/// Whether a question of this type gets IPv4 addresses. ANY gets IPv4 if there are any, else IPv6.
fn wanted_family<'a>(qtype: u16, mut addresses: impl Iterator<Item = &'a IpAddr>) -> bool {
    match qtype {
        kind::A => true,
        kind::AAAA => false,
        _ => addresses.any(IpAddr::is_ipv4),
    }
}

/// Whether there may be replicas that no registry has reported yet.
fn unknown(view: &View, service: Service) -> bool {
    !view.registry_answered && view.targets(service).is_empty()
}

/// An instance name with a dot is two labels.
fn is_label(name: &str) -> bool {
    (1..=MAX_LABEL).contains(&name.len()) && !name.contains('.')
}

fn label(text: &str) -> Vec<u8> {
    let mut label = vec![text.len() as u8];
    label.extend_from_slice(text.as_bytes());
    label
}

fn address_record(owner: &[u8], ttl: u32, address: &IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => record(owner, kind::A, ttl, &address.octets()),
        IpAddr::V6(address) => record(owner, kind::AAAA, ttl, &address.octets()),
    }
}

fn record(owner: &[u8], kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let mut record = owner.to_vec();
    record.extend_from_slice(&kind.to_be_bytes());
    record.extend_from_slice(&class::IN.to_be_bytes());
    record.extend_from_slice(&ttl.to_be_bytes());
    record.extend_from_slice(&(data.len() as u16).to_be_bytes());
    record.extend_from_slice(data);
    record
}

#[cfg(test)]
mod tests;
