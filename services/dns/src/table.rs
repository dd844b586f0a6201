//! Encoded answers: for each name and type, groups of encoded records to draw from. [`crate::zone`] makes a new table at
//! each change, which replaces the old one.
//!
//! In an answer the records follow the question and refer to its name by compression pointers. So the same bytes serve
//! every client, whatever letter case it uses.

use std::collections::HashMap;

use crate::{
    edns::Opt,
    query::{Query, Question},
    random::Random,
    weighted_draw::Weights,
    wire::{Code, HEADER, MAX_NAME, class, flag, kind},
};

/// All answers of the server.
#[derive(Debug, Default)]
pub(crate) struct Table {
    /// Name of the zone in wire format, in lower case.
    pub(crate) origin: Box<[u8]>,
    /// Entries by the labels before the zone's name, in wire format and lower case.
    pub(crate) names: HashMap<Box<[u8]>, Entry>,
    /// SOA record for answers without records (RFC 2308).
    pub(crate) negative: Soa,
    /// Whether a registry has answered. Before that, the names of replicas are unknown.
    pub(crate) registry_answered: bool,
}

/// The records of one name.
#[derive(Debug, Default)]
pub(crate) struct Entry {
    /// Record sets by query type. The name has no records of other types.
    pub(crate) sets: Vec<(u16, RegionalSets)>,
    /// Whether no registry has answered yet, so that the records of this name are unknown.
    pub(crate) unknown: bool,
}

/// The records of one type, for all clients and by region.
#[derive(Debug, Default)]
pub(crate) struct RegionalSets {
    pub(crate) all_regions: RecordSet,
    /// Records by index of the region. `None`: clients of the region get the records of all regions.
    pub(crate) regions: Vec<Option<RecordSet>>,
}

/// Record groups from which an answer is drawn.
#[derive(Debug, Default)]
pub(crate) struct RecordSet {
    pub(crate) weights: Weights,
    pub(crate) groups: Vec<RecordGroup>,
    /// Limit of groups in one answer.
    pub(crate) max_answers: usize,
}

/// Records that always appear together.
#[derive(Debug, Default, Clone)]
pub(crate) struct RecordGroup {
    pub(crate) answers: Records,
    /// Addresses of the hosts in `answers`, sent when there is room.
    pub(crate) additionals: Records,
}

#[derive(Debug, Default, Clone)]
pub(crate) struct Records {
    pub(crate) bytes: Vec<u8>,
    pub(crate) count: u16,
}

/// The SOA record of the zone. Its compression pointers depend on the position of the zone's name in the question.
#[derive(Debug, Default, Clone)]
pub(crate) struct Soa {
    bytes: Vec<u8>,
    pointers: [usize; 3],
}

/// Result of looking up a question.
pub(crate) struct Lookup<'a> {
    pub(crate) code: Code,
    /// Whether the answer may differ by region.
    pub(crate) steered: bool,
    set: Option<&'a RecordSet>,
    /// Offset of the zone's name in the name of the question.
    origin_at: usize,
    negative: &'a Soa,
}

/// Properties of a written answer, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ResponseSummary {
    pub(crate) code: Code,
    pub(crate) truncated: bool,
}

impl Table {
    /// Looks up a question for a client of this region.
    pub(crate) fn find(&self, question: &Question<'_>, region: Option<u16>) -> Lookup<'_> {
        let nothing =
            |code| Lookup { code, steered: false, set: None, origin_at: 0, negative: &self.negative };
        let transfer = matches!(question.kind, kind::AXFR | kind::IXFR);
        if transfer || !matches!(question.class, class::IN | class::ANY) {
            return nothing(Code::Refused);
        }
        let mut lower = [0; MAX_NAME];
        let lower = &mut lower[..question.name.len()];
        lower.copy_from_slice(question.name);
        // This leaves length bytes unchanged: they are at most 63, below the letters.
        lower.make_ascii_lowercase();
        let Some(origin_at) = self.split(lower) else { return nothing(Code::Refused) };
        let Some(entry) = self.names.get(&lower[..origin_at]) else {
            return Lookup {
                origin_at,
                ..nothing(if self.registry_answered { Code::NxDomain } else { Code::ServFail })
            };
        };
        // SERVFAIL makes the resolver ask another name server, which may have reached a registry. After a registry has
        // answered, "no address" is true, and the negative TTL limits how often resolvers ask again.
        if entry.unknown {
            return Lookup { origin_at, ..nothing(Code::ServFail) };
        }
        let steered = entry.sets.iter().find(|(kind, _)| *kind == question.kind).map(|(_, steered)| steered);
        Lookup {
            steered: steered.is_some_and(|it| !it.regions.is_empty()),
            set: steered.map(|it| it.for_region(region)),
            origin_at,
            ..nothing(Code::NoError)
        }
    }

    /// Offset of the zone's name in `name`, or `None` when the name is outside the zone.
    fn split(&self, name: &[u8]) -> Option<usize> {
        let at = name.len().checked_sub(self.origin.len())?;
        if self.origin.is_empty() || name[at..] != *self.origin {
            return None;
        }
        // The offset must be the start of a label: notshardkeep.test ends with shardkeep.test.
        let mut label = 0;
        while label < at {
            label += 1 + usize::from(name[label]);
        }
        (label == at).then_some(at)
    }
}

impl Lookup<'_> {
    /// Writes the answer. If it does not fit, it loses additional records first, then all records. It then has the TC bit,
    /// and the client asks by TCP.
    pub(crate) fn write(
        &self,
        query: &Query<'_>,
        limit: usize,
        opt: Option<&Opt>,
        random: &mut Random,
        out: &mut Vec<u8>,
    ) -> ResponseSummary {
        let available = limit.saturating_sub(opt.map_or(0, Opt::length));
        begin(query, out);
        let question_end = out.len();
        let (mut answers, mut authorities, mut additionals) = (0, 0, 0);
        match self.set.filter(|set| !set.groups.is_empty()) {
            Some(set) => {
                let drawn = set.weights.draw(set.max_answers, random);
                for group in drawn.iter().map(|pick| &set.groups[pick]) {
                    out.extend_from_slice(&group.answers.bytes);
                    answers += group.answers.count;
                }
                for group in drawn.iter().map(|pick| &set.groups[pick].additionals) {
                    if out.len() + group.bytes.len() > available {
                        break;
                    }
                    out.extend_from_slice(&group.bytes);
                    additionals += group.count;
                }
            }
            None if matches!(self.code, Code::NoError | Code::NxDomain) => {
                self.negative.write(HEADER + self.origin_at, out);
                authorities = 1;
            }
            None => {}
        }
        let mut flags = match self.code {
            Code::NoError | Code::NxDomain => flag::AUTHORITATIVE,
            _ => 0,
        };
        let truncated = out.len() > available;
        if truncated {
            out.truncate(question_end);
            (answers, authorities, additionals) = (0, 0, 0);
            flags |= flag::TRUNCATED;
        }
        finish(self.code, flags, [answers, authorities, additionals], opt, out);
        ResponseSummary { code: self.code, truncated }
    }
}

