//! Unsigned LEB128 in its shortest form: seven bits per byte, low bits first. Every value has exactly one encoding,
//! so a transcript has exactly one form.

use bytes::BufMut;

/// Longest encoding of a `u64`.
pub const MAX_LENGTH: usize = 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VarintError {
    #[error("the bytes end inside a varint")]
    Truncated,
    #[error("a varint is larger than 64 bits")]
    TooLarge,
    #[error("a varint is longer than it needs to be")]
    NotShortest,
}

/// Returns the value and its encoded length.
pub fn decode(bytes: &[u8]) -> Result<(u64, usize), VarintError> {
    let mut value = 0;
    for (at, &byte) in bytes.iter().take(MAX_LENGTH).enumerate() {
        // The tenth byte holds the last of the 64 bits.
        if at == MAX_LENGTH - 1 && byte > 1 {
            return Err(VarintError::TooLarge);
        }
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            let padded = byte == 0 && at > 0;
            return if padded { Err(VarintError::NotShortest) } else { Ok((value, at + 1)) };
        }
    }
    Err(VarintError::Truncated)
}

pub fn encode(mut value: u64, out: &mut impl BufMut) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// Bytes that [`encode`] writes for `value`.
pub const fn length(value: u64) -> usize {
    (70 - (value | 1).leading_zeros() as usize) / 7
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn varint_length_boundaries_round_trip() {
        for (value, bytes) in [
            (0, &[0x00][..]),
            (127, &[0x7f]),
            (128, &[0x80, 0x01]),
            (16_383, &[0xff, 0x7f]),
            (16_384, &[0x80, 0x80, 0x01]),
            (u64::MAX, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
        ] {
            let mut out = Vec::new();
            encode(value, &mut out);
            assert_eq!(out, bytes);
            assert_eq!(decode(bytes), Ok((value, bytes.len())));
        }
    }

    #[test]
    fn non_canonical_varint_is_refused() {
        assert_eq!(decode(&[]), Err(VarintError::Truncated));
        assert_eq!(decode(&[0x80]), Err(VarintError::Truncated));
        assert_eq!(decode(&[0x80, 0x00]), Err(VarintError::NotShortest));
        assert_eq!(decode(&[0xff; 10]), Err(VarintError::TooLarge));
        assert_eq!(
            decode(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x02]),
            Err(VarintError::TooLarge)
        );
    }

    proptest! {
        #[test]
        fn varint_round_trips(value: u64, shift in 0u32..64) {
            let value = value >> shift;
            let mut out = Vec::new();
            encode(value, &mut out);
            prop_assert_eq!(out.len(), length(value));
            prop_assert_eq!(decode(&out), Ok((value, out.len())));
        }

        #[test]
        fn varint_encoding_is_canonical(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
            if let Ok((value, taken)) = decode(&bytes) {
                let mut out = Vec::new();
                encode(value, &mut out);
                prop_assert_eq!(&out, &bytes[..taken]);
            }
        }
    }
}
