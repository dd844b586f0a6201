//! Bytes of a stranger become a question here, or a reason why not. Nothing is allocated in proportion to what a
//! packet claims to hold.

use hickory_proto::{
    op::{Edns, Header, Message, MessageType, Metadata, OpCode, Query, ResponseCode},
    serialize::binary::{BinDecodable, BinDecoder},
};

/// A query carries one question and perhaps an OPT and a signature; more is not worth reading.
const MAX_RECORDS: u16 = 4;

/// A well-formed question.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) metadata: Metadata,
    pub(crate) query: Query,
    pub(crate) edns: Option<Edns>,
}

/// Why there is no question.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Not a query at all: answering it would make this server a mirror.
    Drop,
    /// To be answered with this code.
    Answer { metadata: Metadata, code: ResponseCode },
}

/// Reads one packet.
pub(crate) fn parse(packet: &[u8]) -> Result<Question, Fault> {
    let mut decoder = BinDecoder::new(packet);
    let header = Header::read(&mut decoder).map_err(|_| Fault::Drop)?;
    if header.message_type != MessageType::Query {
        return Err(Fault::Drop);
    }
    let fault = |code| Fault::Answer { metadata: header.metadata, code };
    if header.op_code != OpCode::Query {
        return Err(fault(ResponseCode::NotImp));
    }
    let counts = header.counts;
    let records = [counts.answers, counts.authorities, counts.additionals];
    if counts.queries != 1 || records.iter().any(|count| *count > MAX_RECORDS) {
        return Err(fault(ResponseCode::FormErr));
    }
    let malformed = |_| fault(ResponseCode::FormErr);
    let query = Query::read(&mut decoder).map_err(malformed)?;
    let mut edns = None;
    for (section, count) in records.into_iter().enumerate() {
        let additional = section == 2;
        let read = Message::read_records(&mut decoder, count.into(), additional, OpCode::Query);
        let (_, found, _) = read.map_err(|_| fault(ResponseCode::FormErr))?;
        edns = edns.or(found);
    }
    Ok(Question { metadata: header.metadata, query, edns })
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::{Name, RecordType};
    use proptest::prelude::*;

    use super::*;

    fn packet(message: &Message) -> Vec<u8> {
        message.to_vec().unwrap()
    }

    fn question() -> Message {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        let name = Name::from_ascii("LoGiN.shardkeep.test.").unwrap();
        message.add_query(Query::query(name, RecordType::A));
        message
    }

    fn code(packet: &[u8]) -> Option<ResponseCode> {
        match parse(packet) {
            Ok(_) | Err(Fault::Drop) => None,
            Err(Fault::Answer { code, .. }) => Some(code),
        }
    }

    #[test]
    fn a_question_keeps_its_case() {
        let parsed = parse(&packet(&question())).unwrap();
        assert_eq!(parsed.query.name().to_ascii(), "LoGiN.shardkeep.test.");
        assert!(parsed.edns.is_none());
    }

    #[test]
    fn other_than_one_question_is_answered_with_its_fault() {
        let mut two = question();
        two.add_query(two.queries[0].clone());
        assert_eq!(code(&packet(&two)), Some(ResponseCode::FormErr));
        let none = Message::new(7, MessageType::Query, OpCode::Query);
        assert_eq!(code(&packet(&none)), Some(ResponseCode::FormErr));
        let mut notify = question();
        notify.metadata.op_code = OpCode::Notify;
        assert_eq!(code(&packet(&notify)), Some(ResponseCode::NotImp));
        let mut cut = packet(&question());
        cut.truncate(20);
        assert_eq!(code(&cut), Some(ResponseCode::FormErr));
        let mut greedy = packet(&question());
        greedy[6..12].fill(0xff);
        assert_eq!(code(&greedy), Some(ResponseCode::FormErr));
    }

    #[test]
    fn answers_are_never_answered() {
        let mut response = question();
        response.metadata.message_type = MessageType::Response;
        assert_eq!(parse(&packet(&response)).unwrap_err(), Fault::Drop);
        assert_eq!(parse(&[0; 11]).unwrap_err(), Fault::Drop);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn damaged_questions_never_panic(
            damage in proptest::collection::vec((0usize..80, any::<u8>()), 0..8),
            length in 0usize..80,
        ) {
            let mut message = question();
            message.set_edns(Edns::new());
            let mut bytes = packet(&message);
            for (at, value) in damage {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = value;
                }
            }
            bytes.truncate(length);
            let _ = parse(&bytes);
        }
    }
}
