//! A stranger's packet from the first byte to the answer, behind one function for fuzzers and for the replay of their
//! corpus: whatever the bytes are, it returns.

use std::sync::LazyLock;

use crate::{
    Config,
    encode::{encode, udp_limit},
    query::parse,
    random::Random,
    view::{Service, Target, View},
    zone::{Zone, complain},
};

static WORLD: LazyLock<(Zone, View)> = LazyLock::new(|| {
    let target = |name: &str| Target {
        name: name.to_owned(),
        addresses: vec![[192, 0, 2, 1].into(), [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into()],
        port: 7100,
        weight: 50,
    };
    let mut view = View::new(true, 1);
    for service in Service::ALL {
        view.set_targets(service, ["a-1", "a-2", "a-3"].map(target).to_vec());
    }
    (Zone::new("shardkeep.test", Config::default()).expect("a constant name"), view)
});

/// Answers one packet. What is no query has no answer; every other answer is a response to it that fits.
pub fn answer(packet: &[u8]) {
    let (zone, view) = &*WORLD;
    let (answer, limit) = match parse(packet) {
        Ok(question) => {
            let limit = udp_limit(question.edns.as_ref().map(hickory_proto::op::Edns::max_payload));
            (Some(zone.answer(&question, view, &mut Random::new(7))), limit)
        }
        Err(fault) => (complain(&fault), udp_limit(None)),
    };
    let Some(answer) = answer else { return };
    assert!(packet[2] & 0x80 == 0, "an answer was answered");
    if let Ok((bytes, _)) = encode(answer, limit) {
        assert!(bytes.len() <= limit, "{} bytes, at most {limit}", bytes.len());
        assert!(bytes[..2] == packet[..2] && bytes[2] & 0x80 != 0);
    }
}
