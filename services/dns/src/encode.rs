//! Answers become bytes that fit their transport.

use hickory_proto::{ProtoError, op::Message};

use crate::zone::{MAX_UDP, PLAIN_UDP};

/// The answer as bytes, at most `limit` of them: what does not fit loses its extra records first, then all of them,
/// with the TC bit that sends the client to TCP. Tells whether that happened.
pub(crate) fn encode(mut answer: Message, limit: usize) -> Result<(Vec<u8>, bool), ProtoError> {
    let bytes = answer.to_vec()?;
    if bytes.len() <= limit {
        return Ok((bytes, false));
    }
    answer.additionals.clear();
    let bytes = answer.to_vec()?;
    if bytes.len() <= limit {
        return Ok((bytes, false));
    }
    answer.answers.clear();
    answer.authorities.clear();
    answer.metadata.truncation = true;
    Ok((answer.to_vec()?, true))
}

/// What a client takes by UDP: by its OPT record, within what networks pass unfragmented.
pub(crate) fn udp_limit(asked: Option<u16>) -> usize {
    asked.map_or(PLAIN_UDP, |size| size.clamp(PLAIN_UDP, MAX_UDP)).into()
}

#[cfg(test)]
mod tests {
    use hickory_proto::{
        op::{Edns, MessageType, OpCode, Query},
        rr::{Name, RData, Record, RecordType, rdata::TXT},
    };

    use super::*;

    fn answer(records: usize) -> Message {
        let mut message = Message::new(1, MessageType::Response, OpCode::Query);
        let name = Name::from_ascii("login.shardkeep.test.").unwrap();
        message.add_query(Query::query(name.clone(), RecordType::TXT));
        let record = Record::from_rdata(name, 5, RData::TXT(TXT::new(vec!["x".repeat(100)])));
        message.add_answers(std::iter::repeat_n(record.clone(), records));
        message.add_additional(record);
        message.set_edns(Edns::new());
        message
    }

    #[test]
    fn what_is_too_long_sheds_extras_then_answers() {
        let whole = answer(3).to_vec().unwrap().len();
        assert!(!encode(answer(3), whole).unwrap().1);
        let (bytes, truncated) = encode(answer(3), whole - 1).unwrap();
        let decoded = Message::from_vec(&bytes).unwrap();
        assert_eq!((truncated, decoded.answers.len(), decoded.additionals.len()), (false, 3, 0));
        let (bytes, truncated) = encode(answer(9), 512).unwrap();
        let decoded = Message::from_vec(&bytes).unwrap();
        assert!(truncated && decoded.truncation && decoded.answers.is_empty() && decoded.edns.is_some());
    }

    #[test]
    fn clients_say_what_they_take() {
        assert_eq!([None, Some(0), Some(900), Some(9000)].map(udp_limit), [512, 512, 900, 1232]);
    }
}
