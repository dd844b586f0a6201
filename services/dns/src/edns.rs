//! EDNS (RFC 6891): reads the OPT record of a query and writes the one of an answer. It knows two options, cookies and
//! client subnets, and ignores all others.

use crate::{
    cookie::{self, ClientCookie, ServerCookie},
    subnet::Subnet,
    wire::{kind, u16_at},
};

/// Limit of a UDP answer, and the query size that the server advertises. Packets of this size pass networks without
/// fragmentation (DNS flag day 2020).
pub(crate) const MAX_UDP: u16 = 1232;
/// The largest UDP answer to clients without EDNS (RFC 1035, 2.3.4).
pub(crate) const MAX_UDP_WITHOUT_EDNS: u16 = 512;
const VERSION: u8 = 0;
/// An OPT record without options.
const OPT_HEADER_LEN: usize = 11;
const DNSSEC_OK: u8 = 0x80;

mod option {
    pub(super) const SUBNET: u16 = 8;
    pub(super) const COOKIE: u16 = 10;
}

/// The OPT record of a query.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Edns<'a> {
    pub(crate) version: u8,
    /// Size of the largest UDP answer: the smaller of the limits of client and server.
    pub(crate) limit: u16,
    pub(crate) dnssec_ok: bool,
    pub(crate) cookie: Option<cookie::CookieOption<'a>>,
    pub(crate) subnet: Option<Subnet>,
    /// Whether a cookie or client-subnet option is malformed.
    pub(crate) malformed: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum OptError {
    /// The record is not an OPT record.
    NotOpt,
    /// The record is shorter than its length field says.
    Truncated,
}

impl<'a> Edns<'a> {
    /// Reads the OPT record at the start of `bytes`, and returns it with the remaining bytes.
    pub(crate) fn read(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), OptError> {
        if bytes.len() < OPT_HEADER_LEN {
            return Err(OptError::Truncated);
        }
        if bytes[0] != 0 || u16_at(bytes, 1) != Some(kind::OPT) {
            return Err(OptError::NotOpt);
        }
        let mut edns = Self {
            version: bytes[6],
            limit: u16_at(bytes, 3).unwrap_or_default().clamp(MAX_UDP_WITHOUT_EDNS, MAX_UDP),
            dnssec_ok: bytes[7] & DNSSEC_OK != 0,
            cookie: None,
            subnet: None,
            malformed: false,
        };
        let length = usize::from(u16_at(bytes, 9).unwrap_or_default());
        let (options, rest) = bytes[OPT_HEADER_LEN..].split_at_checked(length).ok_or(OptError::Truncated)?;
        // Options of an unknown version may have another format.
        if edns.version == VERSION {
            edns.read_options(options);
        }
        Ok((edns, rest))
    }

    pub(crate) fn is_supported(&self) -> bool {
        self.version == VERSION
    }

    fn read_options(&mut self, mut options: &'a [u8]) {
        while !options.is_empty() {
            let (Some(code), Some(length)) = (u16_at(options, 0), u16_at(options, 2)) else {
                self.malformed = true;
                return;
            };
            let Some((data, rest)) = options[4..].split_at_checked(length.into()) else {
                self.malformed = true;
                return;
            };
            // The first of several cookies counts (RFC 7873, 5.2), and the first of several subnets.
            match code {
                option::COOKIE if self.cookie.is_none() => {
                    self.cookie = cookie::CookieOption::read(data);
                    self.malformed |= self.cookie.is_none();
                }
                option::SUBNET if self.subnet.is_none() => {
                    self.subnet = Subnet::read(data);
                    self.malformed |= self.subnet.is_none();
                }
                _ => {}
            }
            options = rest;
        }
    }
}

/// The OPT record of an answer.
#[derive(Debug, Default)]
pub(crate) struct Opt {
    pub(crate) dnssec_ok: bool,
    pub(crate) cookie: Option<(ClientCookie, ServerCookie)>,
    /// The client's subnet, and the scope: how many of its bits have decided the answer.
    pub(crate) subnet: Option<(Subnet, u8)>,
}

impl Opt {
    /// Encoded length in bytes.
    pub(crate) fn length(&self) -> usize {
        OPT_HEADER_LEN + self.options()
    }

