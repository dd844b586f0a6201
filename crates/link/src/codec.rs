//! Items as `proto/link.proto` describes them, read from and written as the types of [`crate::message`]. There is no second
//! model of an item: a payload stays where the batch has it, and nothing is copied into generated types first. A test
//! compares each item with the generated encoding.

use bytes::{Bytes, BytesMut};
use prost::{
    DecodeError,
    encoding::{WireType, decode_varint, encode_key, encode_varint, encoded_len_varint, key_len},
};
use shardkeep_rpc::{Malformed, batch::ITEMS, fields::encode_field_header};
use shardkeep_types::{AccountId, BackendKind, Epoch, Generation, GroupKey, SessionId, WorldId};

use crate::message::{
    BackendItem, Bound, ClientMessage, ClientView, Fence, GatewayItem, MessageKind, PublishKind,
    ServerMessage, SessionChange, SessionEvent,
};

/// Appends an item to a batch.
pub(crate) fn encode(out: &mut BytesMut, item: &impl Item) {
    let field = item.field();
    let mut content = Length(0);
    item.content(&mut content);
    let mut length = Length(content.0);
    length.header(field, content.0);
    out.header(ITEMS, length.0);
    out.header(field, content.0);
    item.content(out);
}

/// An item is a message with one field.
pub(crate) trait Item {
    fn field(&self) -> u32;
    /// Writes the content of the field.
    fn content(&self, out: &mut impl Sink);
}

/// An item that several links carry: encoded once, then copied into the batch of each.
pub(crate) fn encode_shared(item: &BackendItem) -> Bytes {
    let mut out = BytesMut::with_capacity(item.bytes());
    encode(&mut out, item);
    out.freeze()
}

/// Where fields go: a buffer, or a count of the bytes that they need.
pub(crate) trait Sink {
    fn header(&mut self, field: u32, length: usize);
    fn slice(&mut self, bytes: &[u8]);
    /// A number that is 0 is not written.
    fn number(&mut self, field: u32, value: u64);
    fn fixed64(&mut self, field: u32, value: u64);

    fn bytes(&mut self, field: u32, bytes: &[u8]) {
        self.header(field, bytes.len());
        self.slice(bytes);
    }

    /// Bytes that are empty are not written.
    fn payload(&mut self, field: u32, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.bytes(field, bytes);
        }
    }

    fn flag(&mut self, field: u32, value: bool) {
        self.number(field, value.into());
    }

    fn nested(&mut self, field: u32, content: &impl Encode)
    where
        Self: Sized,
    {
        let mut length = Length(0);
        content.encode(&mut length);
        self.header(field, length.0);
        content.encode(self);
    }
}

impl Sink for BytesMut {
    fn header(&mut self, field: u32, length: usize) {
        encode_field_header(self, field, length);
    }

    fn slice(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    fn number(&mut self, field: u32, value: u64) {
        if value != 0 {
            encode_key(field, WireType::Varint, self);
            encode_varint(value, self);
        }
    }

    fn fixed64(&mut self, field: u32, value: u64) {
        if value != 0 {
            encode_key(field, WireType::SixtyFourBit, self);
            self.extend_from_slice(&value.to_le_bytes());
        }
    }
}

struct Length(usize);

impl Sink for Length {
    fn header(&mut self, field: u32, length: usize) {
        self.0 += key_len(field) + encoded_len_varint(length as u64);
    }

    fn slice(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }

    fn number(&mut self, field: u32, value: u64) {
        if value != 0 {
            self.0 += key_len(field) + encoded_len_varint(value);
        }
    }

    fn fixed64(&mut self, field: u32, value: u64) {
        if value != 0 {
            self.0 += key_len(field) + 8;
        }
    }

    fn nested(&mut self, field: u32, content: &impl Encode) {
        let mut length = Length(0);
        content.encode(&mut length);
        self.header(field, length.0);
        self.0 += length.0;
    }
}

/// Writes the fields of a message.
pub(crate) trait Encode {
    fn encode(&self, out: &mut impl Sink);
}

/// The messages of one client, without a list of them.
pub(crate) struct DeliverView<I> {
    pub(crate) session: SessionId,
    pub(crate) epoch: Epoch,
    pub(crate) messages: I,
}

impl<'a, I: Iterator<Item = ClientView<'a>> + Clone> Item for DeliverView<I> {
    fn field(&self) -> u32 {
        1
    }

