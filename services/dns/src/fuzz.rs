//! One function for fuzzers: takes any packet through decoding and lookup to the answer, without sockets.

use std::sync::{Arc, LazyLock};

use crate::{
    Config,
    cookie::Cookies,
    random::Random,
    responder::{Responder, Shared, Timestamp},
    transport::Transport,
    view::{Service, Target, View},
    zone::Zone,
};

/// A server with replicas in two regions and without rate limits.
static SERVER: LazyLock<Arc<Shared>> = LazyLock::new(|| {
    let target = |(name, region): (&str, &str)| Target {
        name: name.to_owned(),
        addresses: vec![[192, 0, 2, 1].into(), [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into()],
        port: 7100,
        weight: 50,
        region: region.to_owned(),
    };
    let mut config = Config::default();
    config.rate.answers_per_s = 0;
    config.regions = [("eu".to_owned(), vec!["192.0.2.0/24".to_owned(), "2001:db8::/32".to_owned()])].into();
    let mut view = View::new(true, 1);
    for service in Service::ALL {
        view.set_targets(service, [("a-1", "eu"), ("a-2", "us"), ("a-3", "")].map(target).to_vec());
    }
    let table = Zone::new("shardkeep.test", &config).expect("a constant name").table(&view);
    Shared::new(&config, Cookies::new([7; 16], None), table)
});

/// Answers one packet as UDP and as TCP, and checks each answer: it is a response with the id of the query, and it fits
/// the size limit. A packet that is not a query gets no answer.
pub fn answer(packet: &[u8]) {
    for (transport, limit) in [(Transport::Udp, 1232), (Transport::Tcp, 65_535)] {
        let mut responder = Responder::new(SERVER.clone(), transport, Random::new(7));
        let now = Timestamp { micros: 1, seconds: 1_700_000_000 };
        let mut out = Vec::new();
        if responder.answer(packet, [192, 0, 2, 7].into(), now, &mut out) {
            assert!(packet[2] & 0x80 == 0, "an answer was answered");
            assert!(out.len() <= limit, "{} bytes, at most {limit}", out.len());
            assert!(out[..2] == packet[..2] && out[2] & 0x80 != 0);
        }
    }
}
