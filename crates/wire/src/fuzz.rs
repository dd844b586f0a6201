//! Entry points for fuzzers over every decoder of this crate. Tests replay the fuzz corpus through them. Each
//! function accepts any bytes and returns, and decoded values encode to the same bytes again.

use std::{collections::VecDeque, time::Instant};

use bytes::{Buf, Bytes, BytesMut};
use shardkeep_types::Secret;

use crate::{
    Message, Side,
    datagram::DatagramOpener,
    message::parse_all,
    movement::{Avatar, Cell, Move},
    opcode::{self, Phase},
    payload,
    preface::{self, Preface},
    proxy,
    record::{Decoder, HEADER},
    seal::{KEY, Opener, Suite},
    session::{Bounds, Inbox, Outbox},
    varint,
};

/// Decodes `bytes` with every decoder. The first byte selects the kind of stream.
pub fn decode_all(bytes: &[u8]) {
    let _ = varint::decode(bytes);
    if let Some(preface) = bytes.first_chunk() {
        let _ = Preface::parse(preface);
    }
    proxy_header(bytes);
    for side in [Side::Client, Side::Server] {
        let mut buffer = BytesMut::from(bytes);
        while let Ok(Some(body)) = Decoder::new(side).next(&mut buffer) {
            open_sealed(&body);
            messages(&body);
        }
    }
    open_sealed(bytes);
    messages(bytes);
    movement(bytes);
}

/// The first bytes of a connection.
pub fn preface(bytes: &[u8]) {
    let Some(bytes) = bytes.first_chunk() else { return };
    let ours = Preface::new(preface::Service::Gateway, preface::deployment_tag("dev"));
    match Preface::parse(bytes) {
        Ok(parsed) => {
            assert_eq!(parsed.encode(), *bytes);
            assert_eq!(ours.accept(bytes).is_ok(), parsed == ours);
        }
        Err(_) => assert!(ours.accept(bytes).is_err()),
    }
}

/// A stream of records. The first byte selects the sender and the chunk size; the chunk size must not change the
/// result.
pub fn records(bytes: &[u8]) {
    let Some((&selector, stream)) = bytes.split_first() else { return };
    let side = if selector & 1 == 0 { Side::Client } else { Side::Server };
    let whole = decode_in_pieces(side, stream, stream.len().max(1));
    assert_eq!(whole, decode_in_pieces(side, stream, usize::from(selector >> 1) + 1));
    for body in &whole.0 {
        assert!((1..=side.max_record()).contains(&body.len()));
        open_sealed(body);
    }
}

/// Bodies of a stream that arrives in chunks, and whether the stream ended with an error.
fn decode_in_pieces(side: Side, stream: &[u8], piece: usize) -> (Vec<BytesMut>, bool) {
    let (mut bodies, mut buffer) = (Vec::new(), BytesMut::new());
    for piece in stream.chunks(piece) {
        buffer.extend_from_slice(piece);
        loop {
            match Decoder::new(side).next(&mut buffer) {
                Ok(Some(body)) => bodies.push(body),
                Ok(None) => break,
                Err(_) => return (bodies, true),
            }
        }
        assert!(buffer.len() < HEADER + side.max_record(), "a whole record was left lying");
    }
    (bodies, false)
}

/// Plaintext of one record. Each message has exactly one encoding.
pub fn message(record: &[u8]) {
    let mut again = BytesMut::new();
    for parsed in parse_all(record).map_while(Result::ok) {
        parsed.encode(&mut again);
        for phase in PHASES {
            let _ = opcode::check(phase, parsed.opcode, parsed.kind(), parsed.payload.len());
        }
        payloads(&parsed);
    }
    assert!(record.starts_with(&again), "a message came back in another form");
    messages(record);
    movement(record);
}

const PHASES: [Phase; 7] = [
    Phase::LoginNew,
    Phase::LoginChallenged,
    Phase::LoginVerified,
    Phase::LoginWelcome,
    Phase::GatewayNew,
    Phase::GatewayAttached,
    Phase::Session,
];

/// First bytes of a new client: a preface, then plain records with one message each, as far as the handshake phases
/// allow.
pub fn handshake(bytes: &[u8]) {
    let Some((first, rest)) = bytes.split_first_chunk() else { return };
    let Ok(preface) = Preface::parse(first) else { return };
    let phases = match preface.service {
        preface::Service::Gateway => &[Phase::GatewayNew, Phase::GatewayAttached][..],
        _ => &[Phase::LoginNew, Phase::LoginChallenged, Phase::LoginVerified][..],
    };
    let mut buffer = BytesMut::from(rest);
    for phase in phases {
        let Ok(Some(body)) = Decoder::new(Side::Client).next(&mut buffer) else { return };
        let Ok((message, taken)) = Message::parse(&body) else { return };
        let allowed = opcode::check(*phase, message.opcode, message.kind(), message.payload.len());
        if taken != body.len() || allowed.is_err() {
            return;
        }
        let known = match message.opcode {
            opcode::HELLO => {
                message.decode::<payload::Hello>().map(|hello| check_suite_choice(&hello.suites))
            }
            opcode::PROOF => message.decode::<payload::Proof>().map(drop),
            opcode::FINISHED => message.decode::<payload::Finished>().map(drop),
            opcode::ATTACH => {
                message.decode::<payload::Attach>().map(|attach| check_suite_choice(&attach.suites))
            }
            opcode::RESUME => {
                message.decode::<payload::Resume>().map(|resume| check_suite_choice(&resume.suites))
            }
            opcode::CONFIRM => message.decode::<payload::Confirm>().map(drop),
            _ => return,
        };
        if known.is_err() {
            return;
        }
    }
}

