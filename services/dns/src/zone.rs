//! The zone: which names it has, and what each says. Pure: question, view and randomness in, answer out.
//!
//! | name | records |
//! | --- | --- |
//! | `<zone>` | SOA, NS |
//! | `login.<zone>`, `gateway.<zone>`, `ns.<zone>` | A, AAAA of the replicas that are up |
//! | `_shardkeep._tcp.login.<zone>`, `_shardkeep._tcp.gateway.<zone>` | SRV: the replicas with ports and weights |
//! | `<instance>.login.<zone>`, `<instance>.gateway.<zone>` | A, AAAA of that replica: the targets of SRV |

use std::net::IpAddr;

use hickory_proto::{
    ProtoError,
    op::{Edns, Message, Metadata, Query, ResponseCode},
    rr::{
        DNSClass, Name, RData, Record, RecordType,
        rdata::{A, AAAA, NS, SOA, SRV},
    },
};

use crate::{
    Config,
    choose::choose,
    query::{Fault, Question},
    random::Random,
    view::{Service, Target, View},
};

/// Largest UDP answer, and the size we advertise: what passes every network unfragmented (DNS flag day 2020).
pub(crate) const MAX_UDP: u16 = 1232;
/// Largest UDP answer for clients without EDNS (RFC 1035, 2.3.4).
pub(crate) const PLAIN_UDP: u16 = 512;
const EDNS_VERSION: u8 = 0;
/// SOA timers for secondaries, which this zone has none of (RFC 1912, 2.2).
const REFRESH: i32 = 3600;
const RETRY: i32 = 600;
const EXPIRE: i32 = 86_400;
/// Labels before the zone that a name of ours has at most: `_shardkeep._tcp.login`.
const DEPTH: usize = 3;

/// The zone's name and the rules of its answers.
pub(crate) struct Zone {
    origin: Name,
    name_server: Name,
    hostmaster: Name,
    config: Config,
}

/// What a name is in this zone.
#[derive(Debug, PartialEq, Eq)]
enum Place<'a> {
    Apex,
    Service(Service),
    Srv(Service),
    /// The name of one replica.
    Instance(&'a Target),
    /// Has names below it, but no records (RFC 4592, 2.2.2).
    Empty,
    Nowhere,
}

impl Zone {
    /// # Errors
    /// When the text is not a domain name.
    pub(crate) fn new(origin: &str, config: Config) -> Result<Self, ProtoError> {
        let mut origin = Name::from_ascii(origin)?;
        origin.set_fqdn(true);
        Ok(Self {
            name_server: origin.prepend_label(Service::NameServer.label())?,
            hostmaster: origin.prepend_label("hostmaster")?,
            origin,
            config,
        })
    }

    /// The answer to a question.
    pub(crate) fn answer(&self, question: &Question, view: &View, random: &mut Random) -> Message {
        let mut answer = respond(&question.metadata, ResponseCode::NoError);
        answer.add_query(question.query.clone());
        if let Some(asked) = &question.edns {
            let mut edns = Edns::new();
            edns.set_version(EDNS_VERSION).set_max_payload(MAX_UDP).set_dnssec_ok(asked.flags().dnssec_ok);
            answer.set_edns(edns);
            if asked.version() > EDNS_VERSION {
                answer.metadata.response_code = ResponseCode::BADVERS;
                return answer;
            }
        }
        let (class, kind) = (question.query.query_class(), question.query.query_type());
        let ours = self.origin.zone_of(question.query.name());
        let transfer = matches!(kind, RecordType::AXFR | RecordType::IXFR);
        if !ours || transfer || !matches!(class, DNSClass::IN | DNSClass::ANY) {
            answer.metadata.response_code = ResponseCode::Refused;
            return answer;
        }
        answer.metadata.authoritative = true;
        self.fill(&mut answer, &question.query, view, random);
        if answer.answers.is_empty() && answer.metadata.response_code != ResponseCode::ServFail {
            answer.add_authority(self.soa(view, self.config.negative_ttl_s));
        }
        answer
    }

    /// Adds the records asked for, or sets the code that says why there are none.
    fn fill(&self, answer: &mut Message, query: &Query, view: &View, random: &mut Random) {
        let (name, kind) = (query.name(), query.query_type());
        match self.place(name, view) {
            Place::Apex => self.fill_apex(answer, kind, view),
            Place::Service(service) => {
                let targets = view.targets(service);
                // Before a registry has answered we do not know whether there are replicas: SERVFAIL sends the
                // resolver to another server that may. Once one has answered, "no address" is the truth, and its
                // short negative TTL keeps the storm of retries away.
                if targets.is_empty() && !view.heard {
                    return fail(answer);
                }
                let addresses = |target: &Target| self.addresses(target, name, kind).next().is_some();
                let chosen = choose(targets, self.config.max_answers, random, addresses);
                answer.add_answers(chosen.into_iter().flat_map(|target| self.addresses(target, name, kind)));
            }
            Place::Instance(target) => {
                answer.add_answers(self.addresses(target, name, kind));
            }
            Place::Srv(service) => {
                if view.targets(service).is_empty() && !view.heard {
                    return fail(answer);
                }
                if matches!(kind, RecordType::SRV | RecordType::ANY) {
                    self.fill_srv(answer, name, service, view, random);
                }
            }
            Place::Empty => {}
            Place::Nowhere => answer.metadata.response_code = ResponseCode::NXDomain,
        }
    }