impl RegionalSets {
    /// The same records for every region.
    pub(crate) fn all_regions(all_regions: RecordSet) -> Self {
        Self { all_regions, regions: Vec::new() }
    }

    fn for_region(&self, region: Option<u16>) -> &RecordSet {
        let own = region.and_then(|region| self.regions.get(usize::from(region))?.as_ref());
        own.unwrap_or(&self.all_regions)
    }
}

impl RecordSet {
    pub(crate) fn new(
        groups: Vec<RecordGroup>,
        weights: impl Iterator<Item = u16>,
        max_answers: usize,
    ) -> Self {
        Self { weights: Weights::new(weights), groups, max_answers }
    }

    /// A set of one group, which every answer contains.
    pub(crate) fn single(group: RecordGroup) -> Self {
        Self::new(vec![group], std::iter::once(1), 1)
    }
}

impl Records {
    pub(crate) fn add(&mut self, record: &[u8]) {
        self.bytes.extend_from_slice(record);
        self.count += 1;
    }
}

impl Soa {
    /// `pointers` are the offsets in `bytes` of the compression pointers to the zone's name.
    pub(crate) fn new(bytes: Vec<u8>, pointers: [usize; 3]) -> Self {
        Self { bytes, pointers }
    }

    /// Appends the record. `origin_at` is the offset of the zone's name in the message.
    pub(crate) fn write(&self, origin_at: usize, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        for pointer in self.pointers.iter().filter(|pointer| **pointer + 2 <= self.bytes.len()) {
            out[start + pointer..][..2].copy_from_slice(&pointer_to(origin_at));
        }
    }
}

/// A compression pointer to this offset of the message (RFC 1035, 4.1.4).
pub(crate) fn pointer_to(at: usize) -> [u8; 2] {
    (0xc000 | at as u16).to_be_bytes()
}

/// An answer without records: header, question if there is one, and OPT record.
pub(crate) fn empty_response(
    query: &Query<'_>,
    code: Code,
    truncated: bool,
    opt: Option<&Opt>,
    out: &mut Vec<u8>,
) {
    begin(query, out);
    finish(code, if truncated { flag::TRUNCATED } else { 0 }, [0; 3], opt, out);
}

/// An answer to a malformed query: a header only.
pub(crate) fn error_response(id: [u8; 2], flags: u16, code: Code, out: &mut Vec<u8>) {
    empty_response(&Query { id, flags, question: None, edns: None }, code, false, None, out);
}

fn begin(query: &Query<'_>, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&query.id);
    out.extend_from_slice(&(flag::RESPONSE | query.flags).to_be_bytes());
    out.extend_from_slice(&[0, query.question.is_some().into(), 0, 0, 0, 0, 0, 0]);
    if let Some(question) = &query.question {
        out.extend_from_slice(question.name);
        out.extend_from_slice(&question.kind.to_be_bytes());
        out.extend_from_slice(&question.class.to_be_bytes());
    }
}

fn finish(code: Code, flags: u16, mut counts: [u16; 3], opt: Option<&Opt>, out: &mut Vec<u8>) {
    let code = code as u16;
    if let Some(opt) = opt {
        opt.write(code, out);
        counts[2] += 1;
    }
    let flags = u16::from_be_bytes([out[2], out[3]]) | flags | code & 0xf;
    out[2..4].copy_from_slice(&flags.to_be_bytes());
    for (count, offset) in counts.into_iter().zip([6, 8, 10]) {
        out[offset..offset + 2].copy_from_slice(&count.to_be_bytes());
    }
}
