//! Decodes a packet into a query. This fast decoder reads the form that resolvers send: one question and at most one OPT
//! record. It leaves valid but unusual packets to [`crate::fallback`].

use crate::{
    edns::{Edns, OptError},
    wire::{Code, HEADER, NameError, flag, name_length, u16_at},
};

/// A well-formed query.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Query<'a> {
    pub(crate) id: [u8; 2],
    /// Opcode, RD and CD, which the answer repeats.
    pub(crate) flags: u16,
    /// `None`: the client only asks for a cookie (RFC 7873, 5.4).
    pub(crate) question: Option<Question<'a>>,
    pub(crate) edns: Option<Edns<'a>>,
}

/// The question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Question<'a> {
    /// In uncompressed wire format with the root label, in the letter case of the client.
    pub(crate) name: &'a [u8],
    pub(crate) kind: u16,
    pub(crate) class: u16,
}

/// Why a packet is not a query that this decoder can read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum QueryError {
    /// The packet is not a query. The server must not answer, or two servers could answer each other forever.
    NotAQuery,
    /// The packet may be valid; the general decoder decides.
    NeedsFallback,
    /// The answer is an error code.
    Malformed(Malformed),
}

/// A malformed query. Its answer consists of a header.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed {
    pub(crate) id: [u8; 2],
    pub(crate) flags: u16,
    pub(crate) reason: MalformedReason,
}

impl Malformed {
    /// `packet` must hold a whole header.
    pub(crate) fn new(packet: &[u8], reason: MalformedReason) -> Self {
        let [id, flags] = [0, 2].map(|at| u16_at(packet, at).unwrap_or_default());
        Self { id: id.to_be_bytes(), flags: flags & flag::ECHOED, reason }
    }
}

/// The error in a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MalformedReason {
    Operation,
    Questions,
    Name,
    Records,
    Length,
    Option,
    Version,
}

impl MalformedReason {
    pub(crate) const ALL: [Self; 7] = [
        Self::Operation,
        Self::Questions,
        Self::Name,
        Self::Records,
        Self::Length,
        Self::Option,
        Self::Version,
    ];

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Operation => "operation",
            Self::Questions => "questions",
            Self::Name => "name",
            Self::Records => "records",
            Self::Length => "length",
            Self::Option => "option",
            Self::Version => "version",
        }
    }

    pub(crate) fn code(self) -> Code {
        match self {
            Self::Operation => Code::NotImp,
            Self::Version => Code::BadVers,
            Self::Questions | Self::Name | Self::Records | Self::Length | Self::Option => Code::FormErr,
        }
    }
}

/// Decodes one packet.
pub(crate) fn read(packet: &[u8]) -> Result<Query<'_>, QueryError> {
    let header = packet.first_chunk::<HEADER>().ok_or(QueryError::NotAQuery)?;
    let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let flags = word(2);
    if flags & flag::RESPONSE != 0 {
        return Err(QueryError::NotAQuery);
    }
    let malformed = |reason| QueryError::Malformed(Malformed::new(packet, reason));
    if flags & flag::OPCODE != 0 {
        return Err(malformed(MalformedReason::Operation));
    }
    let [questions, answers, authorities, additionals] = [4, 6, 8, 10].map(word);
    if questions > 1 {
        return Err(malformed(MalformedReason::Questions));
    }
    if (answers, authorities) != (0, 0) || additionals > 1 {
        return Err(QueryError::NeedsFallback);
    }
    let mut rest = &packet[HEADER..];
    let question = match questions {
        0 => None,
        _ => {
            let length = name_length(rest).map_err(|fault| match fault {
                NameError::Compressed => QueryError::NeedsFallback,
                NameError::Malformed => malformed(MalformedReason::Name),
            })?;
            let (name, after) = rest.split_at(length);
            let (Some(kind), Some(class)) = (u16_at(after, 0), u16_at(after, 2)) else {
                return Err(malformed(MalformedReason::Length));
            };
            rest = &after[4..];
            Some(Question { name, kind, class })
        }
    };
    let mut edns = None;
    if additionals == 1 {
        let (found, after) = Edns::read(rest).map_err(|fault| match fault {
            OptError::NotOpt => QueryError::NeedsFallback,
            OptError::Truncated => malformed(MalformedReason::Length),
        })?;
        edns = Some(found);
        rest = after;
    }
    if !rest.is_empty() {
        return Err(malformed(MalformedReason::Length));
    }
    // A query without a question can only ask for a cookie.
    if question.is_none() && edns.as_ref().is_none_or(|edns| edns.cookie.is_none()) {
        return Err(malformed(MalformedReason::Questions));
    }
    Ok(Query { id: [header[0], header[1]], flags: flags & flag::ECHOED, question, edns })
}

#[cfg(test)]
mod tests;
