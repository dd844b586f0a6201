//! The vectors of `docs/protocol.md`, section "Framing", which another implementation made: everything encodes to
//! them, and they decode to everything.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use shardkeep_types::{CellId, CharacterId, EntityId, ItemId, Secret, SpaceId};
use shardkeep_wire::{
    Message, Side,
    datagram::{DatagramOpener, DatagramSealer},
    movement::{
        self, Appearance, Avatar, Cell, EntityKind, Entry, Form, Move, RemovalReason, cell_head, encode_cell,
    },
    opcode,
    payload::{Ack, Channel, Error, ErrorCode, KeyUpdate, Ping, Speak},
    record::{Decoder, Writer},
    seal::{Opener, Sealer, Suite},
    varint,
};

/// Name and bytes of every line in the code blocks; lines that begin with a space continue the one before.
fn vectors() -> BTreeMap<String, Vec<u8>> {
    let page = include_str!("../../../../docs/protocol.md");
    let section = page.split("### Framing").nth(1).expect("the section exists").split("\n##").next().unwrap();
    let mut vectors = BTreeMap::<String, String>::new();
    let mut name = String::new();
    for line in section.split("```").skip(1).step_by(2).flat_map(str::lines).filter(|line| !line.is_empty()) {
        let (start, hex) = line.split_at(line.rfind("  ").map_or(0, |at| at + 2));
        if !start.trim().is_empty() {
            name = start.trim().to_owned();
        }
        vectors.entry(name.clone()).or_default().push_str(hex.trim());
    }
    vectors.into_iter().map(|(name, hex)| (name, hex::decode(hex).unwrap())).collect()
}

fn ping() -> Message {
    Message::event(opcode::PING, &Ping { value: 1 })
}

fn speak() -> Message {
    let payload = Speak { channel: Channel::Say as i32, text: "hello".into(), to: String::new() };
    Message::request(opcode::SPEAK, 300, &payload)
}

fn move_message() -> Message {
    let mut payload = BytesMut::new();
    Move { sequence: 7, velocity: [-3_000, 1_500], facing: 64 }.encode(&mut payload);
    Message::new(opcode::MOVE, movement::OWN, payload.freeze())
}

const CELL: CellId = CellId { space: SpaceId(1), x: 15, y: 16 };

fn entries() -> ([Entry<'static>; 2], [Entry<'static>; 2]) {
    let avatar = Entry::new(EntityId::avatar(CharacterId(42)));
    let sword = Entry::new(EntityId::ground_item(ItemId(7)));
    let keyframe = [
        Entry {
            appears: Some(Appearance { kind: EntityKind::Avatar, template: 0, name: "Alice" }),
            offset: Some([31_999, 0]),
            velocity: Some([-3_000, 1_500]),
            facing: Some(64),
            health: Some(229),
            ..avatar
        },
        Entry {
            appears: Some(Appearance { kind: EntityKind::GroundItem, template: 4, name: "" }),
            offset: Some([100, 200]),
            ..sword
        },
    ];
    let delta = [
        Entry { offset: Some([31_849, 75]), velocity: Some([0, 0]), ..avatar },
        Entry { gone: Some(RemovalReason::Left), ..sword },
    ];
    (keyframe, delta)
}

#[test]
fn varints_match_vectors() {
    for (value, bytes) in
        vectors().iter().filter_map(|(name, bytes)| Some((name.parse::<u64>().ok()?, bytes)))
    {
        let mut out = Vec::new();
        varint::encode(value, &mut out);
        assert_eq!(&out, bytes);
        assert_eq!(varint::decode(bytes), Ok((value, bytes.len())));
    }
}

#[test]
fn messages() {
    let vectors = vectors();
    let avatar = Avatar {
        tick: 123_456,
        sequence: 7,
        position: [511_999, 512_000],
        velocity: [-3_000, 1_500],
        facing: 64,
        health: 90,
        max_health: 100,
    };
    let mut payload = BytesMut::new();
    avatar.encode(&mut payload);
    let error = Error::of(ErrorCode::Refused, "too far");
    for (name, message) in [
        ("Ping", ping()),
        ("Ack", Message::event(opcode::ACK, &Ack { received: 1 << 32 })),
        ("Speak", speak()),
        ("Error", Message::error_reply(300, &error)),
        ("Move", move_message()),
        ("Avatar", Message::new(opcode::AVATAR, movement::OWN, payload.freeze())),
    ] {
        let mut bytes = Bytes::from(vectors[name].clone());
        assert_eq!(message.to_bytes(), bytes, "{name}");
        assert_eq!(Message::split_from(&mut bytes), Ok(Some(message)), "{name}");
    }
}

