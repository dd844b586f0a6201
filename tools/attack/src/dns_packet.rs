//! DNS queries by the byte (RFC 1035), and the words for the codes of answers.

pub const A: u16 = 1;
pub const TXT: u16 = 16;
pub const AAAA: u16 = 28;
pub const SRV: u16 = 33;
pub const ANY: u16 = 255;

/// A query of a random number for one name. Labels longer than 63 bytes are cut.
pub fn query(name: &str, kind: u16) -> Vec<u8> {
    let mut packet = crate::source::random::<2>().to_vec();
    // Recursion desired; one question.
    packet.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.').filter(|label| !label.is_empty()) {
        let label = &label.as_bytes()[..label.len().min(63)];
        packet.push(label.len() as u8);
        packet.extend(label);
    }
    packet.push(0);
    packet.extend(kind.to_be_bytes());
    packet.extend(1u16.to_be_bytes());
    packet
}

/// The response code in the fourth byte of an answer.
pub fn code(flags: u8) -> &'static str {
    match flags & 0x0f {
        0 => "NOERROR",
        1 => "FORMERR",
        2 => "SERVFAIL",
        3 => "NXDOMAIN",
        4 => "NOTIMP",
        5 => "REFUSED",
        _ => "another code",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_matches_rfc_1035_encoding() {
        let packet = query("a.bc", SRV);
        assert_eq!(packet[2..], [1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, b'a', 2, b'b', b'c', 0, 0, 33, 0, 1]);
        assert_eq!(code(0x83), "NXDOMAIN");
    }
}
