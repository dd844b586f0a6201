//! Answers, encoded ahead: for each name and type the records as bytes, in pieces to draw from. A new table replaces
//! the old one as a whole at each change; [`crate::zone`] makes it.
//!
//! The pieces stand behind a question in every answer, and refer to its name by pointers; so the same bytes serve
//! every client, in the letters that it used.

use std::collections::HashMap;

use crate::{
    edns::Opt,
    query::{Query, Question},
    random::Random,
    weighted_draw::Weights,
    wire::{Code, HEADER, MAX_NAME, class, flag, kind},
};

/// Everything this server can say.
#[derive(Debug, Default)]
pub(crate) struct Table {
    /// The zone's name in lower case.
    pub(crate) origin: Box<[u8]>,
    /// By the labels before the zone's name, in lower case.
    pub(crate) names: HashMap<Box<[u8]>, Entry>,
    /// Goes with answers that hold no record.
    pub(crate) negative: Soa,
    /// Whether any registry has answered yet: if not, nobody knows which names there are.
    pub(crate) registry_answered: bool,
}

/// What one name has.
#[derive(Debug, Default)]
pub(crate) struct Entry {
    /// By type of question. What is not here, the name does not have.
    pub(crate) sets: Vec<(u16, RegionalSets)>,
    /// Whether there may be records of which no registry has told yet.
    pub(crate) unknown: bool,
}

/// The records of one type, for everybody or by region.
#[derive(Debug, Default)]
pub(crate) struct RegionalSets {
    pub(crate) all_regions: RecordSet,
    /// By the number of the region; a region that has none of its own gets what everybody gets.
    pub(crate) regions: Vec<Option<RecordSet>>,
}

/// Pieces, some of which make an answer.
#[derive(Debug, Default)]
pub(crate) struct RecordSet {
    pub(crate) weights: Weights,
    pub(crate) groups: Vec<RecordGroup>,
    /// How many of them, at most.
    pub(crate) max_answers: usize,
}

/// Records that come together.
#[derive(Debug, Default, Clone)]
pub(crate) struct RecordGroup {
    pub(crate) answers: Records,
    /// Addresses of what the answers name, for those who have room.
    pub(crate) additionals: Records,
}

#[derive(Debug, Default, Clone)]
pub(crate) struct Records {
    pub(crate) bytes: Vec<u8>,
    pub(crate) count: u16,
}

/// The zone's SOA record, whose pointers to the zone's name depend on where the question has it.
#[derive(Debug, Default, Clone)]
pub(crate) struct Soa {
    bytes: Vec<u8>,
    pointers: [usize; 3],
}

/// What a question leads to.
pub(crate) struct Lookup<'a> {
    pub(crate) code: Code,
    /// Whether another region may get another answer.
    pub(crate) steered: bool,
    set: Option<&'a RecordSet>,
    /// Where the zone's name begins in the question's.
    origin_at: usize,
    negative: &'a Soa,
}

/// An answer that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ResponseSummary {
    pub(crate) code: Code,
    pub(crate) truncated: bool,
}

impl Table {
    /// Looks a question up for a client of this region.
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
        // Lengths of labels lie below the letters, and stay what they are.
        lower.make_ascii_lowercase();
        let Some(origin_at) = self.split(lower) else { return nothing(Code::Refused) };
        let Some(entry) = self.names.get(&lower[..origin_at]) else {
            return Lookup {
                origin_at,
                ..nothing(if self.registry_answered { Code::NxDomain } else { Code::ServFail })
            };
        };
        // Before a registry has answered we do not know whether there are replicas: SERVFAIL sends the resolver to
        // another server that may. Once one has answered, "no address" is the truth, and its short negative TTL keeps
        // the storm of retries away.
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

    /// Where the zone's name begins in a name that lies in it.
    fn split(&self, name: &[u8]) -> Option<usize> {
        let at = name.len().checked_sub(self.origin.len())?;
        if self.origin.is_empty() || name[at..] != *self.origin {
            return None;
        }
        // It must begin where a label begins: notshardkeep.test ends like shardkeep.test.
        let mut label = 0;
        while label < at {
            label += 1 + usize::from(name[label]);
        }
        (label == at).then_some(at)
    }
}

impl Lookup<'_> {
    /// Writes the answer. What does not fit loses its extra records first, then all of them, with the TC bit that sends
    /// the client to TCP.
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
    /// The same for everybody.
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

    /// What is always given whole.
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
    /// `pointers` are the places in `bytes` of pointers to the zone's name.
    pub(crate) fn new(bytes: Vec<u8>, pointers: [usize; 3]) -> Self {
        Self { bytes, pointers }
    }

    /// Appends it; the zone's name stands at `origin_at` in the message.
    pub(crate) fn write(&self, origin_at: usize, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        for pointer in self.pointers.iter().filter(|pointer| **pointer + 2 <= self.bytes.len()) {
            out[start + pointer..][..2].copy_from_slice(&pointer_to(origin_at));
        }
    }
}

/// A pointer to this place of the message (RFC 1035, 4.1.4).
pub(crate) fn pointer_to(at: usize) -> [u8; 2] {
    (0xc000 | at as u16).to_be_bytes()
}

/// An answer without records: its header, the question if there was one, and the OPT.
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

/// An answer to what could not be read: no more than a header.
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
