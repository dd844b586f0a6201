//! PROXY protocol, version 2 (haproxy.org, `proxy-protocol.txt`, section 2.2). With it a load balancer sends the
//! client's address before the client's first byte. Only the binary form over TCP is supported. Extensions behind
//! the addresses are checked for form and otherwise ignored.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

/// Length of the fixed part: signature, version and command, family and protocol, length of the rest.
pub const FIXED_LENGTH: usize = 16;
/// Largest accepted rest: IPv6 addresses and space for extensions.
pub const MAX_REST: usize = 1_024;
pub const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

const IPV4: usize = 12;
const IPV6: usize = 36;
/// The only extension that is verified when present: CRC-32C over the whole header.
const CRC32C: u8 = 0x03;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    #[error("not PROXY protocol, version 2")]
    NotProxyProtocol,
    #[error("PROXY command {0} does not exist")]
    Command(u8),
    #[error("PROXY address family and protocol {0:#04x} are not TCP over IP")]
    Family(u8),
    #[error("PROXY header of {0} bytes is too long")]
    Length(usize),
    #[error("PROXY header is damaged")]
    Damaged,
    #[error("PROXY header did not arrive in time")]
    Timeout,
}

impl ProxyError {
    /// Metric label.
    pub fn label(&self) -> &'static str {
        match self {
            Self::NotProxyProtocol => "proxy_missing",
            Self::Command(_) => "proxy_command",
            Self::Family(_) => "proxy_family",
            Self::Length(_) => "proxy_length",
            Self::Damaged => "proxy_damaged",
            Self::Timeout => "proxy_timeout",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Command {
    /// A connection of the balancer itself, such as a health check.
    Local,
    Proxy(Family),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Unspecified,
    Ipv4,
    Ipv6,
}

/// The parsed fixed part of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FixedHeader {
    command: Command,
    rest: usize,
}

impl FixedHeader {
    /// # Errors
    /// Fails for another protocol, and for a header longer than [`MAX_REST`].
    pub fn parse(fixed: &[u8; FIXED_LENGTH]) -> Result<Self, ProxyError> {
        let (signature, rest) = fixed.split_at(SIGNATURE.len());
        if signature != SIGNATURE || rest[0] >> 4 != 2 {
            return Err(ProxyError::NotProxyProtocol);
        }
        let family = match rest[1] {
            0x00 => Family::Unspecified,
            0x11 => Family::Ipv4,
            0x21 => Family::Ipv6,
            other => return Err(ProxyError::Family(other)),
        };
        let command = match rest[0] & 0x0f {
            0 => Command::Local,
            1 => Command::Proxy(family),
            other => return Err(ProxyError::Command(other)),
        };
        let rest = usize::from(u16::from_be_bytes([rest[2], rest[3]]));
        if rest > MAX_REST {
            return Err(ProxyError::Length(rest));
        }
        Ok(Self { command, rest })
    }

    /// Number of bytes after the fixed part.
    pub fn rest(&self) -> usize {
        self.rest
    }