    fn content(&self, out: &mut impl Sink) {
        out.bytes(1, self.session.as_bytes());
        out.number(2, self.epoch.0);
        self.messages.clone().for_each(|message| out.nested(3, &message));
    }
}

impl Encode for ClientView<'_> {
    fn encode(&self, out: &mut impl Sink) {
        out.number(1, self.opcode.into());
        out.number(2, self.kind as u64);
        out.number(3, self.request);
        out.payload(4, self.payload);
    }
}

impl Item for GatewayItem {
    fn field(&self) -> u32 {
        match self {
            Self::Deliver { .. } => 1,
            Self::Session(_) => 2,
            Self::Watch(_) => 3,
            Self::Unwatch(_) => 4,
            Self::Bound(_) => 5,
            Self::Fence(_) => 6,
            Self::Lift(_) => 7,
        }
    }

    fn content(&self, out: &mut impl Sink) {
        match self {
            Self::Deliver { session, session_epoch, messages } => {
                let messages = messages.iter().map(ClientMessage::view);
                DeliverView { session: *session, epoch: *session_epoch, messages }.content(out);
            }
            Self::Session(event) => event.encode(out),
            Self::Watch(group) | Self::Unwatch(group) => group.encode(out),
            Self::Bound(bound) => bound.encode(out),
            Self::Fence(fence) | Self::Lift(fence) => fence.encode(out),
        }
    }
}

impl Encode for SessionEvent {
    fn encode(&self, out: &mut impl Sink) {
        out.bytes(1, self.session.as_bytes());
        out.number(2, self.session_epoch.0);
        out.number(3, self.kind as u64);
        out.number(4, self.account.0);
        out.number(5, self.world.0.into());
        out.number(6, self.generation.0);
    }
}

impl Encode for Bound {
    fn encode(&self, out: &mut impl Sink) {
        out.bytes(1, self.session.as_bytes());
        out.number(2, self.session_epoch.0);
        out.number(3, self.bind_epoch.0);
        out.number(4, self.account.0);
        out.flag(5, self.link_dead);
    }
}

impl Encode for Fence {
    fn encode(&self, out: &mut impl Sink) {
        out.bytes(1, self.session.as_bytes());
        out.number(2, self.session_epoch.0);
    }
}

impl Encode for GroupKey {
    fn encode(&self, out: &mut impl Sink) {
        out.number(1, self.kind().into());
        out.number(2, self.namespace());
        out.fixed64(3, self.number());
    }
}

impl Encode for ServerMessage {
    fn encode(&self, out: &mut impl Sink) {
        out.number(1, self.opcode.into());
        out.number(2, self.kind as u64);
        out.number(3, self.request);
        out.number(4, self.class.into());
        out.number(5, self.key);
        out.payload(6, &self.payload);
    }
}

impl Item for BackendItem {
    fn field(&self) -> u32 {
        match self {
            Self::Send { .. } => 1,
            Self::Publish { .. } => 2,
            Self::Subscribe { .. } => 3,
            Self::Unsubscribe { .. } => 4,
            Self::Bind { .. } => 5,
            Self::Ready { .. } => 6,
            Self::Close { .. } => 7,
            Self::Fenced(_) => 8,
            Self::Lifted(_) => 9,
            Self::Missed { .. } => 10,
        }
    }

