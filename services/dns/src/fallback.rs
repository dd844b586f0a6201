//! Decodes packets that may be valid although resolvers do not send them: with further records, such as signatures, or
//! with a compressed name. hickory-proto decodes the whole packet, and this module encodes question and OPT record again
//! in the form that [`crate::query`] reads.

use hickory_proto::{
    op::Query,
    rr::{Record, RecordType},
    serialize::binary::{BinDecodable, BinDecoder, BinEncodable},
};

use crate::wire::{HEADER, MAX_NAME, u16_at};

/// A valid query carries one question and at most an OPT record and a signature. Packets with more records are refused.
const MAX_RECORDS: u16 = 4;

/// The general decoder refuses the packet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unreadable;

/// The same query with its question and OPT record alone. `packet` must have a header with at most one question.
pub(crate) fn normalized(packet: &[u8]) -> Result<Vec<u8>, Unreadable> {
    let [questions, answers, authorities, additionals] =
        [4, 6, 8, 10].map(|at| u16_at(packet, at).unwrap_or_default());
    if questions != 1 || [answers, authorities, additionals].iter().any(|count| *count > MAX_RECORDS) {
        return Err(Unreadable);
    }
    let mut decoder = BinDecoder::new(packet);
    decoder.read_slice(HEADER).map_err(|_| Unreadable)?;
    let question = Query::read(&mut decoder).map_err(|_| Unreadable)?;
    let mut opt = None;
    for additional in std::iter::repeat_n(false, (answers + authorities).into())
        .chain(std::iter::repeat_n(true, additionals.into()))
    {
        let start = decoder.index();
        let record: Record = Record::read(&mut decoder).map_err(|_| Unreadable)?;
        if record.record_type() == RecordType::OPT {
            let bytes = &packet[start..decoder.index()];
            // RFC 6891, 6.1.1: at most one OPT record, in the additional section, with the root as its name.
            if !additional || opt.is_some() || bytes.first() != Some(&0) {
                return Err(Unreadable);
            }
            opt = Some(bytes);
        }
    }
    if decoder.index() != packet.len() {
        return Err(Unreadable);
    }
    let name = question.name().to_bytes().map_err(|_| Unreadable)?;
    let opt = opt.unwrap_or_default();
    let mut normalized = Vec::with_capacity(HEADER + MAX_NAME + 4 + opt.len());
    normalized.extend_from_slice(&packet[..4]);
    normalized.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, u8::from(!opt.is_empty())]);
    normalized.extend_from_slice(&name);
    normalized.extend_from_slice(&u16::from(question.query_type()).to_be_bytes());
    normalized.extend_from_slice(&u16::from(question.query_class()).to_be_bytes());
    normalized.extend_from_slice(opt);
    Ok(normalized)
}

#[cfg(test)]
mod tests {
    use hickory_proto::{
        op::{Edns, Message, MessageType, OpCode},
        rr::{Name, RData, rdata::A},
    };

    use super::*;
    use crate::query::{QueryError, read};

    fn message() -> Message {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.add_query(Query::query(Name::from_ascii("LoGiN.shardkeep.test.").unwrap(), RecordType::A));
        message.set_edns(Edns::new());
        message
    }

    #[test]
    fn extra_records_are_removed_from_query() {
        let plainly = message().to_vec().unwrap();
        let record = Record::from_rdata(Name::root(), 1, RData::A(A::new(192, 0, 2, 1)));
        let mut odd = message();
        odd.add_answer(record.clone());
        odd.add_additional(record);
        let odd = odd.to_vec().unwrap();
        assert_eq!(read(&odd), Err(QueryError::NeedsFallback));
        assert_eq!(normalized(&odd).as_deref(), Ok(&plainly[..]));
    }

    #[test]
    fn undecodable_packets_are_unreadable() {
        let good = message().to_vec().unwrap();
        let with = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = good.clone();
            change(&mut bytes);
            normalized(&bytes)
        };
        assert!(with(&|_| {}).is_ok());
        assert_eq!(with(&|bytes| bytes.push(0)), Err(Unreadable), "something follows");
        assert_eq!(with(&|bytes| bytes[11] = 2), Err(Unreadable), "a record is missing");
        assert_eq!(with(&|bytes| bytes[7] = 5), Err(Unreadable), "too many records");
        // The name points to itself, and to the bytes after it.
        for target in [12, 40] {
            assert_eq!(with(&|bytes| bytes[12..14].copy_from_slice(&[0xc0, target])), Err(Unreadable));
        }
        let mut twice = message().to_vec().unwrap();
        twice[11] = 2;
        let opt = twice[twice.len() - 11..].to_vec();
        twice.extend_from_slice(&opt);
        assert_eq!(normalized(&twice), Err(Unreadable), "two OPT records");
    }
}