    /// Returns the client's address, or `None` for a connection of the balancer itself. `rest` has the length of
    /// [`Self::rest`].
    ///
    /// # Errors
    /// Fails if the addresses are incomplete or the extensions are damaged.
    pub fn source(&self, fixed: &[u8; FIXED_LENGTH], rest: &[u8]) -> Result<Option<SocketAddr>, ProxyError> {
        let family = match self.command {
            // The specification requires receivers to ignore the content of a local header.
            Command::Local => return Ok(None),
            Command::Proxy(family) => family,
        };
        let (source, tlvs) = match family {
            Family::Unspecified => (None, rest),
            Family::Ipv4 => {
                let (addresses, tlvs) = split::<IPV4>(rest)?;
                let [a, b, c, d, _, _, _, _, high, low, ..] = *addresses;
                let port = u16::from_be_bytes([high, low]);
                (Some(SocketAddr::new(Ipv4Addr::new(a, b, c, d).into(), port)), tlvs)
            }
            Family::Ipv6 => {
                let (addresses, tlvs) = split::<IPV6>(rest)?;
                let address: [u8; 16] = *addresses.first_chunk().ok_or(ProxyError::Damaged)?;
                let port = u16::from_be_bytes([addresses[32], addresses[33]]);
                (Some(SocketAddr::new(Ipv6Addr::from(address).to_canonical(), port)), tlvs)
            }
        };
        check_tlvs(fixed, rest, tlvs)?;
        Ok(source)
    }
}

fn split<const N: usize>(rest: &[u8]) -> Result<(&[u8; N], &[u8]), ProxyError> {
    rest.split_first_chunk().ok_or(ProxyError::Length(rest.len()))
}

/// Each extension is `u8 type, u16 length, value`.
fn check_tlvs(fixed: &[u8; FIXED_LENGTH], rest: &[u8], tlvs: &[u8]) -> Result<(), ProxyError> {
    let mut left = tlvs;
    while !left.is_empty() {
        let (head, tail) = left.split_first_chunk::<3>().ok_or(ProxyError::Damaged)?;
        let length = usize::from(u16::from_be_bytes([head[1], head[2]]));
        let (value, tail) = tail.split_at_checked(length).ok_or(ProxyError::Damaged)?;
        if head[0] == CRC32C {
            let declared = u32::from_be_bytes(value.try_into().map_err(|_| ProxyError::Damaged)?);
            // The checksum covers the header with a zero in place of the checksum.
            let at = rest.len() - tail.len() - value.len();
            let (before, after) = (&rest[..at], &rest[at + value.len()..]);
            if crc32c(&[fixed, before, &[0; 4], after]) != declared {
                return Err(ProxyError::Damaged);
            }
        }
        left = tail;
    }
    Ok(())
}

/// CRC-32C (RFC 3720, section 12.1), bit by bit, because a header has only about a hundred bytes.
fn crc32c(parts: &[&[u8]]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ (0x82f6_3b78 & (crc & 1).wrapping_neg()))
    };
    !parts.iter().flat_map(|part| part.iter()).fold(u32::MAX, step)
}

/// A header as a load balancer writes it, for tests and tools.
pub fn encode(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let (family, addresses) = match (source, destination) {
        (SocketAddr::V4(from), SocketAddr::V4(to)) => {
            (0x11, [&from.ip().octets()[..], &to.ip().octets()].concat())
        }
        _ => {
            let octets = |address: SocketAddr| match address {
                SocketAddr::V4(v4) => v4.ip().to_ipv6_mapped().octets(),
                SocketAddr::V6(v6) => v6.ip().octets(),
            };
            (0x21, [octets(source), octets(destination)].concat())
        }
    };
    let ports = [source.port().to_be_bytes(), destination.port().to_be_bytes()].concat();
    let length = (addresses.len() + ports.len()) as u16;
    [&SIGNATURE[..], &[0x21, family], &length.to_be_bytes(), &addresses, &ports].concat()
}

