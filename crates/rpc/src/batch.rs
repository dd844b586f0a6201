//! Batches of a link, as `GatewayBatch` and `BackendBatch` of `proto/link.proto` describe them. Written by hand because
//! the two ends differ from what a generator makes: who sends has its items encoded since they were said, and only
//! copies them; and a gateway, which receives most, reads them with less ado than a generated decoder.

use ::bytes::{Buf, BufMut, Bytes};
use prost::{
    DecodeError, Message,
    encoding::{DecodeContext, WireType, bytes, message, skip_field, uint64},
};

/// From gateway to backend.
pub type GatewayBatch = Batch<crate::link::GatewayItem>;
/// From backend to gateway. Its items arrive as bytes, each a `BackendItem`.
pub type BackendBatch = Batch<Bytes>;

/// Field of the items in both messages.
pub const ITEMS: u32 = 3;

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batch<I> {
    pub sequence: u64,
    pub ack: u64,
    /// Items one by one.
    pub items: Vec<I>,
    /// More items, each as it stands in the batch: key, length, content.
    pub encoded: Bytes,
}

/// What a batch may have items of. On the wire they look the same.
pub trait Item: std::fmt::Debug + Default + Send + Sync + Sized {
    fn encode_all(items: &[Self], out: &mut impl BufMut);
    fn encoded_len_all(items: &[Self]) -> usize;
    /// Reads one more.
    ///
    /// # Errors
    /// When the bytes are no item.
    fn merge(
        wire_type: WireType,
        items: &mut Vec<Self>,
        from: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError>;
}

macro_rules! item {
    ($type:ty, $encoding:ident) => {
        impl Item for $type {
            fn encode_all(items: &[Self], out: &mut impl BufMut) {
                for item in items {
                    $encoding::encode(ITEMS, item, out);
                }
            }

            fn encoded_len_all(items: &[Self]) -> usize {
                items.iter().map(|item| $encoding::encoded_len(ITEMS, item)).sum()
            }

            fn merge(
                wire_type: WireType,
                items: &mut Vec<Self>,
                from: &mut impl Buf,
                context: DecodeContext,
            ) -> Result<(), DecodeError> {
                $encoding::merge_repeated(wire_type, items, from, context)
            }
        }
    };
}

item!(crate::link::GatewayItem, message);
item!(Bytes, bytes);

impl<I: Item> Message for Batch<I> {
    fn encode_raw(&self, out: &mut impl BufMut) {
        if self.sequence != 0 {
            uint64::encode(1, &self.sequence, out);
        }
        if self.ack != 0 {
            uint64::encode(2, &self.ack, out);
        }
        I::encode_all(&self.items, out);
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
            ITEMS => I::merge(wire_type, &mut self.items, from, context),
            _ => skip_field(wire_type, tag, from, context),
        }
    }

    fn encoded_len(&self) -> usize {
        let number = |tag, value: &u64| if *value == 0 { 0 } else { uint64::encoded_len(tag, value) };
        number(1, &self.sequence)
            + number(2, &self.ack)
            + I::encoded_len_all(&self.items)
            + self.encoded.len()
    }

    fn clear(&mut self) {
        *self = Self { sequence: 0, ack: 0, items: Vec::new(), encoded: Bytes::new() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::{GatewayItem, Group, gateway_item::Item};

    #[test]
    fn preencoded_items_decode_like_others() {
        let item = |number| GatewayItem { item: Some(Item::Watch(Group { number, ..Group::default() })) };
        let mut encoded = Vec::new();
        message::encode(ITEMS, &item(2), &mut encoded);
        message::encode(ITEMS, &item(3), &mut encoded);
        let batch = GatewayBatch { sequence: 9, ack: 0, items: vec![item(1)], encoded: encoded.into() };
        let bytes = batch.encode_to_vec();
        assert_eq!(bytes.len(), batch.encoded_len());
        let arrived = GatewayBatch::decode(&*bytes).unwrap();
        assert_eq!((arrived.sequence, arrived.ack), (9, 0));
        assert_eq!(arrived.items, [item(1), item(2), item(3)]);
        let raw = Batch::<Bytes>::decode(&*bytes).unwrap();
        assert_eq!(GatewayItem::decode(raw.items[2].clone()).unwrap(), item(3));
        assert_eq!(raw.encode_to_vec(), bytes);
    }
}