#[test]
fn cells_match_vectors() {
    let (keyframe, delta) = entries();
    for (name, form, tick, outer, entries) in [
        ("Cell keyframe", Form::Keyframe, 123_456, false, keyframe),
        ("Cell delta", Form::Delta, 123_457, true, delta),
    ] {
        let mut payload = BytesMut::new();
        encode_cell(&mut payload, form, tick, CELL, entries.into_iter());
        let message = Message::new(opcode::CELL, cell_head(CELL.number(), outer), payload.freeze());
        assert_eq!(message.to_bytes(), vectors()[name], "{name}");
        let cell = Cell::decode(&message.payload).unwrap();
        assert_eq!((cell.form, cell.tick, cell.cell), (form, tick, CELL));
        assert!(cell.entries().eq(entries));
    }
}

#[test]
fn plain_record_matches_vector() {
    let mut out = BytesMut::new();
    let mut writer = Writer::begin(&mut out, Side::Client);
    writer.push(&ping()).unwrap();
    writer.push(&speak()).unwrap();
    writer.plain();
    assert_eq!(&out[..], vectors()["plain record"]);
}

#[test]
fn sealed_records_match_vectors() {
    let vectors = vectors();
    let key: [u8; 32] = vectors["key"].clone().try_into().unwrap();
    let key_update = Message::event(opcode::KEY_UPDATE, &KeyUpdate {});
    let records = [vec![ping()], vec![speak()], vec![move_message(), key_update], vec![ping()]];
    for suite in Suite::ALL {
        let mut sealer = <Sealer>::new(suite, Secret::new(key)).unwrap();
        let mut opener = <Opener>::new(suite, Secret::new(key)).unwrap();
        for (number, messages) in records.iter().enumerate() {
            let mut out = BytesMut::new();
            let mut writer = Writer::begin(&mut out, Side::Client);
            messages.iter().for_each(|message| writer.push(message).unwrap());
            writer.seal(&mut sealer).unwrap();
            assert_eq!(&out[..], vectors[&format!("suite {} record {number}", suite.number())]);

            let mut body = Decoder::new(Side::Client).next(&mut out).unwrap().unwrap();
            opener.open(&mut body).unwrap();
            let mut plaintext = body.freeze();
            for message in messages {
                assert_eq!(Message::split_from(&mut plaintext).unwrap().as_ref(), Some(message));
                if message.opcode == opcode::KEY_UPDATE {
                    sealer.update().unwrap();
                    opener.update().unwrap();
                }
            }
            assert!(plaintext.is_empty());
        }
    }
}

#[test]
fn datagrams_match_vectors() {
    let vectors = vectors();
    let key: [u8; 32] = vectors["key"].clone().try_into().unwrap();
    let avatar = &vectors["Avatar"];
    for suite in Suite::ALL {
        let mut sealer = <DatagramSealer>::new(suite, Secret::new(key)).unwrap();
        let mut opener = <DatagramOpener>::new(suite, Secret::new(key)).unwrap();
        let expected = |name: &str| vectors[&format!("suite {} {name}", suite.number())].clone();
        let mut sealed: Vec<Bytes> = (0..10).map(|_| sealer.seal(avatar).unwrap()).collect();
        sealer.update();
        sealed.push(sealer.seal(avatar).unwrap());
        for (at, name, sequence) in [(0, "first", 0), (9, "tenth", 9), (10, "next key", 1 << 20)] {
            assert_eq!(sealed[at], expected(name));
            let opened = opener.open(&sealed[at]).unwrap().unwrap();
            assert_eq!((opened.sequence, &opened.messages[..]), (sequence, &avatar[..]));
            assert_eq!(opener.open(&sealed[at]), Ok(None), "once");
        }
    }
}
