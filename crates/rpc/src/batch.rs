//! Batches of a link: `GatewayBatch` and `BackendBatch` of `proto/link.proto`, which have the same form. A sender encodes
//! each item once, when it is queued, so a batch that leaves is bytes; in one that arrives each item is bytes.

use ::bytes::{Buf, BufMut, Bytes};
use prost::{
    DecodeError, Message,
    encoding::{DecodeContext, WireType, bytes, skip_field, uint64},
};

/// Field of the items in both messages.
pub const ITEMS: u32 = 3;

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batch {
    pub sequence: u64,
    pub ack: u64,
    /// Items that arrived, without key and length.
    pub items: Vec<Bytes>,
    /// Items that leave, as they stand in the batch: key, length, content.
    pub encoded: Bytes,
}

impl Message for Batch {
    fn encode_raw(&self, out: &mut impl BufMut) {
        if self.sequence != 0 {
            uint64::encode(1, &self.sequence, out);
        }
        if self.ack != 0 {
            uint64::encode(2, &self.ack, out);
        }
        bytes::encode_repeated(ITEMS, &self.items, out);
        out.put_slice(&self.encoded);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        from: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        match tag {
            1 => uint64::merge(wire_type, &mut self.sequence, from, context),
            2 => uint64::merge(wire_type, &mut self.ack, from, context),
            ITEMS => bytes::merge_repeated(wire_type, &mut self.items, from, context),
            _ => skip_field(wire_type, tag, from, context),
        }
    }

    fn encoded_len(&self) -> usize {
        let number = |tag, value: &u64| if *value == 0 { 0 } else { uint64::encoded_len(tag, value) };
        number(1, &self.sequence)
            + number(2, &self.ack)
            + bytes::encoded_len_repeated(ITEMS, &self.items)
            + self.encoded.len()
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use prost::encoding::message;

    use super::*;
    use crate::link::{GatewayItem, Group, gateway_item::Item};

    #[test]
    fn encoded_items_arrive_one_by_one() {
        let item = |number| GatewayItem { item: Some(Item::Watch(Group { number, ..Group::default() })) };
        let mut encoded = Vec::new();
        message::encode(ITEMS, &item(1), &mut encoded);
        message::encode(ITEMS, &item(2), &mut encoded);
        let batch = Batch { sequence: 9, encoded: encoded.into(), ..Batch::default() };
        let bytes = batch.encode_to_vec();
        assert_eq!(bytes.len(), batch.encoded_len());
        let arrived = Batch::decode(&*bytes).unwrap();
        assert_eq!((arrived.sequence, arrived.ack, arrived.items.len()), (9, 0, 2));
        assert_eq!(GatewayItem::decode(arrived.items[1].clone()).unwrap(), item(2));
        assert_eq!(arrived.encode_to_vec(), bytes);
    }
}
