//! Messages: a small header and a payload that is borrowed, never copied. The plaintext of a record consists of one
//! or more whole messages.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::{
    cursor::{Cursor, Truncated},
    varint::{self, VarintError},
};

/// Kind of a message: the two low bits of its flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    Request = 0,
    Reply = 1,
    Event = 2,
    State = 3,
}

impl Kind {
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Request),
            1 => Some(Self::Reply),
            2 => Some(Self::Event),
            3 => Some(Self::State),
            _ => None,
        }
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Reply => "reply",
            Self::Event => "event",
            Self::State => "state",
        }
    }
}

/// Kind of a message, with the header fields of that kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Head {
    /// Request id, chosen by the client. It starts at 1 and differs from the id of every unanswered request.
    Request(u32),
    /// Id of the answered request.
    Reply(u32),
    Event,
    /// Replaces an unsent message with the same opcode, class and key.
    State {
        class: u8,
        key: u64,
    },
}

impl Head {
    pub const fn kind(self) -> Kind {
        match self {
            Self::Request(_) => Kind::Request,
            Self::Reply(_) => Kind::Reply,
            Self::Event => Kind::Event,
            Self::State { .. } => Kind::State,
        }
    }

    /// Id of a request or reply.
    pub const fn request(self) -> Option<u32> {
        match self {
            Self::Request(request) | Self::Reply(request) => Some(request),
            _ => None,
        }
    }

    const fn encoded_len(self) -> usize {
        match self {
            Self::Request(request) | Self::Reply(request) => varint::length(request as u64),
            Self::Event => 0,
            Self::State { key, .. } => 1 + varint::length(key),
        }
    }
}

/// One message. `B` is `&[u8]` for a borrowed payload and [`Bytes`] for an owned one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<B = Bytes> {
    pub opcode: u16,
    pub head: Head,
    pub payload: B,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    #[error("the record ends inside a message")]
    Truncated,
    #[error("reserved bits are set in flags {0:#04x}")]
    Reserved(u8),
    #[error("{0}")]
    Varint(VarintError),
    #[error("request {0} is not from 1 to 2^32-1")]
    Request(u64),
}

impl MessageError {
    pub fn label(&self) -> &'static str {
        match self {
            Self::Truncated => "message_truncated",
            Self::Reserved(_) => "message_reserved",
            Self::Varint(_) => "message_varint",
            Self::Request(_) => "message_request",
        }
    }
}

impl From<Truncated> for MessageError {
    fn from(_: Truncated) -> Self {
        Self::Truncated
    }
}

impl From<VarintError> for MessageError {
    fn from(error: VarintError) -> Self {
        match error {
            VarintError::Truncated => Self::Truncated,
            other => Self::Varint(other),
        }
    }
}

impl<'a> Message<&'a [u8]> {
    /// Parses the first message of `bytes`. Also returns its length in bytes.
    pub fn parse(bytes: &'a [u8]) -> Result<(Self, usize), MessageError> {
        let mut cursor = Cursor::new(bytes);
        let flags = cursor.u8()?;
        let kind = Kind::from_number(flags).ok_or(MessageError::Reserved(flags))?;
        let opcode = cursor.u16()?;
        let head = match kind {
            Kind::Request => Head::Request(request(&mut cursor)?),
            Kind::Reply => Head::Reply(request(&mut cursor)?),
            Kind::Event => Head::Event,
            Kind::State => Head::State { class: cursor.u8()?, key: cursor.varint()? },
        };
        let size = usize::try_from(cursor.varint()?).map_err(|_| MessageError::Truncated)?;
        let payload = cursor.bytes(size)?;
        Ok((Self { opcode, head, payload }, bytes.len() - cursor.rest().len()))
    }
}

fn request(cursor: &mut Cursor<'_>) -> Result<u32, MessageError> {
    match cursor.varint()? {
        number @ 1..=0xffff_ffff => Ok(number as u32),
        number => Err(MessageError::Request(number)),
    }
}

impl Message<Bytes> {
    /// Removes the next message from a record's plaintext. The payload shares the record's memory. `None` at the
    /// end.
    pub fn split_from(record: &mut Bytes) -> Result<Option<Self>, MessageError> {
        if record.is_empty() {
            return Ok(None);
        }
        let (message, taken) = Message::parse(record)?;
        let (opcode, head, size) = (message.opcode, message.head, message.payload.len());
        let payload = record.slice(taken - size..taken);
        record.advance(taken);
        Ok(Some(Self { opcode, head, payload }))
    }
}

