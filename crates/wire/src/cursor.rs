//! Reads fixed-size fields from the front of a borrowed slice. Every read is bounds-checked, and only numbers are
//! copied.

use crate::varint::{self, VarintError};

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the bytes end inside a field")]
pub struct Truncated;

/// The unread part of a slice.
#[derive(Debug, Clone, Copy)]
pub struct Cursor<'a> {
    rest: &'a [u8],
}

macro_rules! numbers {
    ($($name:ident -> $number:ty),*) => {
        $(
            #[doc = concat!("The next little-endian `", stringify!($number), "`.")]
            pub fn $name(&mut self) -> Result<$number, Truncated> {
                self.array().map(<$number>::from_le_bytes)
            }
        )*
    };
}

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    numbers!(u8 -> u8, u16 -> u16, u32 -> u32, u64 -> u64, i16 -> i16, i32 -> i32);

    pub fn varint(&mut self) -> Result<u64, VarintError> {
        let (value, taken) = varint::decode(self.rest)?;
        self.rest = &self.rest[taken..];
        Ok(value)
    }

    /// The next `count` bytes, borrowed.
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], Truncated> {
        let (head, rest) = self.rest.split_at_checked(count).ok_or(Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Truncated> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(Truncated)?;
        self.rest = rest;
        Ok(*head)
    }
}