    fn content(&self, out: &mut impl Sink) {
        match self {
            Self::Send { sessions, messages } => {
                sessions.iter().for_each(|session| out.bytes(1, session.as_bytes()));
                messages.iter().for_each(|message| out.nested(2, message));
            }
            Self::Publish { group, epoch, sequence, kind, message } => {
                out.nested(1, group);
                out.number(2, epoch.0);
                out.number(3, *sequence);
                out.number(4, *kind as u64);
                out.nested(5, message);
            }
            Self::Subscribe { session, groups, replace } => {
                out.bytes(1, session.as_bytes());
                groups.iter().for_each(|group| out.nested(2, group));
                out.flag(3, *replace);
            }
            Self::Unsubscribe { session, groups } => {
                out.bytes(1, session.as_bytes());
                groups.iter().for_each(|group| out.nested(2, group));
            }
            Self::Bind { session, kind, instance, bind_epoch } => {
                out.bytes(1, session.as_bytes());
                out.number(2, kind.0.into());
                out.payload(3, instance.as_bytes());
                out.number(4, bind_epoch.0);
            }
            Self::Ready { session, bind_epoch } => {
                out.bytes(1, session.as_bytes());
                out.number(2, bind_epoch.0);
            }
            Self::Close { session, code, detail } => {
                out.bytes(1, session.as_bytes());
                out.number(2, (*code).into());
                out.payload(3, detail.as_bytes());
            }
            Self::Fenced(fence) | Self::Lifted(fence) => fence.encode(out),
            Self::Missed { session, group, message } => {
                out.bytes(1, session.as_bytes());
                out.nested(2, group);
                out.nested(3, message);
            }
        }
    }
}

/// Reads an item of a gateway.
///
/// # Errors
/// When the bytes are no such item.
pub(crate) fn gateway_item(item: &Bytes) -> Result<GatewayItem, Malformed> {
    let (field, content) = only_field(item)?;
    Ok(match field {
        1 => deliver(item, content)?,
        2 => GatewayItem::Session(session_event(content)?),
        3 => GatewayItem::Watch(group(content)?),
        4 => GatewayItem::Unwatch(group(content)?),
        5 => GatewayItem::Bound(bound(content)?),
        6 => GatewayItem::Fence(fence(content)?),
        7 => GatewayItem::Lift(fence(content)?),
        other => return Err(Malformed::new("item", format!("{other} is no kind of item"))),
    })
}

/// Reads an item of a backend.
///
/// # Errors
/// When the bytes are no such item.
pub(crate) fn backend_item(item: &Bytes) -> Result<BackendItem, Malformed> {
    let (field, content) = only_field(item)?;
    let mut session = None;
    let required = |session: Option<SessionId>| session.ok_or_else(|| Malformed::missing("session"));
    Ok(match field {
        1 => {
            let (mut sessions, mut messages) = (Vec::new(), Vec::new());
            for value in Fields(content) {
                match value? {
                    (1, value) => sessions.push(value.session()?),
                    (2, value) => messages.push(server_message(item, value.bytes()?)?),
                    _ => {}
                }
            }
            BackendItem::Send { sessions, messages }
        }
        2 => publish(item, content)?,
        3 | 4 => {
            let (mut groups, mut replace) = (Vec::new(), false);
            for value in Fields(content) {
                match value? {
                    (1, value) => session = Some(value.session()?),
                    (2, value) => groups.push(group(value.bytes()?)?),
                    (3, value) => replace = value.number()? != 0,
                    _ => {}
                }
            }
            let session = required(session)?;
            if field == 3 {
                BackendItem::Subscribe { session, groups, replace }
            } else {
                BackendItem::Unsubscribe { session, groups }
            }
        }
        5 => {
            let (mut kind, mut instance, mut bind_epoch) = (BackendKind(0), String::new(), Epoch(0));
            for value in Fields(content) {
                match value? {
                    (1, value) => session = Some(value.session()?),
                    (2, value) => kind = BackendKind(value.small("bind.kind")?),
                    (3, value) => instance = value.text()?,
                    (4, value) => bind_epoch = Epoch(value.number()?),
                    _ => {}
                }
            }
            BackendItem::Bind { session: required(session)?, kind, instance, bind_epoch }
        }
        6 => {
            let Fence { session, session_epoch } = fence(content)?;
            BackendItem::Ready { session, bind_epoch: session_epoch }
        }
        7 => {
            let (mut code, mut detail) = (0, String::new());
            for value in Fields(content) {
                match value? {
                    (1, value) => session = Some(value.session()?),
                    (2, value) => code = value.small("code")?,
                    (3, value) => detail = value.text()?,
                    _ => {}
                }
            }
            BackendItem::Close { session: required(session)?, code, detail }
        }
        8 => BackendItem::Fenced(fence(content)?),
        9 => BackendItem::Lifted(fence(content)?),
        10 => {
            let (mut key, mut message) = (None, None);
            for value in Fields(content) {
                match value? {
                    (1, value) => session = Some(value.session()?),
                    (2, value) => key = Some(group(value.bytes()?)?),
                    (3, value) => message = Some(server_message(item, value.bytes()?)?),
                    _ => {}
                }
            }
            BackendItem::Missed {
                session: required(session)?,
                group: key.ok_or_else(|| Malformed::missing("group"))?,
                message: message.ok_or_else(|| Malformed::missing("message"))?,
            }
        }
        other => return Err(Malformed::new("item", format!("{other} is no kind of item"))),
    })
}