    fn fill_apex(&self, answer: &mut Message, kind: RecordType, view: &View) {
        // ANY gets one record set, as RFC 8482 (4.1) allows: it is asked by tools and by floods.
        match kind {
            RecordType::SOA | RecordType::ANY => {
                answer.add_answer(self.soa(view, self.config.ttl_s));
            }
            RecordType::NS => {
                let ns = RData::NS(NS(self.name_server.clone()));
                answer.add_answer(Record::from_rdata(self.origin.clone(), self.config.ttl_s, ns));
                for target in view.targets(Service::NameServer).iter().take(self.config.max_answers) {
                    answer.add_additionals(self.both(target, &self.name_server));
                }
            }
            _ => {}
        }
    }

    fn fill_srv(
        &self,
        answer: &mut Message,
        name: &Name,
        service: Service,
        view: &View,
        random: &mut Random,
    ) {
        // An instance name with a dot would be two labels.
        let named = |target: &Target| !target.name.contains('.');
        for target in choose(view.targets(service), self.config.max_answers, random, named) {
            let host = self
                .origin
                .prepend_label(service.label())
                .and_then(|n| n.prepend_label(target.name.as_str()));
            let Ok(host) = host else { continue };
            let srv = RData::SRV(SRV::new(0, target.weight, target.port, host.clone()));
            answer.add_answer(Record::from_rdata(name.clone(), self.config.ttl_s, srv));
            answer.add_additionals(self.both(target, &host));
        }
    }

    /// The address records of a target that this question asks for. ANY gets IPv4 if there is any, else IPv6.
    fn addresses<'a>(
        &'a self,
        target: &'a Target,
        name: &'a Name,
        kind: RecordType,
    ) -> impl Iterator<Item = Record> + 'a {
        let four = match kind {
            RecordType::A => Some(true),
            RecordType::AAAA => Some(false),
            RecordType::ANY => Some(target.addresses.iter().any(IpAddr::is_ipv4)),
            _ => None,
        };
        let wanted = target.addresses.iter().filter(move |address| Some(address.is_ipv4()) == four);
        wanted.map(move |address| self.address(*address, name))
    }

    fn both<'a>(&'a self, target: &'a Target, name: &'a Name) -> impl Iterator<Item = Record> + 'a {
        target.addresses.iter().map(move |address| self.address(*address, name))
    }

    fn address(&self, address: IpAddr, name: &Name) -> Record {
        let data = match address {
            IpAddr::V4(address) => RData::A(A(address)),
            IpAddr::V6(address) => RData::AAAA(AAAA(address)),
        };
        Record::from_rdata(name.clone(), self.config.ttl_s, data)
    }

    fn soa(&self, view: &View, ttl: u32) -> Record {
        let soa = SOA::new(
            self.name_server.clone(),
            self.hostmaster.clone(),
            view.serial,
            REFRESH,
            RETRY,
            EXPIRE,
            self.config.negative_ttl_s,
        );
        Record::from_rdata(self.origin.clone(), ttl, RData::SOA(soa))
    }

    /// Finds a name that lies in this zone; letters count without their case.
    fn place<'a>(&self, name: &Name, view: &'a View) -> Place<'a> {
        let depth = name.iter().count() - self.origin.iter().count();
        if depth > DEPTH {
            return Place::Nowhere;
        }
        let mut labels = [&b""[..]; DEPTH];
        for (label, found) in labels.iter_mut().zip(name.iter().take(depth)) {
            *label = found;
        }
        let player =
            |label: &[u8]| Service::of_label(label).filter(|service| *service != Service::NameServer);
        match &labels[..depth] {
            [] => Place::Apex,
            [name] => Service::of_label(name).map_or(Place::Nowhere, Place::Service),
            [name, below] => match player(below) {
                Some(_) if name.eq_ignore_ascii_case(b"_tcp") => Place::Empty,
                Some(service) => view
                    .targets(service)
                    .iter()
                    .find(|target| name.eq_ignore_ascii_case(target.name.as_bytes()))
                    .map_or(Place::Nowhere, Place::Instance),
                None => Place::Nowhere,
            },
            [name, protocol, below] => match player(below) {
                Some(service)
                    if name.eq_ignore_ascii_case(b"_shardkeep") && protocol.eq_ignore_ascii_case(b"_tcp") =>
                {
                    Place::Srv(service)
                }
                _ => Place::Nowhere,
            },
            _ => Place::Nowhere,
        }
    }
}

fn fail(answer: &mut Message) {
    answer.metadata.authoritative = false;
    answer.metadata.response_code = ResponseCode::ServFail;
}

fn respond(asked: &Metadata, code: ResponseCode) -> Message {
    let mut answer = Message::response(asked.id, asked.op_code);
    answer.metadata = Metadata::response_from_request(asked);
    answer.metadata.response_code = code;
    answer
}

/// The answer to a packet that holds no question: its header and the code.
pub(crate) fn complain(fault: &Fault) -> Option<Message> {
    match fault {
        Fault::Drop => None,
        Fault::Answer { metadata, code } => Some(respond(metadata, *code)),
    }
}

#[cfg(test)]
mod tests;
