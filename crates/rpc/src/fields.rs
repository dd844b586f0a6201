//! For messages that are written field by field: the head of a field whose content has a length of its own.

use ::bytes::BufMut;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

/// Key and length of a field of so many bytes, which are to follow.
pub fn encode_field_header(out: &mut impl BufMut, tag: u32, length: usize) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(length as u64, out);
}

/// Bytes of such a field with its key and length.
pub fn delimited_len(tag: u32, length: usize) -> usize {
    key_len(tag) + encoded_len_varint(length as u64) + length
}