fn deliver(item: &Bytes, content: &[u8]) -> Result<GatewayItem, Malformed> {
    let (mut session, mut session_epoch, mut messages) = (None, Epoch(0), Vec::new());
    for value in Fields(content) {
        match value? {
            (1, value) => session = Some(value.session()?),
            (2, value) => session_epoch = Epoch(value.number()?),
            (3, value) => messages.push(client_message(item, value.bytes()?)?),
            _ => {}
        }
    }
    let session = session.ok_or_else(|| Malformed::missing("session"))?;
    Ok(GatewayItem::Deliver { session, session_epoch, messages })
}

fn client_message(item: &Bytes, content: &[u8]) -> Result<ClientMessage, Malformed> {
    let (mut opcode, mut kind, mut request, mut payload) = (0, 0u32, 0, Bytes::new());
    for value in Fields(content) {
        match value? {
            (1, value) => opcode = value.small("opcode")?,
            (2, value) => kind = value.small("kind")?,
            (3, value) => request = value.number()?,
            (4, value) => payload = item.slice_ref(value.bytes()?),
            _ => {}
        }
    }
    Ok(ClientMessage { opcode, kind: MessageKind::try_from(kind)?, request, payload })
}

fn server_message(item: &Bytes, content: &[u8]) -> Result<ServerMessage, Malformed> {
    let (mut opcode, mut kind, mut request, mut class) = (0, 0u32, 0, 0);
    let (mut key, mut payload) = (0, Bytes::new());
    for value in Fields(content) {
        match value? {
            (1, value) => opcode = value.small("opcode")?,
            (2, value) => kind = value.small("kind")?,
            (3, value) => request = value.number()?,
            (4, value) => class = value.small("class")?,
            (5, value) => key = value.number()?,
            (6, value) => payload = item.slice_ref(value.bytes()?),
            _ => {}
        }
    }
    Ok(ServerMessage { opcode, kind: MessageKind::try_from(kind)?, request, class, key, payload })
}

fn publish(item: &Bytes, content: &[u8]) -> Result<BackendItem, Malformed> {
    let (mut key, mut epoch, mut sequence, mut kind, mut message) = (None, Epoch(0), 0, 0, None);
    for value in Fields(content) {
        match value? {
            (1, value) => key = Some(group(value.bytes()?)?),
            (2, value) => epoch = Epoch(value.number()?),
            (3, value) => sequence = value.number()?,
            (4, value) => kind = value.number()?,
            (5, value) => message = Some(server_message(item, value.bytes()?)?),
            _ => {}
        }
    }
    Ok(BackendItem::Publish {
        group: key.ok_or_else(|| Malformed::missing("group"))?,
        epoch,
        sequence,
        kind: PublishKind::from_number(kind).ok_or_else(|| Malformed::missing("kind"))?,
        message: message.ok_or_else(|| Malformed::missing("message"))?,
    })
}

fn session_event(content: &[u8]) -> Result<SessionEvent, Malformed> {
    let (mut session, mut epoch, mut kind) = (None, 0, 0);
    let (mut account, mut world, mut generation) = (0, 0, 0);
    for value in Fields(content) {
        match value? {
            (1, value) => session = Some(value.session()?),
            (2, value) => epoch = value.number()?,
            (3, value) => kind = value.number()?,
            (4, value) => account = value.number()?,
            (5, value) => world = value.small("world")?,
            (6, value) => generation = value.number()?,
            _ => {}
        }
    }
    Ok(SessionEvent {
        session: session.ok_or_else(|| Malformed::missing("session"))?,
        session_epoch: Epoch(epoch),
        kind: SessionChange::from_number(kind).ok_or_else(|| Malformed::missing("kind"))?,
        account: AccountId(account),
        world: WorldId(world),
        generation: Generation(generation),
    })
}

