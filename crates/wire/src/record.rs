//! Records: `u16 length`, then that many bytes, plain or sealed. The decoder checks a length against the limit of
//! its direction before it uses it. The writer fills a record in place, in a reused buffer.

use bytes::{Buf, BufMut, BytesMut};

use crate::{
    Message,
    seal::{Provider, SealError, Sealer, TAG},
};

/// Bytes of the length field.
pub const HEADER: usize = 2;

/// Sender of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    Client,
    Server,
}

impl Side {
    /// Largest `length` of a record from this side.
    pub const fn max_record(self) -> usize {
        match self {
            Self::Client => 8_192 + TAG,
            Self::Server => 65_535,
        }
    }

    /// Largest number of message bytes in one record from this side, plain or sealed.
    pub const fn max_plaintext(self) -> usize {
        self.max_record() - TAG
    }

    pub const fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("record without content")]
    Empty,
    #[error("record of {length} bytes; the limit is {limit}")]
    TooLarge { length: usize, limit: usize },
}

impl RecordError {
    pub fn label(&self) -> &'static str {
        match self {
            Self::Empty => "record_empty",
            Self::TooLarge { .. } => "record_too_large",
        }
    }
}

/// Splits records from the front of a receive buffer.
#[derive(Debug, Clone, Copy)]
pub struct Decoder {
    limit: usize,
}

impl Decoder {
    /// A decoder for records from `sender`.
    pub fn new(sender: Side) -> Self {
        Self { limit: sender.max_record() }
    }

    /// Length of the body of the first record, without the length field. `None` means that the length field is
    /// incomplete.
    pub fn length(&self, bytes: &[u8]) -> Result<Option<usize>, RecordError> {
        let Some(header) = bytes.first_chunk::<HEADER>() else { return Ok(None) };
        let length = usize::from(u16::from_le_bytes(*header));
        if length == 0 {
            return Err(RecordError::Empty);
        }
        if length > self.limit {
            return Err(RecordError::TooLarge { length, limit: self.limit });
        }
        Ok(Some(length))
    }

    /// Removes and returns the body of the next whole record, without its length field. The body shares the buffer's
    /// memory. `None` means that more bytes are needed. The decoder reserves space for them only after it has
    /// checked the length.
    pub fn next(&self, buffer: &mut BytesMut) -> Result<Option<BytesMut>, RecordError> {
        let Some(length) = self.length(buffer)? else { return Ok(None) };
        let missing = (HEADER + length).saturating_sub(buffer.len());
        if missing > 0 {
            buffer.reserve(missing);
            return Ok(None);
        }
        buffer.advance(HEADER);
        Ok(Some(buffer.split_to(length)))
    }
}

/// The message does not fit into the record. Finish the record and begin another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the record is full")]
pub struct Full;

/// A record under construction at the end of a buffer. If it is dropped unfinished, the buffer is unchanged.
#[derive(Debug)]
#[must_use = "a record is written by `plain` or `seal`"]
pub struct Writer<'a> {
    out: &'a mut BytesMut,
    start: usize,
    limit: usize,
    finished: bool,
}

impl<'a> Writer<'a> {
    pub fn begin(out: &'a mut BytesMut, sender: Side) -> Self {
        let start = out.len();
        out.put_u16_le(0);
        Self { out, start, limit: sender.max_plaintext(), finished: false }
    }

    /// Number of bytes that still fit.
    pub fn room(&self) -> usize {
        self.limit - self.length()
    }

    pub fn is_empty(&self) -> bool {
        self.length() == 0
    }

    pub fn push<B: AsRef<[u8]>>(&mut self, message: &Message<B>) -> Result<(), Full> {
        if message.encoded_len() > self.room() {
            return Err(Full);
        }
        message.encode(self.out);
        Ok(())
    }

    /// Appends a message that is already encoded, for example one from the log of reliable messages.
    pub fn push_encoded(&mut self, message: &[u8]) -> Result<(), Full> {
        if message.len() > self.room() {
            return Err(Full);
        }
        self.out.extend_from_slice(message);
        Ok(())
    }

    /// Finishes a plain record. Writes nothing if the record is empty.
    pub fn plain(mut self) {
        if !self.is_empty() {
            let length = self.length();
            self.finish(length);
        }
    }

    /// Encrypts the messages in place and finishes the record. Writes nothing if the record is empty.
    pub fn seal<P: Provider>(mut self, sealer: &mut Sealer<P>) -> Result<(), SealError> {
        if self.is_empty() {
            return Ok(());
        }
        let tag = sealer.seal(&mut self.out[self.start + HEADER..])?;
        self.out.extend_from_slice(&tag);
        let length = self.length();
        self.finish(length);
        Ok(())
    }

    fn length(&self) -> usize {
        self.out.len() - self.start - HEADER
    }

    fn finish(&mut self, length: usize) {
        let header = u16::try_from(length).expect("`push` keeps to the limit of the side").to_le_bytes();
        self.out[self.start..self.start + HEADER].copy_from_slice(&header);
        self.finished = true;
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        if !self.finished {
            self.out.truncate(self.start);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn record(body: &[u8]) -> BytesMut {
        let mut out = BytesMut::new();
        let mut writer = Writer::begin(&mut out, Side::Server);
        writer.push_encoded(body).unwrap();
        writer.plain();
        out
    }

    #[test]
    fn record_length_is_checked_before_allocation() {
        let mut buffer = BytesMut::from(&[0xff, 0xff][..]);
        let error = Decoder::new(Side::Client).next(&mut buffer).unwrap_err();
        assert_eq!(error, RecordError::TooLarge { length: 65_535, limit: 8_208 });
        assert!(buffer.capacity() < 1_024);
        assert_eq!(
            Decoder::new(Side::Server).next(&mut BytesMut::from(&[0, 0][..])),
            Err(RecordError::Empty)
        );
    }

    #[test]
    fn full_record_refuses_another_message() {
        let mut out = BytesMut::new();
        let mut writer = Writer::begin(&mut out, Side::Client);
        writer.push_encoded(&[7; 8_192]).unwrap();
        assert_eq!(writer.room(), 0);
        assert_eq!(writer.push_encoded(&[7]), Err(Full));
        assert_eq!(
            writer.push(&Message { opcode: 1, head: crate::Head::Event, payload: Bytes::new() }),
            Err(Full)
        );
        writer.plain();
        assert_eq!(out.len(), HEADER + 8_192);
    }

    #[test]
    fn empty_or_dropped_writer_leaves_buffer_unchanged() {
        let mut out = BytesMut::from(&b"before"[..]);
        Writer::begin(&mut out, Side::Client).plain();
        let mut dropped = Writer::begin(&mut out, Side::Client);
        dropped.push_encoded(b"lost").unwrap();
        drop(dropped);
        assert_eq!(&out[..], b"before");
    }

    proptest! {
        #[test]
        fn records_decode_across_any_chunk_size(
            bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..300), 1..6),
            cut in 1usize..50,
        ) {
            let stream: Vec<u8> = bodies.iter().flat_map(|body| record(body).to_vec()).collect();
            let (decoder, mut buffer, mut seen) = (Decoder::new(Side::Server), BytesMut::new(), Vec::new());
            for chunk in stream.chunks(cut) {
                buffer.extend_from_slice(chunk);
                while let Some(body) = decoder.next(&mut buffer).unwrap() {
                    seen.push(body.to_vec());
                }
            }
            prop_assert_eq!(seen, bodies);
            prop_assert!(buffer.is_empty());
        }
    }
}
