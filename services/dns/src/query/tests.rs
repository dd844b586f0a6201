use hickory_proto::{
    op::{Edns as HickoryEdns, Message, MessageType, OpCode, Query as HickoryQuery},
    rr::{Name, RecordType},
    serialize::binary::BinEncodable,
};
use proptest::prelude::*;

use super::*;

fn query_message() -> Message {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    let name = Name::from_ascii("LoGiN.shardkeep.test.").unwrap();
    message.add_query(HickoryQuery::query(name, RecordType::A));
    message
}

fn packet(message: &Message) -> Vec<u8> {
    message.to_vec().unwrap()
}

fn malformed_reason(packet: &[u8]) -> Option<MalformedReason> {
    match read(packet) {
        Err(QueryError::Malformed(malformed)) => Some(malformed.reason),
        Ok(_) | Err(QueryError::NotAQuery | QueryError::NeedsFallback) => None,
    }
}

#[test]
fn question_name_keeps_its_case() {
    let bytes = packet(&query_message());
    let query = read(&bytes).unwrap();
    let question = query.question.unwrap();
    assert_eq!(question.name, b"\x05LoGiN\x09shardkeep\x04test\x00");
    assert_eq!((question.kind, question.class), (1, 1));
    assert!(query.edns.is_none());
    let mut message = query_message();
    message.metadata.recursion_desired = true;
    message.set_edns(HickoryEdns::new());
    let bytes = packet(&message);
    let query = read(&bytes).unwrap();
    assert_eq!((query.id, query.flags), ([0, 7], flag::RECURSION_DESIRED));
    assert!(query.edns.is_some());
}

#[test]
fn malformed_packets_have_a_reason() {
    let good = packet(&query_message());
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        malformed_reason(&bytes)
    };
    assert_eq!(with(&|_| {}), None);
    assert_eq!(with(&|bytes| bytes[2] |= 4 << 3), Some(MalformedReason::Operation));
    assert_eq!(with(&|bytes| bytes[5] = 2), Some(MalformedReason::Questions));
    assert_eq!(with(&|bytes| bytes[5] = 0), Some(MalformedReason::Length));
    assert_eq!(with(&|bytes| bytes.truncate(20)), Some(MalformedReason::Name));
    assert_eq!(with(&|bytes| bytes.truncate(bytes.len() - 1)), Some(MalformedReason::Length));
    assert_eq!(with(&|bytes| bytes.push(0)), Some(MalformedReason::Length));
    assert_eq!(with(&|bytes| bytes[12] = 0x7f), Some(MalformedReason::Name));
    assert_eq!(with(&|bytes| bytes[11] = 1), Some(MalformedReason::Length), "an OPT that is not there");
    let nothing = packet(&Message::new(7, MessageType::Query, OpCode::Query));
    assert_eq!(malformed_reason(&nothing), Some(MalformedReason::Questions));
    assert_eq!(MalformedReason::Operation.code(), Code::NotImp);
}

#[test]
fn responses_and_short_packets_are_not_queries() {
    let mut response = query_message();
    response.metadata.message_type = MessageType::Response;
    assert_eq!(read(&packet(&response)), Err(QueryError::NotAQuery));
    assert_eq!(read(&[0; 11]), Err(QueryError::NotAQuery));
    assert_eq!(read(&[]), Err(QueryError::NotAQuery));
}

#[test]
fn unusual_packets_need_the_fallback() {
    let mut bytes = packet(&query_message());
    bytes[7] = 1;
    assert_eq!(read(&bytes), Err(QueryError::NeedsFallback));
    let mut bytes = packet(&query_message());
    bytes[12..14].copy_from_slice(&[0xc0, 12]);
    assert_eq!(read(&bytes), Err(QueryError::NeedsFallback));
}

proptest! {
    /// hickory-proto decodes every accepted packet to the same values.
    #[test]
    fn reader_agrees_with_hickory_decoder(
        damage in proptest::collection::vec((0usize..60, any::<u8>()), 0..4),
        with_edns: bool,
        length in 0usize..80,
    ) {
        let mut message = query_message();
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
        let Some(question) = query.question else { return Ok(()) };
        // It also checks what options say, and knows fewer families; both end as malformed here too.
        if let Ok(decoded) = Message::from_vec(&bytes) {
            let theirs = &decoded.queries[0];
            prop_assert_eq!(theirs.name().to_bytes().unwrap(), question.name);
            prop_assert_eq!(u16::from(theirs.query_type()), question.kind);
            prop_assert_eq!(u16::from(theirs.query_class()), question.class);
            prop_assert_eq!(decoded.edns.is_some(), query.edns.is_some());
            prop_assert_eq!(decoded.id.to_be_bytes(), query.id);
        }
    }
}