fn bound(content: &[u8]) -> Result<Bound, Malformed> {
    let (mut session, mut session_epoch, mut bind_epoch) = (None, 0, 0);
    let (mut account, mut link_dead) = (0, false);
    for value in Fields(content) {
        match value? {
            (1, value) => session = Some(value.session()?),
            (2, value) => session_epoch = value.number()?,
            (3, value) => bind_epoch = value.number()?,
            (4, value) => account = value.number()?,
            (5, value) => link_dead = value.number()? != 0,
            _ => {}
        }
    }
    Ok(Bound {
        session: session.ok_or_else(|| Malformed::missing("session"))?,
        session_epoch: Epoch(session_epoch),
        bind_epoch: Epoch(bind_epoch),
        account: AccountId(account),
        link_dead,
    })
}

fn fence(content: &[u8]) -> Result<Fence, Malformed> {
    let (mut session, mut epoch) = (None, 0);
    for value in Fields(content) {
        match value? {
            (1, value) => session = Some(value.session()?),
            (2, value) => epoch = value.number()?,
            _ => {}
        }
    }
    let session = session.ok_or_else(|| Malformed::missing("session"))?;
    Ok(Fence { session, session_epoch: Epoch(epoch) })
}

fn group(content: &[u8]) -> Result<GroupKey, Malformed> {
    let (mut kind, mut space, mut number) = (0, 0, 0);
    for value in Fields(content) {
        match value? {
            (1, value) => kind = value.small("group.kind")?,
            (2, value) => space = value.number()?,
            (3, value) => number = value.number()?,
            _ => {}
        }
    }
    if space >> 48 != 0 {
        return Err(Malformed::new("group.space", "it has more than 48 bits"));
    }
    Ok(GroupKey::new(kind, space, number))
}

/// An item is a message with one field.
fn only_field(item: &[u8]) -> Result<(u32, &[u8]), Malformed> {
    let mut fields = Fields(item);
    let (field, value) = fields.next().ok_or_else(|| Malformed::missing("item"))??;
    if !fields.0.is_empty() {
        return Err(Malformed::new("item", "it has more than one field"));
    }
    Ok((field, value.bytes()?))
}

/// The fields of an encoded message.
struct Fields<'a>(&'a [u8]);

#[derive(Clone, Copy)]
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    fn number(self) -> Result<u64, Malformed> {
        match self {
            Self::Number(number) => Ok(number),
            Self::Bytes(_) => Err(Malformed::new("field", "it has bytes where a number is expected")),
        }
    }

    fn small<T: TryFrom<u64>>(self, field: &'static str) -> Result<T, Malformed> {
        let number = self.number()?;
        T::try_from(number).map_err(|_| Malformed::new(field, format!("{number} is too large")))
    }

    fn bytes(self) -> Result<&'a [u8], Malformed> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Number(_) => Err(Malformed::new("field", "it has a number where bytes are expected")),
        }
    }

    fn session(self) -> Result<SessionId, Malformed> {
        SessionId::try_from(self.bytes()?).map_err(|error| Malformed::new("session", error))
    }

    fn text(self) -> Result<String, Malformed> {
        let text = std::str::from_utf8(self.bytes()?).map_err(|error| Malformed::new("text", error))?;
        Ok(text.to_owned())
    }
}

