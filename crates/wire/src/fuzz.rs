//! Every decoder of the crate behind one function, for fuzzers and for the replay of their corpus: whatever the
//! bytes are, it returns.

use bytes::{Bytes, BytesMut};
use shardkeep_types::Secret;

use crate::{
    Message, Side,
    message::parse_all,
    movement::{Avatar, Cell, Move},
    opcode::{self, Phase},
    payload,
    preface::Preface,
    proxy,
    record::Decoder,
    seal::{KEY, Opener, Suite},
    varint,
};

/// Reads `bytes` as everything they could be. The first byte chooses between the kinds of stream.
pub fn decode_all(bytes: &[u8]) {
    let _ = varint::decode(bytes);
    if let Some(preface) = bytes.first_chunk() {
        let _ = Preface::parse(preface);
    }
    proxied(bytes);
    for side in [Side::Client, Side::Server] {
        let mut buffer = BytesMut::from(bytes);
        while let Ok(Some(body)) = Decoder::new(side).next(&mut buffer) {
            sealed(&body);
            messages(&body);
        }
    }
    sealed(bytes);
    messages(bytes);
    movement(bytes);
}

fn proxied(bytes: &[u8]) {
    if let Some((fixed, rest)) = bytes.split_first_chunk()
        && let Ok(begin) = proxy::Begin::parse(fixed)
    {
        let _ = begin.source(fixed, &rest[..begin.rest().min(rest.len())]);
    }
}

fn sealed(body: &[u8]) {
    for suite in Suite::ALL {
        if let Ok(mut opener) = Opener::<crate::seal::AwsLc>::new(suite, Secret::new([0; KEY])) {
            let _ = opener.open(&mut BytesMut::from(body));
        }
    }
}

fn messages(record: &[u8]) {
    for message in parse_all(record).flatten() {
        let _ = opcode::check(Phase::Session, message.opcode, message.kind(), message.payload.len());
        payloads(&message);
        movement(message.payload);
    }
    let mut record = Bytes::copy_from_slice(record);
    while let Ok(Some(_)) = Message::split_from(&mut record) {}
}

fn payloads(message: &Message<&[u8]>) {
    let _ = message.decode::<payload::Error>();
    let _ = message.decode::<payload::Ack>();
    let _ = message.decode::<payload::Hello>();
    let _ = message.decode::<payload::Challenge>();
    let _ = message.decode::<payload::Puzzle>();
    let _ = message.decode::<payload::Proof>();
    let _ = message.decode::<payload::WorldList>();
    let _ = message.decode::<payload::Resume>();
    let _ = message.decode::<payload::SessionReady>();
    let _ = message.decode::<payload::Trade>();
    let _ = message.decode::<payload::Committed>();
    let _ = message.decode::<payload::Speak>();
}

fn movement(payload: &[u8]) {
    let _ = Move::decode(payload);
    let _ = Avatar::decode(payload);
    if let Ok(cell) = Cell::decode(payload) {
        cell.entries().for_each(drop);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        message::tests::any_head,
        payload::{Hello, encode},
        record::Writer,
    };

    proptest! {
        #[test]
        fn arbitrary_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            decode_all(&bytes);
        }

        /// Valid streams with a few bytes bent reach deeper than noise does.
        #[test]
        fn bent_streams(
            heads in proptest::collection::vec((any::<u16>(), any_head()), 1..5),
            bends in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..4),
        ) {
            let mut record = BytesMut::new();
            for (opcode, head) in heads {
                encode(&mut record, opcode, head, &Hello { account: "a".into(), ..Hello::default() });
            }
            let mut out = BytesMut::new();
            let mut writer = Writer::begin(&mut out, Side::Client);
            writer.push_encoded(&record).unwrap();
            writer.plain();
            for (at, byte) in bends {
                let at = at.index(out.len());
                out[at] = byte;
            }
            decode_all(&out);
        }
    }
}
