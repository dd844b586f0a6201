//! Items of backends as they arrive. What nearly all of them are (`Send`) is read field by field, with payloads that
//! share the frame's memory; anything else, and anything unusual, goes the common way.

use bytes::Bytes;
use prost::{
    Message as _,
    encoding::{WireType, decode_key, decode_varint},
};
use shardkeep_rpc::{Malformed, link as proto};
use shardkeep_types::SessionId;

use crate::message::{BackendItem, MessageKind, ServerMessage};

pub(crate) fn backend_item(item: Bytes) -> Result<BackendItem, Malformed> {
    match send(&item) {
        Some(send) => Ok(send),
        None => proto::BackendItem::decode(item).map_err(|error| Malformed::new("item", error))?.try_into(),
    }
}

/// The item, if it is a `Send` as we write them.
fn send(item: &Bytes) -> Option<BackendItem> {
    let mut outer = Fields(item);
    let content = outer.delimited(1)?;
    if !outer.0.is_empty() {
        return None;
    }
    let (mut fields, mut sessions, mut messages) = (Fields(content), Vec::new(), Vec::new());
    while !fields.0.is_empty() {
        match fields.key()? {
            (1, WireType::LengthDelimited) => sessions.push(SessionId::try_from(fields.bytes()?).ok()?),
            (2, WireType::LengthDelimited) => messages.push(server_message(item, fields.bytes()?)?),
            _ => return None,
        }
    }
    Some(BackendItem::Send { sessions, messages })
}

fn server_message(item: &Bytes, content: &[u8]) -> Option<ServerMessage> {
    let (mut fields, mut opcode, mut kind) = (Fields(content), 0, 0);
    let (mut request, mut class, mut key, mut payload) = (0, 0, 0, Bytes::new());
    while !fields.0.is_empty() {
        match fields.key()? {
            (1, WireType::Varint) => opcode = fields.number()?,
            (2, WireType::Varint) => kind = fields.number()?,
            (3, WireType::Varint) => request = fields.number()?,
            (4, WireType::Varint) => class = fields.number()?,
            (5, WireType::Varint) => key = fields.number()?,
            (6, WireType::LengthDelimited) => payload = item.slice_ref(fields.bytes()?),
            _ => return None,
        }
    }
    Some(ServerMessage {
        opcode: u16::try_from(opcode).ok()?,
        kind: MessageKind::try_from(u32::try_from(kind).ok()?).ok()?,
        request,
        class: u8::try_from(class).ok()?,
        key,
        payload,
    })
}

/// What is left to read of a message; `None` from any of these: not as we write it.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn key(&mut self) -> Option<(u32, WireType)> {
        decode_key(&mut self.0).ok()
    }

    fn number(&mut self) -> Option<u64> {
        decode_varint(&mut self.0).ok()
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    fn delimited(&mut self, field: u32) -> Option<&'a [u8]> {
        (self.key()? == (field, WireType::LengthDelimited)).then(|| self.bytes())?
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shardkeep_types::{BackendKind, Epoch};

    use super::*;

    fn encoded(item: BackendItem) -> Bytes {
        proto::BackendItem::from(item).encode_to_vec().into()
    }

    fn message(opcode: u16, kind: MessageKind) -> ServerMessage {
        ServerMessage { opcode, kind, request: 0, class: 0, key: 0, payload: Bytes::new() }
    }

    #[test]
    fn send_uses_fast_decoder_and_others_the_generated_one() {
        let reply = ServerMessage { request: 7, ..message(0x3000, MessageKind::Reply) };
        let state = ServerMessage {
            class: 255,
            key: u64::MAX,
            payload: vec![3; 300].into(),
            ..message(0xffff, MessageKind::State)
        };
        let send = BackendItem::Send {
            sessions: vec![SessionId([1; 16]), SessionId([2; 16])],
            messages: vec![reply, state, message(0, MessageKind::Event)],
        };
        let bytes = encoded(send.clone());
        assert_eq!(super::send(&bytes), Some(send.clone()));
        assert_eq!(backend_item(bytes).unwrap(), send);
        let bind = BackendItem::Bind {
            session: SessionId([1; 16]),
            kind: BackendKind::ZONE,
            instance: "zone-1".into(),
            bind_epoch: Epoch(3),
        };
        assert_eq!(super::send(&encoded(bind.clone())), None);
        assert_eq!(backend_item(encoded(bind.clone())).unwrap(), bind);
    }

    #[test]
    fn malformed_item_is_refused_by_both_decoders() {
        let wrong_session = proto::Send { sessions: vec![Bytes::from_static(&[1; 15])], messages: vec![] };
        let wrong_kind = proto::Send {
            sessions: vec![],
            messages: vec![proto::ServerMessage { kind: 9, ..Default::default() }],
        };
        for send in [wrong_session, wrong_kind] {
            let item = proto::BackendItem { item: Some(proto::backend_item::Item::Send(send)) };
            backend_item(item.encode_to_vec().into()).unwrap_err();
        }
        backend_item(Bytes::from_static(&[0x0a, 0xff])).unwrap_err();
    }

    proptest! {
        #[test]
        fn fast_decoder_agrees_with_generated_decoder(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let bytes = Bytes::from(bytes);
            if let Some(by_hand) = super::send(&bytes) {
                let common: BackendItem = proto::BackendItem::decode(bytes).unwrap().try_into().unwrap();
                prop_assert_eq!(by_hand, common);
            }
        }
    }
}