impl<'a> Fields<'a> {
    /// Inlined, because a result with an error is large and would be returned through memory for each field.
    #[inline(always)]
    fn read(&mut self) -> Result<(u32, Value<'a>), Malformed> {
        let key = u32::try_from(self.varint().map_err(malformed)?).map_err(malformed)?;
        let field = key >> 3;
        if field == 0 {
            return Err(malformed("0 is no field"));
        }
        let value = match WireType::try_from(u64::from(key & 7)).map_err(malformed)? {
            WireType::Varint => Value::Number(self.varint().map_err(malformed)?),
            WireType::LengthDelimited => {
                let length = usize::try_from(self.varint().map_err(malformed)?).map_err(malformed)?;
                let (bytes, rest) = self.0.split_at_checked(length).ok_or_else(truncated)?;
                self.0 = rest;
                Value::Bytes(bytes)
            }
            WireType::SixtyFourBit => {
                let (bytes, rest) = self.0.split_first_chunk().ok_or_else(truncated)?;
                self.0 = rest;
                Value::Number(u64::from_le_bytes(*bytes))
            }
            _ => return Err(malformed("a field has a type that items do not use")),
        };
        Ok((field, value))
    }

    /// Keys, and most lengths and numbers, have one byte.
    #[inline(always)]
    fn varint(&mut self) -> Result<u64, DecodeError> {
        match self.0 {
            [byte @ ..0x80, rest @ ..] => {
                self.0 = rest;
                Ok((*byte).into())
            }
            _ => self.long_varint(),
        }
    }

    #[inline(never)]
    fn long_varint(&mut self) -> Result<u64, DecodeError> {
        decode_varint(&mut self.0)
    }
}

#[cold]
fn malformed(reason: impl ToString) -> Malformed {
    Malformed::new("item", reason)
}