    fn options(&self) -> usize {
        self.cookie.map_or(0, |(client, server)| 4 + client.len() + server.len())
            + self.subnet.as_ref().map_or(0, |(subnet, _)| 4 + subnet.length())
    }

    /// Appends the record. It carries the upper bits of `code`, the complete response code.
    pub(crate) fn write(&self, code: u16, out: &mut Vec<u8>) {
        let options = self.options() as u16;
        out.push(0);
        out.extend_from_slice(&kind::OPT.to_be_bytes());
        out.extend_from_slice(&MAX_UDP.to_be_bytes());
        out.extend_from_slice(&[(code >> 4) as u8, VERSION, if self.dnssec_ok { DNSSEC_OK } else { 0 }, 0]);
        out.extend_from_slice(&options.to_be_bytes());
        if let Some((client, server)) = &self.cookie {
            out.extend_from_slice(&option::COOKIE.to_be_bytes());
            out.extend_from_slice(&((client.len() + server.len()) as u16).to_be_bytes());
            out.extend_from_slice(client);
            out.extend_from_slice(server);
        }
        if let Some((subnet, scope)) = &self.subnet {
            out.extend_from_slice(&option::SUBNET.to_be_bytes());
            out.extend_from_slice(&(subnet.length() as u16).to_be_bytes());
            subnet.write(*scope, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opt(options: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 0, 41, 0x10, 0, 0, 0, 0x80, 0, 0, options.len() as u8];
        bytes.extend_from_slice(options);
        bytes
    }

    #[test]
    fn udp_limit_is_clamped() {
        for (said, limit) in [(0, 512), (900, 900), (9000, 1232)] {
            let mut bytes = opt(&[]);
            bytes[3..5].copy_from_slice(&u16::to_be_bytes(said));
            let (edns, rest) = Edns::read(&bytes).unwrap();
            assert_eq!((edns.limit, edns.dnssec_ok, rest.len()), (limit, true, 0));
        }
    }

    #[test]
    fn known_options_are_found_among_unknown() {
        let bytes =
            opt(b"\x00\x03\x00\x00\x00\x08\x00\x07\x00\x01\x18\x00\xc0\x00\x02\x00\x0a\x00\x08abcdefgh");
        let (edns, _) = Edns::read(&bytes).unwrap();
        assert!(!edns.malformed);
        assert_eq!(edns.cookie.unwrap().client, b"abcdefgh");
        assert_eq!(edns.subnet.unwrap().client(), Some([192, 0, 2, 0].into()));
    }

    #[test]
    fn wrong_lengths_are_detected() {
        assert_eq!(Edns::read(&opt(&[])[..10]), Err(OptError::Truncated));
        assert_eq!(Edns::read(&[0; 11]), Err(OptError::NotOpt));
        let mut long = opt(&[]);
        long[10] = 1;
        assert_eq!(Edns::read(&long), Err(OptError::Truncated));
        for wrong in [
            &b"\x00\x0a"[..],
            b"\x00\x0a\x00\x09abcdefgh",
            b"\x00\x0a\x00\x09abcdefghi",
            b"\x00\x08\x00\x01a",
        ] {
            assert!(Edns::read(&opt(wrong)).unwrap().0.malformed, "{wrong:?}");
        }
        let mut later = opt(b"\x00\x0a");
        later[6] = 1;
        let (edns, _) = Edns::read(&later).unwrap();
        assert!(!edns.malformed && !edns.is_supported());
    }

    #[test]
    fn opt_round_trips() {
        let subnet = Subnet::read(b"\x00\x01\x18\x00\xc0\x00\x02").unwrap();
        let opt = Opt { dnssec_ok: true, cookie: Some((*b"abcdefgh", [7; 16])), subnet: Some((subnet, 20)) };
        let mut bytes = Vec::new();
        opt.write(23, &mut bytes);
        assert_eq!((bytes.len(), bytes[5]), (opt.length(), 1));
        assert_eq!(bytes[bytes.len() - 4..], [20, 192, 0, 2]);
        // A query must not carry a scope, so only the cookie is read again.
        let (read, rest) = Edns::read(&bytes).unwrap();
        assert!(rest.is_empty() && read.malformed);
        assert_eq!(read.cookie.unwrap().server, [7; 16]);
    }
}
