//! Answers, encoded ahead: for each name and type the records as bytes, in pieces to draw from. A new table replaces
//! the old one as a whole at each change; [`crate::zone`] makes it.
//!
//! The pieces stand behind a question in every answer, and refer to its name by pointers; so the same bytes serve
//! every client, in the letters that it used.

use std::collections::HashMap;

use crate::{
    choose::Weights,
    edns::Opt,
    query::{Asked, Query},
    random::Random,
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
    pub(crate) heard: bool,
}

/// What one name has.
#[derive(Debug, Default)]
pub(crate) struct Entry {
    /// By type of question. What is not here, the name does not have.
    pub(crate) sets: Vec<(u16, Steered)>,
    /// Whether there may be records of which no registry has told yet.
    pub(crate) unknown: bool,
}

/// The records of one type, for everybody or by region.
#[derive(Debug, Default)]
pub(crate) struct Steered {
    pub(crate) everywhere: Set,
    /// By the number of the region; a region that has none of its own gets what everybody gets.
    pub(crate) regions: Vec<Option<Set>>,
}

/// Pieces, some of which make an answer.
#[derive(Debug, Default)]
pub(crate) struct Set {
    pub(crate) weights: Weights,
    pub(crate) pieces: Vec<Piece>,
    /// How many of them, at most.
    pub(crate) most: usize,
}

/// Records that come together.
#[derive(Debug, Default, Clone)]
pub(crate) struct Piece {
    pub(crate) answers: Records,
    /// Addresses of what the answers name, for those who have room.
    pub(crate) extras: Records,
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
pub(crate) struct Found<'a> {
    pub(crate) code: Code,
    /// Whether another region may get another answer.
    pub(crate) steered: bool,
    set: Option<&'a Set>,
    /// Where the zone's name begins in the question's.
    origin_at: usize,
    negative: &'a Soa,
}

/// An answer that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) code: Code,
    pub(crate) truncated: bool,
}

impl Table {
    /// Looks a question up for a client of this region.
    pub(crate) fn find(&self, asked: &Asked<'_>, region: Option<u16>) -> Found<'_> {
        let nothing =
            |code| Found { code, steered: false, set: None, origin_at: 0, negative: &self.negative };
        let transfer = matches!(asked.kind, kind::AXFR | kind::IXFR);
        if transfer || !matches!(asked.class, class::IN | class::ANY) {
            return nothing(Code::Refused);
        }
        let mut lower = [0; MAX_NAME];
        let lower = &mut lower[..asked.name.len()];
        lower.copy_from_slice(asked.name);
        // Lengths of labels lie below the letters, and stay what they are.
        lower.make_ascii_lowercase();
        let Some(origin_at) = self.split(lower) else { return nothing(Code::Refused) };
        let Some(entry) = self.names.get(&lower[..origin_at]) else {
            return Found { origin_at, ..nothing(if self.heard { Code::NxDomain } else { Code::ServFail }) };
        };
        // Before a registry has answered we do not know whether there are replicas: SERVFAIL sends the resolver to
        // another server that may. Once one has answered, "no address" is the truth, and its short negative TTL keeps
        // the storm of retries away.
        if entry.unknown {
            return Found { origin_at, ..nothing(Code::ServFail) };
        }
        let steered = entry.sets.iter().find(|(kind, _)| *kind == asked.kind).map(|(_, steered)| steered);
        Found {
            steered: steered.is_some_and(|it| !it.regions.is_empty()),
            set: steered.map(|it| it.of(region)),
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

impl Found<'_> {
    /// Writes the answer. What does not fit loses its extra records first, then all of them, with the TC bit that sends
    /// the client to TCP.
    pub(crate) fn write(
        &self,
        query: &Query<'_>,
        limit: usize,
        opt: Option<&Opt>,
        random: &mut Random,
        out: &mut Vec<u8>,
    ) -> Written {
        let room = limit.saturating_sub(opt.map_or(0, Opt::length));
        begin(query, out);
        let question_end = out.len();
        let (mut answers, mut authorities, mut extras) = (0, 0, 0);
        match self.set.filter(|set| !set.pieces.is_empty()) {
            Some(set) => {
                let drawn = set.weights.draw(set.most, random);
                for piece in drawn.iter().map(|pick| &set.pieces[pick]) {
                    out.extend_from_slice(&piece.answers.bytes);
                    answers += piece.answers.count;
                }
                for piece in drawn.iter().map(|pick| &set.pieces[pick].extras) {
                    if out.len() + piece.bytes.len() > room {
                        break;
                    }
                    out.extend_from_slice(&piece.bytes);
                    extras += piece.count;
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
        let truncated = out.len() > room;
        if truncated {
            out.truncate(question_end);
            (answers, authorities, extras) = (0, 0, 0);
            flags |= flag::TRUNCATED;
        }
        finish(self.code, flags, [answers, authorities, extras], opt, out);
        Written { code: self.code, truncated }
    }
}

impl Steered {
    /// The same for everybody.
    pub(crate) fn everywhere(everywhere: Set) -> Self {
        Self { everywhere, regions: Vec::new() }
    }

    fn of(&self, region: Option<u16>) -> &Set {
        let own = region.and_then(|region| self.regions.get(usize::from(region))?.as_ref());
        own.unwrap_or(&self.everywhere)
    }
}

impl Set {
    pub(crate) fn new(pieces: Vec<Piece>, weights: impl Iterator<Item = u16>, most: usize) -> Self {
        Self { weights: Weights::new(weights), pieces, most }
    }

    /// What is always given whole.
    pub(crate) fn one(piece: Piece) -> Self {
        Self::new(vec![piece], std::iter::once(1), 1)
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
pub(crate) fn bare(query: &Query<'_>, code: Code, truncated: bool, opt: Option<&Opt>, out: &mut Vec<u8>) {
    begin(query, out);
    finish(code, if truncated { flag::TRUNCATED } else { 0 }, [0; 3], opt, out);
}

/// An answer to what could not be read: no more than a header.
pub(crate) fn complaint(id: [u8; 2], flags: u16, code: Code, out: &mut Vec<u8>) {
    bare(&Query { id, flags, asked: None, edns: None }, code, false, None, out);
}

fn begin(query: &Query<'_>, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&query.id);
    out.extend_from_slice(&(flag::RESPONSE | query.flags).to_be_bytes());
    out.extend_from_slice(&[0, query.asked.is_some().into(), 0, 0, 0, 0, 0, 0]);
    if let Some(asked) = &query.asked {
        out.extend_from_slice(asked.name);
        out.extend_from_slice(&asked.kind.to_be_bytes());
        out.extend_from_slice(&asked.class.to_be_bytes());
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
    for (count, place) in counts.into_iter().zip([6, 8, 10]) {
        out[place..place + 2].copy_from_slice(&count.to_be_bytes());
    }
}
