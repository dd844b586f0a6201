//! The zone: which names it has, and what each says. Pure: a view becomes a table of encoded answers.
//!
//! | name | records |
//! | --- | --- |
//! | `<zone>` | SOA, NS |
//! | `login.<zone>`, `gateway.<zone>`, `ns.<zone>` | A, AAAA of the replicas that are up |
//! | `_shardkeep._tcp.login.<zone>`, `_shardkeep._tcp.gateway.<zone>` | SRV: the replicas with ports and weights |
//! | `<instance>.login.<zone>`, `<instance>.gateway.<zone>` | A, AAAA of that replica: the targets of SRV |

use std::{collections::hash_map, net::IpAddr};

use hickory_proto::{ProtoError, rr::Name, serialize::binary::BinEncodable};

use crate::{
    Config,
    table::{Entry, RecordGroup, RecordSet, Records, RegionalSets, Soa, Table, pointer_to},
    view::{Service, Target, View},
    wire::{HEADER, MAX_LABEL, MAX_NAME, class, kind},
};

/// Whom SRV names are for.
const SRV_SERVICES: [Service; 2] = [Service::Login, Service::Gateway];
/// The labels that make a service's name one of SRV (RFC 2782).
const SRV: &[u8] = b"\x0a_shardkeep\x04_tcp";
const TCP: &[u8] = b"\x04_tcp";
const HOSTMASTER: &str = "hostmaster";
/// SOA timers for secondaries, which this zone has none of (RFC 1912, 2.2).
const REFRESH: u32 = 3600;
const RETRY: u32 = 600;
const EXPIRE: u32 = 86_400;