impl<B: AsRef<[u8]>> Message<B> {
    pub fn new(opcode: u16, head: Head, payload: B) -> Self {
        Self { opcode, head, payload }
    }

    pub fn kind(&self) -> Kind {
        self.head.kind()
    }

    /// Number of bytes that [`Self::encode`] appends.
    pub fn encoded_len(&self) -> usize {
        encoded_len(self.head, self.payload.as_ref().len())
    }

    pub fn encode(&self, out: &mut BytesMut) {
        let payload = self.payload.as_ref();
        encode_header(out, self.opcode, self.head, payload.len());
        out.extend_from_slice(payload);
    }

    /// Encodes the message into a buffer for a log or for several receivers.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.encoded_len());
        self.encode(&mut out);
        out.freeze()
    }
}

/// Encoded length of a message with a payload of `size` bytes.
pub const fn encoded_len(head: Head, size: usize) -> usize {
    3 + head.encoded_len() + varint::length(size as u64) + size
}

/// Encodes everything before the payload. The caller appends `size` bytes.
pub fn encode_header(out: &mut BytesMut, opcode: u16, head: Head, size: usize) {
    out.reserve(encoded_len(head, size));
    out.put_u8(head.kind() as u8);
    out.put_u16_le(opcode);
    match head {
        Head::Request(request) | Head::Reply(request) => varint::encode(request.into(), out),
        Head::Event => {}
        Head::State { class, key } => {
            out.put_u8(class);
            varint::encode(key, out);
        }
    }
    varint::encode(size as u64, out);
}

/// Iterates over the messages of a record's plaintext. Stops after the first error.
pub fn parse_all(record: &[u8]) -> impl Iterator<Item = Result<Message<&[u8]>, MessageError>> {
    let mut rest = record;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let parsed = Message::parse(rest);
        rest = parsed.as_ref().map_or(&[], |(_, taken)| &rest[*taken..]);
        Some(parsed.map(|(message, _)| message))
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn any_head() -> impl Strategy<Value = Head> {
        prop_oneof![
            (1..=u32::MAX).prop_map(Head::Request),
            (1..=u32::MAX).prop_map(Head::Reply),
            Just(Head::Event),
            (any::<u8>(), any::<u64>()).prop_map(|(class, key)| Head::State { class, key }),
        ]
    }

    #[test]
    fn malformed_message_gives_specific_error() {
        assert_eq!(Message::parse(&[0x04, 0, 0]), Err(MessageError::Reserved(4)));
        assert_eq!(Message::parse(&[0x00, 1, 0, 0, 0]), Err(MessageError::Request(0)));
        assert_eq!(
            Message::parse(&[0x00, 1, 0, 0x80, 0x80, 0x80, 0x80, 0x10, 0]),
            Err(MessageError::Request(1 << 32))
        );
        assert_eq!(Message::parse(&[0x02, 1, 0, 3, 9, 9]), Err(MessageError::Truncated));
        assert_eq!(
            Message::parse(&[0x02, 1, 0, 0x80, 0]),
            Err(MessageError::Varint(VarintError::NotShortest))
        );
    }

    #[test]
    fn split_from_shares_record_memory() {
        let mut out = BytesMut::new();
        Message::new(7, Head::Event, &b"one"[..]).encode(&mut out);
        Message::new(8, Head::Request(300), &b"two"[..]).encode(&mut out);
        let mut record = out.freeze();
        let range = record.as_ptr_range();
        let first = Message::split_from(&mut record).unwrap().unwrap();
        let second = Message::split_from(&mut record).unwrap().unwrap();
        assert_eq!((&first.payload[..], &second.payload[..]), (&b"one"[..], &b"two"[..]));
        assert!(range.contains(&first.payload.as_ptr()) && range.contains(&second.payload.as_ptr()));
        assert_eq!(Message::split_from(&mut record), Ok(None));
    }

    proptest! {
        #[test]
        fn message_round_trips(opcode: u16, head in any_head(), payload in proptest::collection::vec(any::<u8>(), 0..300)) {
            let message = Message::new(opcode, head, &payload[..]);
            let bytes = message.to_bytes();
            prop_assert_eq!(bytes.len(), message.encoded_len());
            prop_assert_eq!(Message::parse(&bytes), Ok((message, bytes.len())));
        }

        #[test]
        fn message_encoding_is_canonical(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok((message, taken)) = Message::parse(&bytes) {
                prop_assert_eq!(&message.to_bytes()[..], &bytes[..taken]);
            }
            prop_assert!(parse_all(&bytes).count() <= bytes.len());
        }
    }
}
