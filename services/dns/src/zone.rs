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
    table::{Entry, Piece, Records, Set, Soa, Steered, Table, pointer_to},
    view::{Service, Target, View},
    wire::{HEADER, MAX_LABEL, MAX_NAME, class, kind},
};

/// Whom SRV names are for.
const PLAYERS: [Service; 2] = [Service::Login, Service::Gateway];
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
    most: usize,
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
            most: config.max_answers,
            regions: config.regions.keys().cloned().collect(),
        })
    }

    /// Everything there is to say about this view.
    pub(crate) fn table(&self, view: &View) -> Table {
        let mut table = Table {
            origin: self.origin.to_ascii_lowercase().into(),
            negative: self.soa(view, self.negative_ttl),
            heard: view.heard,
            ..Table::default()
        };
        let mut enter = |labels: &[&[u8]], entry| {
            let name = labels.concat().to_ascii_lowercase();
            if name.len() + self.origin.len() <= MAX_NAME
                && let hash_map::Entry::Vacant(place) = table.names.entry(name.into())
            {
                place.insert(entry);
            }
        };
        enter(&[], self.apex(view));
        for service in Service::ALL {
            enter(&[&label(service.label())], self.service(view, service));
        }
        for service in PLAYERS {
            let below = label(service.label());
            enter(&[SRV, &below], self.srv(view, service));
            // Has a name below it, but no records (RFC 4592, 2.2.2).
            enter(&[TCP, &below], Entry::default());
            for target in view.targets(service).iter().filter(|target| is_label(&target.name)) {
                enter(&[&label(&target.name), &below], self.instance(target));
            }
        }
        table
    }

    fn apex(&self, view: &View) -> Entry {
        let mut soa = Records { count: 1, ..Records::default() };
        self.soa(view, self.ttl).write(HEADER, &mut soa.bytes);
        let soa = || Set::one(Piece { answers: soa.clone(), extras: Records::default() });
        let name_server = [&label(Service::NameServer.label())[..], &pointer_to(HEADER)].concat();
        let mut ns = Piece::default();
        ns.answers.add(&self.record(&pointer_to(HEADER), kind::NS, &name_server));
        for target in view.targets(Service::NameServer).iter().take(self.most) {
            self.addresses(&name_server, target, |_| true, &mut ns.extras);
        }
        // ANY gets one record set, as RFC 8482 (4.1) allows: it is asked by tools and by floods.
        let sets = [(kind::SOA, soa()), (kind::ANY, soa()), (kind::NS, Set::one(ns))];
        Entry { sets: sets.map(|(kind, set)| (kind, Steered::everywhere(set))).into(), unknown: false }
    }

    fn service(&self, view: &View, service: Service) -> Entry {
        let targets = view.targets(service);
        let sets = [kind::A, kind::AAAA, kind::ANY].map(|asked| {
            let piece = |target: &Target| {
                let piece = self.address_piece(target, asked);
                (piece.answers.count > 0).then_some(piece)
            };
            (asked, self.steered(targets, piece))
        });
        Entry { sets: sets.into(), unknown: unknown(view, service) }
    }

    fn srv(&self, view: &View, service: Service) -> Entry {
        let sets = [kind::SRV, kind::ANY].map(|asked| {
            (asked, self.steered(view.targets(service), |target| self.srv_piece(target, service)))
        });
        Entry { sets: sets.into(), unknown: unknown(view, service) }
    }

    fn instance(&self, target: &Target) -> Entry {
        let sets = [kind::A, kind::AAAA, kind::ANY].map(|asked| (asked, self.address_piece(target, asked)));
        let sets = sets.into_iter().filter(|(_, piece)| piece.answers.count > 0);
        let sets = sets.map(|(asked, piece)| (asked, Steered::everywhere(Set::one(piece))));
        Entry { sets: sets.collect(), unknown: false }
    }

    /// The same pieces for everybody and for each region.
    fn steered(&self, targets: &[Target], piece: impl Fn(&Target) -> Option<Piece>) -> Steered {
        let set = |targets: &mut dyn Iterator<Item = &Target>| {
            let (weights, pieces): (Vec<u16>, Vec<Piece>) =
                targets.filter_map(|target| Some((target.weight, piece(target)?))).unzip();
            Set::new(pieces, weights.into_iter(), self.most)
        };
        let regions = self.regions.iter().map(|region| {
            let set = set(&mut targets.iter().filter(|target| target.region == *region));
            (!set.pieces.is_empty()).then_some(set)
        });
        Steered { everywhere: set(&mut targets.iter()), regions: regions.collect() }
    }

    /// The address records of a target that a question of this type gets. ANY gets IPv4 if there is any, else IPv6.
    fn address_piece(&self, target: &Target, asked: u16) -> Piece {
        let four = match asked {
            kind::A => true,
            kind::AAAA => false,
            _ => target.addresses.iter().any(IpAddr::is_ipv4),
        };
        let mut piece = Piece::default();
        self.addresses(&pointer_to(HEADER), target, |it| it.is_ipv4() == four, &mut piece.answers);
        piece
    }

    fn srv_piece(&self, target: &Target, service: Service) -> Option<Piece> {
        // The name must be one label; the target of SRV is not compressed (RFC 2782).
        let (name, below) = (label(&target.name), label(service.label()));
        let host = [&name[..], &below, &self.origin].concat();
        if !is_label(&target.name) || host.len() > MAX_NAME {
            return None;
        }
        let mut data = vec![0; 2];
        data.extend_from_slice(&target.weight.to_be_bytes());
        data.extend_from_slice(&target.port.to_be_bytes());
        data.extend_from_slice(&host);
        let mut piece = Piece::default();
        piece.answers.add(&self.record(&pointer_to(HEADER), kind::SRV, &data));
        // In the question the service's name stands behind the labels of SRV.
        let owner = [&name[..], &pointer_to(HEADER + SRV.len())].concat();
        self.addresses(&owner, target, |_| true, &mut piece.extras);
        Some(piece)
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
    !view.heard && view.targets(service).is_empty()
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
