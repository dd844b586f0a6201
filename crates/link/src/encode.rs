//! Items as they stand in a batch. The one that every message of a client becomes is written field by field; the others
//! go the common way.

use bytes::{Bytes, BytesMut};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len, message};
use shardkeep_rpc::{
    batch::ITEMS,
    fields::{delimited_len, encode_field_header},
    link as proto,
};
use shardkeep_types::{Epoch, SessionId};

use crate::message::{BackendItem, ClientView, GatewayItem};

pub(crate) fn gateway_item(out: &mut BytesMut, item: GatewayItem) {
    message::encode(ITEMS, &proto::GatewayItem::from(item), out);
}

pub(crate) fn backend_item(out: &mut BytesMut, item: BackendItem) {
    message::encode(ITEMS, &proto::BackendItem::from(item), out);
}

/// For an item that several links carry: encoded once, then copied to each.
pub(crate) fn backend_item_bytes(item: BackendItem) -> Bytes {
    let mut out = BytesMut::with_capacity(item.bytes());
    backend_item(&mut out, item);
    out.freeze()
}

/// Field numbers of `proto/link.proto`.
mod field {
    pub(super) const ITEM_DELIVER: u32 = 1;
    pub(super) const SESSION: u32 = 1;
    pub(super) const SESSION_EPOCH: u32 = 2;
    pub(super) const MESSAGES: u32 = 3;
    pub(super) const OPCODE: u32 = 1;
    pub(super) const KIND: u32 = 2;
    pub(super) const REQUEST: u32 = 3;
    pub(super) const PAYLOAD: u32 = 4;
}

/// `GatewayItem { deliver }` of these messages.
pub(crate) fn deliver<'a>(
    out: &mut BytesMut,
    session: SessionId,
    epoch: Epoch,
    messages: impl Iterator<Item = ClientView<'a>> + Clone,
) {
    let id: &[u8] = session.as_bytes();
    let content = delimited_len(field::SESSION, id.len())
        + number_len(field::SESSION_EPOCH, epoch.0)
        + messages.clone().map(|it| delimited_len(field::MESSAGES, message_len(&it))).sum::<usize>();
    encode_field_header(out, ITEMS, delimited_len(field::ITEM_DELIVER, content));
    encode_field_header(out, field::ITEM_DELIVER, content);
    encode_field_header(out, field::SESSION, id.len());
    out.extend_from_slice(id);
    number(out, field::SESSION_EPOCH, epoch.0);
    for it in messages {
        encode_field_header(out, field::MESSAGES, message_len(&it));
        number(out, field::OPCODE, it.opcode.into());
        number(out, field::KIND, it.kind as u64);
        number(out, field::REQUEST, it.request);
        if !it.payload.is_empty() {
            encode_field_header(out, field::PAYLOAD, it.payload.len());
            out.extend_from_slice(it.payload);
        }
    }
}

fn message_len(message: &ClientView<'_>) -> usize {
    let payload = message.payload.len();
    number_len(field::OPCODE, message.opcode.into())
        + number_len(field::KIND, message.kind as u64)
        + number_len(field::REQUEST, message.request)
        + if payload == 0 { 0 } else { delimited_len(field::PAYLOAD, payload) }
}

/// Key and length of a field that has its length before it.
/// A number is not written when it is 0.
fn number(out: &mut BytesMut, field: u32, value: u64) {
    if value != 0 {
        encode_key(field, WireType::Varint, out);
        encode_varint(value, out);
    }
}

fn number_len(field: u32, value: u64) -> usize {
    if value == 0 { 0 } else { key_len(field) + encoded_len_varint(value) }
}

#[cfg(test)]
mod tests {
    use super::{
        super::message::{ClientMessage, MessageKind},
        *,
    };

    #[test]
    fn handwritten_deliver_matches_generated_encoding() {
        let message = |opcode, kind, request, payload: &'static [u8]| ClientMessage {
            opcode,
            kind,
            request,
            payload: Bytes::from_static(payload),
        };
        let messages = [
            message(0x1001, MessageKind::State, 0, &[7; 200]),
            message(0, MessageKind::Request, 0, b""),
            message(0xffff, MessageKind::Reply, u64::from(u32::MAX), b"x"),
        ];
        for (epoch, count) in [(0, 3), (1, 1), (u64::MAX, 2), (300, 0)] {
            let (session, epoch) = (SessionId([9; 16]), Epoch(epoch));
            let some = &messages[..count];
            let mut by_hand = BytesMut::new();
            deliver(&mut by_hand, session, epoch, some.iter().map(ClientMessage::view));
            let mut generated = BytesMut::new();
            let item = GatewayItem::Deliver { session, session_epoch: epoch, messages: some.to_vec() };
            gateway_item(&mut generated, item);
            assert_eq!(by_hand, generated);
        }
    }
}
