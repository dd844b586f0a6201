use hickory_proto::{
    op::{Edns as HickoryEdns, Message, MessageType, OpCode, Query as HickoryQuery},
    rr::{Name, RecordType},
    serialize::binary::BinEncodable,
};
use proptest::prelude::*;

use super::*;

fn question() -> Message {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    let name = Name::from_ascii("LoGiN.shardkeep.test.").unwrap();
    message.add_query(HickoryQuery::query(name, RecordType::A));
    message
}

fn packet(message: &Message) -> Vec<u8> {
    message.to_vec().unwrap()
}

fn fault(packet: &[u8]) -> Option<Why> {
    match read(packet) {
        Err(Fault::Malformed(malformed)) => Some(malformed.why),
        Ok(_) | Err(Fault::Drop | Fault::Unusual) => None,
    }
}

#[test]
fn a_question_keeps_its_case() {
    let bytes = packet(&question());
    let query = read(&bytes).unwrap();
    let asked = query.asked.unwrap();
    assert_eq!(asked.name, b"\x05LoGiN\x09shardkeep\x04test\x00");
    assert_eq!((asked.kind, asked.class), (1, 1));
    assert!(query.edns.is_none());
    let mut message = question();
    message.metadata.recursion_desired = true;
    message.set_edns(HickoryEdns::new());
    let bytes = packet(&message);
    let query = read(&bytes).unwrap();
    assert_eq!((query.id, query.flags), ([0, 7], flag::RECURSION_DESIRED));
    assert!(query.edns.is_some());
}

#[test]
fn what_is_wrong_is_told() {
    let good = packet(&question());
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        fault(&bytes)
    };
    assert_eq!(with(&|_| {}), None);
    assert_eq!(with(&|bytes| bytes[2] |= 4 << 3), Some(Why::Operation));
    assert_eq!(with(&|bytes| bytes[5] = 2), Some(Why::Questions));
    assert_eq!(with(&|bytes| bytes[5] = 0), Some(Why::Length));
    assert_eq!(with(&|bytes| bytes.truncate(20)), Some(Why::Name));
    assert_eq!(with(&|bytes| bytes.truncate(bytes.len() - 1)), Some(Why::Length));
    assert_eq!(with(&|bytes| bytes.push(0)), Some(Why::Length));
    assert_eq!(with(&|bytes| bytes[12] = 0x7f), Some(Why::Name));
    assert_eq!(with(&|bytes| bytes[11] = 1), Some(Why::Length), "an OPT that is not there");
    let nothing = packet(&Message::new(7, MessageType::Query, OpCode::Query));
    assert_eq!(fault(&nothing), Some(Why::Questions));
    assert_eq!(Why::Operation.code(), Code::NotImp);
}

#[test]
fn answers_are_never_answered() {
    let mut response = question();
    response.metadata.message_type = MessageType::Response;
    assert_eq!(read(&packet(&response)), Err(Fault::Drop));
    assert_eq!(read(&[0; 11]), Err(Fault::Drop));
    assert_eq!(read(&[]), Err(Fault::Drop));
}

#[test]
fn what_needs_a_general_decoder_is_left_to_it() {
    let mut bytes = packet(&question());
    bytes[7] = 1;
    assert_eq!(read(&bytes), Err(Fault::Unusual));
    let mut bytes = packet(&question());
    bytes[12..14].copy_from_slice(&[0xc0, 12]);
    assert_eq!(read(&bytes), Err(Fault::Unusual));
}

proptest! {
    /// Whatever is read here reads the same in a decoder that others have written.
    #[test]
    fn a_general_decoder_agrees(
        damage in proptest::collection::vec((0usize..60, any::<u8>()), 0..4),
        with_edns: bool,
        length in 0usize..80,
    ) {
        let mut message = question();
        if with_edns {
            message.set_edns(HickoryEdns::new());
        }
        let mut bytes = packet(&message);
        for (at, value) in damage {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        bytes.truncate(length.max(40));
        let Ok(query) = read(&bytes) else { return Ok(()) };
        let Some(asked) = query.asked else { return Ok(()) };
        // It also checks what options say, and knows fewer families; both end as malformed here too.
        if let Ok(decoded) = Message::from_vec(&bytes) {
            let theirs = &decoded.queries[0];
            prop_assert_eq!(theirs.name().to_bytes().unwrap(), asked.name);
            prop_assert_eq!(u16::from(theirs.query_type()), asked.kind);
            prop_assert_eq!(u16::from(theirs.query_class()), asked.class);
            prop_assert_eq!(decoded.edns.is_some(), query.edns.is_some());
            prop_assert_eq!(decoded.id.to_be_bytes(), query.id);
        }
    }
}