fn check_suite_choice(suites: &[i32]) {
    if let Some(chosen) = Suite::choose(suites) {
        assert!(suites.contains(&chosen.number()));
    }
}

/// Runs commands against the reliable log of a session: send, acknowledge, resume, lose, move. A plain list serves
/// as the model.
pub fn session_log(bytes: &[u8]) {
    let mut commands = bytes;
    let (mut outbox, mut inbox) = (Outbox::new(Bounds::CLIENT), Inbox::default());
    let mut model: VecDeque<Bytes> = VecDeque::new();
    let (mut sent, mut received) = (0u64, 0u64);
    let now = Instant::now();
    while let Some(command) = take(&mut commands) {
        let argument = take(&mut commands).unwrap_or_default();
        match command % 7 {
            0 => {
                let message = Bytes::from(vec![argument; usize::from(argument) * usize::from(command)]);
                let room = outbox.has_room(message.len());
                assert_eq!(outbox.push(message.clone()).is_ok(), room);
                if room {
                    sent += 1;
                    model.push_back(message);
                }
            }
            1 | 2 => {
                let upto = pick_sequence(outbox.acknowledged(), argument, &mut commands);
                let done = if command % 7 == 1 {
                    assert_eq!(outbox.acknowledge(upto).is_ok(), upto <= sent);
                    upto <= sent
                } else {
                    let before = outbox.acknowledged();
                    let again = outbox.resume_from(upto).map(|rest| rest.cloned().collect::<VecDeque<_>>());
                    assert_eq!(again.is_ok(), (before..=sent).contains(&upto));
                    again.is_ok()
                };
                while done && sent - (model.len() as u64) < upto {
                    model.pop_front();
                }
            }
            3 => outbox = Outbox::restore(Bounds::CLIENT, outbox.sent(), outbox.unacknowledged().cloned()),
            4 => {
                inbox.receive(now);
                received += 1;
                assert_eq!(inbox.received(), received);
                let _ = inbox.ack_due(now);
            }
            5 => {
                assert_eq!(inbox.acknowledge(), received);
                assert!(!inbox.ack_due(now) && inbox.deadline().is_none());
            }
            _ => {
                outbox.restart();
                inbox.restart();
                model.clear();
                (sent, received) = (0, 0);
            }
        }
        assert_eq!((outbox.sent(), outbox.acknowledged()), (sent, sent - model.len() as u64));
        assert_eq!(outbox.bytes(), model.iter().map(Bytes::len).sum::<usize>());
        assert!(outbox.unacknowledged().eq(model.iter()));
        assert!(model.len() <= Bounds::CLIENT.messages && outbox.bytes() <= Bounds::CLIENT.bytes);
    }
}

fn take(commands: &mut &[u8]) -> Option<u8> {
    let byte = *commands.first()?;
    commands.advance(1);
    Some(byte)
}

/// A number close to the last acknowledged one, or an arbitrary number.
fn pick_sequence(acknowledged: u64, argument: u8, commands: &mut &[u8]) -> u64 {
    if argument < 0xf0 {
        return (acknowledged + u64::from(argument)).saturating_sub(4);
    }
    let mut number = [0; 8];
    number.fill_with(|| take(commands).unwrap_or(0xff));
    u64::from_le_bytes(number)
}

fn proxy_header(bytes: &[u8]) {
    if let Some((fixed, rest)) = bytes.split_first_chunk()
        && let Ok(begin) = proxy::FixedHeader::parse(fixed)
    {
        let _ = begin.source(fixed, &rest[..begin.rest().min(rest.len())]);
    }
}

fn open_sealed(body: &[u8]) {
    for suite in Suite::ALL {
        if let Ok(mut opener) = Opener::<crate::seal::AwsLc>::new(suite, Secret::new([0; KEY])) {
            let _ = opener.open(&mut BytesMut::from(body));
        }
        if let Ok(mut opener) = DatagramOpener::<crate::seal::AwsLc>::new(suite, Secret::new([0; KEY])) {
            let _ = opener.open(body);
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
    let _ = message.decode::<payload::PublishedRelease>();
    let _ = message.decode::<payload::GetPiece>();
    let _ = message.decode::<payload::Piece>();
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
        fn decoders_survive_arbitrary_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            decode_all(&bytes);
            preface(&bytes);
            records(&bytes);
            message(&bytes);
            handshake(&bytes);
            session_log(&bytes);
        }

        /// Mutated valid streams reach deeper code than random bytes.
        #[test]
        fn decoders_survive_mutated_streams(
            heads in proptest::collection::vec((any::<u16>(), any_head()), 1..5),
            mutations in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..4),
        ) {
            let mut record = BytesMut::new();
            for (opcode, head) in heads {
                encode(&mut record, opcode, head, &Hello { account: "a".into(), ..Hello::default() });
            }
            let mut out = BytesMut::new();
            let mut writer = Writer::begin(&mut out, Side::Client);
            writer.push_encoded(&record).unwrap();
            writer.plain();
            for (at, byte) in mutations {
                let at = at.index(out.len());
                out[at] = byte;
            }
            decode_all(&out);
        }
    }
}