#[cold]
fn truncated() -> Malformed {
    malformed("it ends within a field")
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>), Malformed>;

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() { None } else { Some(self.read()) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;
    use shardkeep_rpc::{batch::Batch, link as proto};

    use super::*;

    const SESSION: SessionId = SessionId([7; 16]);

    /// The item as it stands in a batch that arrives.
    fn encoded(item: &impl Item) -> Bytes {
        let mut out = BytesMut::new();
        encode(&mut out, item);
        let batch = Batch { encoded: out.freeze(), ..Batch::default() };
        Batch::decode(&*batch.encode_to_vec()).unwrap().items.remove(0)
    }

    /// Generated code drops fields that it does not know, so equal bytes mean equal fields.
    fn reencoded<M: Message + Default>(item: &Bytes) -> Vec<u8> {
        M::decode(&**item).unwrap().encode_to_vec()
    }

    #[test]
    fn gateway_items_round_trip_and_match_the_schema() {
        let request = ClientMessage {
            opcode: 0x1010,
            kind: MessageKind::Request,
            request: 9,
            payload: Bytes::from_static(b"x"),
        };
        let items = [
            GatewayItem::Deliver { session: SESSION, session_epoch: Epoch(2), messages: vec![request] },
            GatewayItem::Session(SessionEvent {
                session: SESSION,
                session_epoch: Epoch(2),
                kind: SessionChange::LinkDead,
                account: AccountId(5),
                world: WorldId(1),
                generation: Generation(3),
            }),
            GatewayItem::Watch(GroupKey::new(0x0200, 1, 77)),
            GatewayItem::Bound(Bound {
                session: SESSION,
                session_epoch: Epoch(2),
                bind_epoch: Epoch(4),
                account: AccountId(5),
                link_dead: true,
            }),
            GatewayItem::Fence(Fence { session: SESSION, session_epoch: Epoch(2) }),
            GatewayItem::Lift(Fence { session: SESSION, session_epoch: Epoch(3) }),
        ];
        for item in items {
            let bytes = encoded(&item);
            assert_eq!(reencoded::<proto::GatewayItem>(&bytes), bytes, "{item:?}");
            assert_eq!(gateway_item(&bytes).unwrap(), item);
        }
    }

    #[test]
    fn backend_items_round_trip_and_match_the_schema() {
        let state = ServerMessage::state(0x1001, 3, 99, Bytes::from_static(b"cell"));
        let group = GroupKey::new(0x0200, 1, 77);
        let items = [
            BackendItem::Send {
                sessions: vec![SESSION],
                messages: vec![ServerMessage::event(0x1021, Bytes::new())],
            },
            BackendItem::Publish {
                group,
                epoch: Epoch(1),
                sequence: 8,
                kind: PublishKind::Delta,
                message: state,
            },
            BackendItem::Publish {
                group,
                epoch: Epoch(1),
                sequence: 9,
                kind: PublishKind::Part,
                message: ServerMessage::state(0x1001, 3, 99, Bytes::new()),
            },
            BackendItem::Subscribe { session: SESSION, groups: vec![group], replace: true },
            BackendItem::Unsubscribe { session: SESSION, groups: vec![group] },
            BackendItem::Bind {
                session: SESSION,
                kind: BackendKind::ZONE,
                instance: "zone-1".into(),
                bind_epoch: Epoch(6),
            },
            BackendItem::Ready { session: SESSION, bind_epoch: Epoch(6) },
            BackendItem::Close { session: SESSION, code: 10, detail: "bye".into() },
            BackendItem::Fenced(Fence { session: SESSION, session_epoch: Epoch(2) }),
            BackendItem::Lifted(Fence { session: SESSION, session_epoch: Epoch(3) }),
            BackendItem::Missed {
                session: SESSION,
                group,
                message: ServerMessage::event(0x1040, Bytes::from_static(b"once")),
            },
        ];
        for item in items {
            let bytes = encoded(&item);
            assert_eq!(reencoded::<proto::BackendItem>(&bytes), bytes, "{item:?}");
            assert_eq!(backend_item(&bytes).unwrap(), item);
        }
    }

    #[test]
    fn item_with_wrong_session_kind_or_group_is_refused() {
        use proto::backend_item::Item;
        let wrong = [
            Item::Send(proto::Send { sessions: vec![Bytes::from_static(&[1; 15])], messages: vec![] }),
            Item::Send(proto::Send {
                sessions: vec![],
                messages: vec![proto::ServerMessage { kind: 9, ..Default::default() }],
            }),
            Item::Publish(proto::Publish { kind: 9, ..Default::default() }),
            Item::Ready(proto::Ready::default()),
            Item::Subscribe(proto::Subscribe {
                session: Bytes::from_static(&[1; 16]),
                groups: vec![proto::Group { namespace: 1 << 48, ..Default::default() }],
                replace: false,
            }),
        ];
        for item in wrong {
            let bytes: Bytes = proto::BackendItem { item: Some(item) }.encode_to_vec().into();
            backend_item(&bytes).unwrap_err();
        }
        for bytes in [&b""[..], &[0x0a, 0xff], &[0x08, 1], &[0x0a, 0, 0x0a, 0]] {
            backend_item(&Bytes::from_static(bytes)).unwrap_err();
            gateway_item(&Bytes::from_static(bytes)).unwrap_err();
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let bytes = Bytes::from(bytes);
            let _ = (gateway_item(&bytes), backend_item(&bytes));
        }
    }

    /// Whether it pays to encode an item once and copy the bytes into the batch of each link. Run it with `--ignored
    /// --nocapture`, in a release build.
    #[test]
    #[ignore = "prints a measurement"]
    fn report_cost_of_shared_encoding() {
        const ROUNDS: u32 = 100_000;
        for (gateways, size) in [(1, 64), (4, 64), (16, 64), (4, 2_000)] {
            let item = BackendItem::Publish {
                group: GroupKey::new(0x0200, 1, 77),
                epoch: Epoch(3),
                sequence: 1_000_000,
                kind: PublishKind::Delta,
                message: ServerMessage::state(0x1001, 3, 99, vec![7; size]),
            };
            let mut batches = vec![BytesMut::with_capacity(1 << 16); gateways];
            let mut measure = |append: &dyn Fn(&mut [BytesMut])| {
                let begun = std::time::Instant::now();
                for _ in 0..ROUNDS {
                    append(&mut batches);
                    batches.iter_mut().for_each(BytesMut::clear);
                }
                begun.elapsed() / ROUNDS
            };
            let shared = measure(&|batches| {
                let bytes = encode_shared(&item);
                batches.iter_mut().for_each(|batch| batch.extend_from_slice(&bytes));
            });
            let each = measure(&|batches| batches.iter_mut().for_each(|batch| encode(batch, &item)));
            println!("{size} bytes to {gateways} gateways: encoded once {shared:?}, for each link {each:?}");
        }
    }
}
