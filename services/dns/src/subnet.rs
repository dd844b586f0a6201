//! EDNS client subnet (RFC 7871): the network of the client behind a resolver.

use std::net::IpAddr;

const IPV4_FAMILY: u16 = 1;
const IPV6_FAMILY: u16 = 2;

/// The option of a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subnet {
    family: u16,
    source: u8,
    address: [u8; 16],
}

impl Subnet {
    /// `None` when the option violates section 6 of the RFC: an unknown family, a wrong address length, bits beyond the
    /// prefix, or a scope in a query.
    pub(crate) fn read(data: &[u8]) -> Option<Self> {
        let (&[f0, f1, source, scope], bits) = data.split_first_chunk::<4>()?;
        let family = u16::from_be_bytes([f0, f1]);
        let width = match family {
            IPV4_FAMILY => 32,
            IPV6_FAMILY => 128,
            // A resolver that hides its client may send family 0.
            0 => 0,
            _ => return None,
        };
        if source > width || scope != 0 || bits.len() != usize::from(source).div_ceil(8) {
            return None;
        }
        let unused_bits = bits.len() * 8 - usize::from(source);
        if bits.last().is_some_and(|last| last & !(0xff << unused_bits) as u8 != 0) {
            return None;
        }
        let mut address = [0; 16];
        address[..bits.len()].copy_from_slice(bits);
        Some(Self { family, source, address })
    }

    /// The client's network, or `None` when the resolver hides it.
    pub(crate) fn client(&self) -> Option<IpAddr> {
        let [a, b, c, d, ..] = self.address;
        match self.family {
            _ if self.source == 0 => None,
            IPV4_FAMILY => Some([a, b, c, d].into()),
            _ => Some(self.address.into()),
        }
    }

    /// Length of the option's data in bytes.
    pub(crate) fn length(&self) -> usize {
        4 + usize::from(self.source).div_ceil(8)
    }

    /// The option's data in an answer: the subnet of the query and the scope of the answer.
    pub(crate) fn write(&self, scope: u8, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.family.to_be_bytes());
        out.extend_from_slice(&[self.source, scope]);
        out.extend_from_slice(&self.address[..usize::from(self.source).div_ceil(8)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn well_formed_subnets_are_read_and_written_back() {
        let cases: [(&[u8], Option<&str>); 5] = [
            (b"\x00\x01\x18\x00\xc0\x00\x02", Some("192.0.2.0")),
            (b"\x00\x01\x14\x00\xc0\x00\x10", Some("192.0.16.0")),
            (b"\x00\x02\x30\x00\x20\x01\x0d\xb8\x00\x07", Some("2001:db8:7::")),
            (b"\x00\x01\x00\x00", None),
            (b"\x00\x00\x00\x00", None),
        ];
        for (data, client) in cases {
            let subnet = Subnet::read(data).unwrap();
            assert_eq!(subnet.client(), client.map(|client| client.parse().unwrap()));
            let mut written = Vec::new();
            subnet.write(0, &mut written);
            assert_eq!((&written[..], written.len()), (data, subnet.length()));
        }
    }

    #[test]
    fn malformed_subnets_are_rejected() {
        let cases: [&[u8]; 9] = [
            b"",
            b"\x00\x01\x18",
            b"\x00\x01\x18\x00\xc0\x00",
            b"\x00\x01\x18\x00\xc0\x00\x02\x01",
            b"\x00\x01\x14\x00\xc0\x00\x18",
            b"\x00\x01\x18\x18\xc0\x00\x02",
            b"\x00\x01\x21\x00\xc0\x00\x02\x01\x80",
            b"\x00\x03\x08\x00\xc0",
            b"\x00\x00\x08\x00\xc0",
        ];
        for data in cases {
            assert_eq!(Subnet::read(data), None, "{data:x?}");
        }
    }
}