/// The zone's name and the rules of its answers.
pub(crate) struct Zone {
    /// On the wire, as the settings write it.
    origin: Vec<u8>,
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
            ttl: config.ttl_s,
            negative_ttl: config.negative_ttl_s,
            max_answers: config.max_answers,
            regions: config.regions.keys().cloned().collect(),
        })
    }

    /// Everything there is to say about this view.
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
        for service in Service::ALL {
            add_entry(&[&label(service.label())], self.service(view, service));
        }
        for service in SRV_SERVICES {
            let service_label = label(service.label());
            add_entry(&[SRV, &service_label], self.srv(view, service));
            // Has a name below it, but no records (RFC 4592, 2.2.2).
            add_entry(&[TCP, &service_label], Entry::default());
            for target in view.targets(service).iter().filter(|target| is_label(&target.name)) {
                add_entry(&[&label(&target.name), &service_label], self.instance(target));
            }
        }
        table
    }

    fn apex(&self, view: &View) -> Entry {
        let mut soa = Records { count: 1, ..Records::default() };
        self.soa(view, self.ttl).write(HEADER, &mut soa.bytes);
        let soa = || RecordSet::single(RecordGroup { answers: soa.clone(), additionals: Records::default() });
        let name_server = [&label(Service::NameServer.label())[..], &pointer_to(HEADER)].concat();
        let mut ns = RecordGroup::default();
        ns.answers.add(&self.record(&pointer_to(HEADER), kind::NS, &name_server));
        for target in view.targets(Service::NameServer).iter().take(self.max_answers) {
            self.addresses(&name_server, target, |_| true, &mut ns.additionals);
        }
        // ANY gets one record set, as RFC 8482 (4.1) allows: it is asked by tools and by floods.
        let sets = [(kind::SOA, soa()), (kind::ANY, soa()), (kind::NS, RecordSet::single(ns))];
        Entry { sets: sets.map(|(kind, set)| (kind, RegionalSets::all_regions(set))).into(), unknown: false }
    }

    fn service(&self, view: &View, service: Service) -> Entry {
        let targets = view.targets(service);
        let sets = [kind::A, kind::AAAA, kind::ANY].map(|qtype| {
            let group = |target: &Target| {
                let group = self.address_group(target, qtype);
                (group.answers.count > 0).then_some(group)
            };
            (qtype, self.steered(targets, group))
        });
        Entry { sets: sets.into(), unknown: unknown(view, service) }
    }

    fn srv(&self, view: &View, service: Service) -> Entry {
        let sets = [kind::SRV, kind::ANY].map(|qtype| {
            (qtype, self.steered(view.targets(service), |target| self.srv_group(target, service)))
        });
        Entry { sets: sets.into(), unknown: unknown(view, service) }
    }

    fn instance(&self, target: &Target) -> Entry {
        let sets = [kind::A, kind::AAAA, kind::ANY].map(|qtype| (qtype, self.address_group(target, qtype)));
        let sets = sets.into_iter().filter(|(_, group)| group.answers.count > 0);
        let sets = sets.map(|(qtype, group)| (qtype, RegionalSets::all_regions(RecordSet::single(group))));
        Entry { sets: sets.collect(), unknown: false }
    }

    /// The same pieces for everybody and for each region.
    fn steered(&self, targets: &[Target], group: impl Fn(&Target) -> Option<RecordGroup>) -> RegionalSets {
        let set = |targets: &mut dyn Iterator<Item = &Target>| {
            let (weights, groups): (Vec<u16>, Vec<RecordGroup>) =
                targets.filter_map(|target| Some((target.weight, group(target)?))).unzip();
            RecordSet::new(groups, weights.into_iter(), self.max_answers)
        };
        let regions = self.regions.iter().map(|region| {
            let set = set(&mut targets.iter().filter(|target| target.region == *region));
            (!set.groups.is_empty()).then_some(set)
        });
        RegionalSets { all_regions: set(&mut targets.iter()), regions: regions.collect() }
    }

    /// The address records of a target that a question of this type gets. ANY gets IPv4 if there is any, else IPv6.
    fn address_group(&self, target: &Target, qtype: u16) -> RecordGroup {
        let ipv4 = match qtype {
            kind::A => true,
            kind::AAAA => false,
            _ => target.addresses.iter().any(IpAddr::is_ipv4),
        };
        let mut group = RecordGroup::default();
        self.addresses(&pointer_to(HEADER), target, |it| it.is_ipv4() == ipv4, &mut group.answers);
        group
    }

    fn srv_group(&self, target: &Target, service: Service) -> Option<RecordGroup> {
        // The name must be one label; the target of SRV is not compressed (RFC 2782).
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
        group.answers.add(&self.record(&pointer_to(HEADER), kind::SRV, &data));
        // In the question the service's name stands behind the labels of SRV.
        let owner = [&name[..], &pointer_to(HEADER + SRV.len())].concat();
        self.addresses(&owner, target, |_| true, &mut group.additionals);
        Some(group)
    }

    fn addresses(
        &self,
        owner: &[u8],
        target: &Target,
        wanted: impl Fn(&IpAddr) -> bool,
        records: &mut Records,
    ) {
        for address in target.addresses.iter().filter(|address| wanted(address)) {
            let record = match address {
                IpAddr::V4(address) => self.record(owner, kind::A, &address.octets()),
                IpAddr::V6(address) => self.record(owner, kind::AAAA, &address.octets()),
            };
            records.add(&record);
        }
    }

    fn record(&self, owner: &[u8], kind: u16, data: &[u8]) -> Vec<u8> {
        record(owner, kind, self.ttl, data)
    }

    fn soa(&self, view: &View, ttl: u32) -> Soa {
        let unknown_yet = pointer_to(0);
        let name_server = [&label(Service::NameServer.label())[..], &unknown_yet].concat();
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

/// Whether there may be replicas that no registry has told us of yet.
fn unknown(view: &View, service: Service) -> bool {
    !view.registry_answered && view.targets(service).is_empty()
}

/// An instance name with a dot would be two labels.
fn is_label(name: &str) -> bool {
    (1..=MAX_LABEL).contains(&name.len()) && !name.contains('.')
}

fn label(text: &str) -> Vec<u8> {
    let mut label = vec![text.len() as u8];
    label.extend_from_slice(text.as_bytes());
    label
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
