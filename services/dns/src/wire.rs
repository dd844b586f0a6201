//! The parts of the DNS wire format (RFC 1035, 4.1) that the fast path reads and writes.

/// Length of a message header in bytes.
pub(crate) const HEADER: usize = 12;
/// Maximum length of a name in bytes, with length bytes and root label.
pub(crate) const MAX_NAME: usize = 255;
pub(crate) const MAX_LABEL: usize = 63;

/// Bits of the second 16-bit word of the header.
pub(crate) mod flag {
    pub(crate) const RESPONSE: u16 = 0x8000;
    pub(crate) const OPCODE: u16 = 0x7800;
    pub(crate) const AUTHORITATIVE: u16 = 0x0400;
    pub(crate) const TRUNCATED: u16 = 0x0200;
    pub(crate) const RECURSION_DESIRED: u16 = 0x0100;
    pub(crate) const CHECKING_DISABLED: u16 = 0x0010;
    /// The bits that an answer repeats from its query.
    pub(crate) const ECHOED: u16 = OPCODE | RECURSION_DESIRED | CHECKING_DISABLED;
}

/// Types of records and of questions.
pub(crate) mod kind {
    pub(crate) const A: u16 = 1;
    pub(crate) const NS: u16 = 2;
    pub(crate) const SOA: u16 = 6;
    pub(crate) const AAAA: u16 = 28;
    pub(crate) const SRV: u16 = 33;
    pub(crate) const OPT: u16 = 41;
    pub(crate) const IXFR: u16 = 251;
    pub(crate) const AXFR: u16 = 252;
    pub(crate) const ANY: u16 = 255;
}

pub(crate) mod class {
    pub(crate) const IN: u16 = 1;
    pub(crate) const ANY: u16 = 255;
}

/// The response codes of this server. Codes above 15 need an OPT record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    NoError = 0,
    FormErr = 1,
    ServFail = 2,
    NxDomain = 3,
    NotImp = 4,
    Refused = 5,
    BadVers = 16,
    BadCookie = 23,
}

impl Code {
    pub(crate) const ALL: [Self; 8] = [
        Self::NoError,
        Self::FormErr,
        Self::ServFail,
        Self::NxDomain,
        Self::NotImp,
        Self::Refused,
        Self::BadVers,
        Self::BadCookie,
    ];

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::NoError => "noerror",
            Self::FormErr => "formerr",
            Self::ServFail => "servfail",
            Self::NxDomain => "nxdomain",
            Self::NotImp => "notimp",
            Self::Refused => "refused",
            Self::BadVers => "badvers",
            Self::BadCookie => "badcookie",
        }
    }
}

/// Why bytes are not an uncompressed name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NameError {
    Malformed,
    /// The name holds a compression pointer, which is valid in DNS but unusual in a question.
    Compressed,
}

/// Length of the uncompressed name at the start of `bytes`, with the root label.
pub(crate) fn name_length(bytes: &[u8]) -> Result<usize, NameError> {
    let mut at = 0;
    while at < MAX_NAME {
        match bytes.get(at) {
            Some(0) => return Ok(at + 1),
            Some(length @ 1..=63) => at += 1 + usize::from(*length),
            Some(0xc0..) => return Err(NameError::Compressed),
            Some(_) | None => return Err(NameError::Malformed),
        }
    }
    Err(NameError::Malformed)
}

/// The big-endian number at this offset.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_length_requires_root_within_255_bytes() {
        assert_eq!(name_length(b"\x05login\x04test\x00rest"), Ok(12));
        assert_eq!(name_length(&[0]), Ok(1));
        assert_eq!(name_length(b"\x05login"), Err(NameError::Malformed));
        assert_eq!(name_length(b"\x05lo"), Err(NameError::Malformed));
        assert_eq!(name_length(b"\x40"), Err(NameError::Malformed));
        assert_eq!(name_length(b"\x01a\xc0\x0c"), Err(NameError::Compressed));
        let mut longest = b"\x01a".repeat(127);
        longest.push(0);
        assert_eq!(name_length(&longest), Ok(MAX_NAME));
        let mut longer = b"\x01a".repeat(128);
        longer.push(0);
        assert_eq!(name_length(&longer), Err(NameError::Malformed));
    }
}