/// The header of a balancer's own connection.
pub fn encode_local() -> Vec<u8> {
    [&SIGNATURE[..], &[0x20, 0, 0, 0]].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(bytes: &[u8]) -> Result<Option<SocketAddr>, ProxyError> {
        let (fixed, rest) = bytes.split_first_chunk().expect("a whole header");
        let begin = FixedHeader::parse(fixed)?;
        assert_eq!(begin.rest(), rest.len());
        begin.source(fixed, rest)
    }

    fn v4() -> Vec<u8> {
        encode("192.0.2.7:1234".parse().unwrap(), "198.51.100.1:7100".parse().unwrap())
    }

    /// A header with an extension behind the addresses.
    fn with(tlv: &[u8]) -> Vec<u8> {
        let mut header = [&v4(), tlv].concat();
        let length = (header.len() - FIXED_LENGTH) as u16;
        header[14..16].copy_from_slice(&length.to_be_bytes());
        header
    }

    #[test]
    fn header_gives_source_address() {
        assert_eq!(parse(&v4()), Ok(Some("192.0.2.7:1234".parse().unwrap())));
        let v6 = encode("[2001:db8::7]:1234".parse().unwrap(), "[2001:db8::1]:7100".parse().unwrap());
        assert_eq!(parse(&v6), Ok(Some("[2001:db8::7]:1234".parse().unwrap())));
        let mapped = encode("192.0.2.7:1234".parse().unwrap(), "[2001:db8::1]:7100".parse().unwrap());
        assert_eq!(parse(&mapped), Ok(Some("192.0.2.7:1234".parse().unwrap())));
        assert_eq!(parse(&encode_local()), Ok(None));
    }

    #[test]
    fn invalid_header_gives_specific_error() {
        let with_byte = |at: usize, byte: u8| {
            let mut header = v4();
            header[at] = byte;
            parse(&header)
        };
        assert_eq!(with_byte(0, b'S'), Err(ProxyError::NotProxyProtocol));
        assert_eq!(with_byte(12, 0x11), Err(ProxyError::NotProxyProtocol), "version 1");
        assert_eq!(with_byte(12, 0x22), Err(ProxyError::Command(2)));
        assert_eq!(with_byte(13, 0x12), Err(ProxyError::Family(0x12)), "UDP");
        assert_eq!(with_byte(13, 0x31), Err(ProxyError::Family(0x31)), "a socket file");
        assert_eq!(with_byte(13, 0x21), Err(ProxyError::Length(12)), "too short for IPv6");
        let mut long = v4();
        long[14] = 0xff;
        let fixed = long.first_chunk().unwrap();
        assert_eq!(FixedHeader::parse(fixed), Err(ProxyError::Length(0xff0c)));
    }

    #[test]
    fn tlvs_are_checked_and_ignored() {
        assert!(parse(&with(&[0x05, 0, 2, b'i', b'd'])).is_ok());
        assert_eq!(parse(&with(&[0x05, 0, 3, b'i', b'd'])), Err(ProxyError::Damaged));
        assert_eq!(parse(&with(&[0x05, 0])), Err(ProxyError::Damaged));
    }

    #[test]
    fn crc32c_tlv_is_verified() {
        // The check value of CRC-32C.
        assert_eq!(crc32c(&[b"123456789"]), 0xe306_9283);
        let mut header = with(&[CRC32C, 0, 4, 0, 0, 0, 0, 0x05, 0, 1, 9]);
        let sum = crc32c(&[&header]);
        let at = v4().len() + 3;
        header[at..at + 4].copy_from_slice(&sum.to_be_bytes());
        assert!(parse(&header).is_ok());
        header[16] ^= 1;
        assert_eq!(parse(&header), Err(ProxyError::Damaged));
    }

    proptest! {
        #[test]
        fn header_round_trips(source: [u8; 16], short: bool, ports: (u16, u16)) {
            let address = if short {
                Ipv4Addr::new(source[0], source[1], source[2], source[3]).into()
            } else {
                Ipv6Addr::from(source).to_canonical()
            };
            let source = SocketAddr::new(address, ports.0);
            for destination in ["127.0.0.1:7", "[::1]:7"] {
                let mut destination: SocketAddr = destination.parse().unwrap();
                destination.set_port(ports.1);
                prop_assert_eq!(parse(&encode(source, destination)), Ok(Some(source)));
            }
        }

        #[test]
        fn header_parse_never_panics(start in 0usize..=14, bytes in prop::collection::vec(any::<u8>(), FIXED_LENGTH..200)) {
            let mut bytes = bytes;
            let known = [&SIGNATURE[..], &[0x21, 0x11]].concat();
            bytes[..start].copy_from_slice(&known[..start]);
            let (fixed, rest) = bytes.split_first_chunk().unwrap();
            if let Ok(begin) = FixedHeader::parse(fixed) {
                let _ = begin.source(fixed, &rest[..begin.rest().min(rest.len())]);
            }
        }
    }
}
