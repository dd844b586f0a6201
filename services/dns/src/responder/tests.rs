use std::net::Ipv4Addr;

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query as HickoryQuery, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{
            A,
            opt::{ClientSubnet, EdnsCode, EdnsOption},
        },
    },
};
use proptest::prelude::*;

use super::*;
use crate::{
    config::RateConfig,
    view::{Service, Target, View},
    zone::Zone,
};

const LOGIN: &str = "login.shardkeep.test.";
const GATEWAYS: &str = "_shardkeep._tcp.gateway.shardkeep.test.";
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7));
const NOW: Timestamp = Timestamp { micros: 1_000_000, seconds: 1_700_000_000 };
const COOKIE: EdnsCode = EdnsCode::Cookie;

fn config() -> Config {
    let regions = [
        ("eu".to_owned(), vec!["192.0.2.0/24".to_owned(), "2001:db8:e::/48".to_owned()]),
        ("us".to_owned(), vec!["192.0.0.0/16".to_owned(), "198.51.100.0/24".to_owned()]),
    ];
    // A small table is quickly made, which property tests do often.
    let rate = RateConfig { networks: 64, ..RateConfig::default() };
    Config { regions: regions.into(), max_answers: 8, rate, ..Config::default() }
}

fn view() -> View {
    let target = |name: String, address: [u8; 4], region: &str| Target {
        name,
        addresses: vec![address.into()],
        port: 4000,
        weight: 10,
        region: region.into(),
    };
    let mut view = View::new(true, 7);
    let login = [("eu", 1), ("us", 2), ("", 3)];
    let login = login.map(|(region, last)| target(format!("login-{last}"), [203, 0, 113, last], region));
    view.set_targets(Service::Login, login.into());
    let long = |n| format!("gateway-with-a-rather-long-name-number-{n}");
    view.set_targets(Service::Gateway, (1..=8).map(|n| target(long(n), [203, 0, 113, n], "")).collect());
    view
}

fn shared(config: &Config) -> Arc<Shared> {
    let table = Zone::new("shardkeep.test", config).unwrap().table(&view());
    Shared::new(config, Cookies::new([7; 16], None), table)
}

struct TestClient {
    responder: Responder,
    from: IpAddr,
    now: Timestamp,
}

impl TestClient {
    fn new(config: &Config, transport: Transport) -> Self {
        let responder = Responder::new(shared(config), transport, Random::new(5));
        Self { responder, from: CLIENT, now: NOW }
    }

    fn udp() -> Self {
        Self::new(&config(), Transport::Udp)
    }

    fn bytes(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        let mut out = vec![0xaa; 7];
        self.responder.answer(packet, self.from, self.now, &mut out).then_some(out)
    }

    fn try_ask(&mut self, message: &Message) -> Option<Message> {
        Some(Message::from_vec(&self.bytes(&message.to_vec().unwrap())?).unwrap())
    }

    fn ask(&mut self, message: &Message) -> Message {
        self.try_ask(message).expect("an answer")
    }
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(77, MessageType::Query, OpCode::Query);
    message.add_query(HickoryQuery::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn with_edns(name: &str, kind: RecordType, change: impl FnOnce(&mut Edns)) -> Message {
    let mut message = question(name, kind);
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    change(&mut edns);
    message.set_edns(edns);
    message
}

fn with_cookie(cookie: &[u8]) -> Message {
    let option = EdnsOption::Unknown(COOKIE.into(), cookie.to_vec());
    with_edns(LOGIN, RecordType::A, |edns| edns.options_mut().insert(option))
}

fn with_subnet(address: &str, source: u8) -> Message {
    let subnet = ClientSubnet::new(address.parse().unwrap(), source, 0);
    with_edns(LOGIN, RecordType::A, |edns| edns.options_mut().insert(EdnsOption::Subnet(subnet)))
}

fn addresses(answer: &Message) -> Vec<String> {
    let mut found: Vec<_> = answer.answers.iter().map(|record| record.data.to_string()).collect();
    found.sort();
    found
}

fn cookie_of(answer: &Message) -> Vec<u8> {
    match answer.edns.as_ref().unwrap().option(COOKIE) {
        Some(EdnsOption::Unknown(_, cookie)) => cookie.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn edns_is_echoed_and_unknown_version_gets_badvers() {
    let mut client = TestClient::udp();
    let answer = client.ask(&with_edns(LOGIN, RecordType::A, |edns| {
        edns.set_dnssec_ok(true);
    }));
    let echoed = answer.edns.as_ref().unwrap();
    assert_eq!((echoed.version(), echoed.max_payload(), echoed.flags().dnssec_ok), (0, 1232, true));
    assert!(!answer.answers.is_empty());
    let answer = client.ask(&with_edns(LOGIN, RecordType::A, |edns| {
        edns.set_version(1);
    }));
    // The number has two names.
    assert_eq!(u16::from(answer.response_code), 16);
    assert_eq!((answer.answers.len(), answer.edns.unwrap().version()), (0, 0));
    assert!(client.ask(&question(LOGIN, RecordType::A)).edns.is_none());
}

#[test]
fn long_answer_drops_additionals_then_truncates() {
    let mut client = TestClient::udp();
    let short = client.ask(&question(GATEWAYS, RecordType::SRV));
    assert!(short.truncation && short.answers.is_empty() && short.authorities.is_empty());
    let whole = client.ask(&with_edns(GATEWAYS, RecordType::SRV, |_| {}));
    assert_eq!((whole.truncation, whole.answers.len(), whole.additionals.len()), (false, 8, 8));
    let tight = client.ask(&with_edns(GATEWAYS, RecordType::SRV, |edns| {
        edns.set_max_payload(1000);
    }));
    assert!(!tight.truncation && tight.answers.len() == 8 && tight.additionals.len() < 8);
    let mut tcp = TestClient::new(&config(), Transport::Tcp);
    assert_eq!(tcp.ask(&question(GATEWAYS, RecordType::SRV)).answers.len(), 8);
}

#[test]
fn malformed_packets_get_matching_rcode() {
    let mut client = TestClient::udp();
    let mut code = |packet: &[u8]| {
        let answer = client.bytes(packet)?;
        assert_eq!(answer[..2], packet[..2]);
        Some(Message::from_vec(&answer).unwrap().response_code)
    };
    let good = question(LOGIN, RecordType::A).to_vec().unwrap();
    let mut two = question(LOGIN, RecordType::A);
    two.add_query(two.queries[0].clone());
    assert_eq!(code(&two.to_vec().unwrap()), Some(ResponseCode::FormErr));
    assert_eq!(code(&good[..20]), Some(ResponseCode::FormErr));
    assert_eq!(code(&good[..11]), None);
    let mut changed = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        code(&bytes)
    };
    assert_eq!(changed(2, 0x80), None, "a response");
    assert_eq!(changed(2, 0x28), Some(ResponseCode::NotImp), "an update");
    assert_eq!(changed(5, 0), Some(ResponseCode::FormErr));
    assert_eq!(changed(11, 9), Some(ResponseCode::FormErr), "records that are not there");
    let mut loops = good.clone();
    loops[12..14].copy_from_slice(&[0xc0, 12]);
    assert_eq!(code(&loops), Some(ResponseCode::FormErr));
    for broken in [&[7; 9][..], &[7; 15], &[7; 41]] {
        assert_eq!(code(&with_cookie(broken).to_vec().unwrap()), Some(ResponseCode::FormErr));
    }
}

#[test]
fn unusual_queries_are_answered() {
    let mut client = TestClient::udp();
    let mut signed = with_edns(LOGIN, RecordType::A, |_| {});
    let record = Record::from_rdata(Name::root(), 1, RData::A(A::new(192, 0, 2, 1)));
    signed.add_additional(record.clone());
    signed.add_answer(record);
    let answer = client.ask(&signed);
    assert_eq!((answer.id, answer.response_code), (77, ResponseCode::NoError));
    assert!(!answer.answers.is_empty() && answer.edns.is_some());
}

#[test]
fn cookie_is_issued_accepted_and_renewed() {
    let mut client = TestClient::udp();
    let cookie = cookie_of(&client.ask(&with_cookie(b"client-1")));
    assert_eq!((&cookie[..8], cookie.len()), (&b"client-1"[..], 24));
    assert_eq!(cookie_of(&client.ask(&with_cookie(&cookie))), cookie);
    client.now.seconds += 2000;
    let renewed = cookie_of(&client.ask(&with_cookie(&cookie)));
    assert!(renewed != cookie && renewed[..8] == cookie[..8]);
    // A cookie may also be asked for without a question.
    let mut bare = with_cookie(b"client-1");
    bare.queries.clear();
    let answer = client.ask(&bare);
    assert_eq!((answer.response_code, cookie_of(&answer).len()), (ResponseCode::NoError, 24));
}

/// Answers by kind: whole ones, cut ones, BADCOOKIE, none.
fn outcomes(client: &mut TestClient, message: &Message, times: usize) -> [usize; 4] {
    let mut outcomes = [0; 4];
    for _ in 0..times {
        let index = match client.try_ask(message) {
            Some(answer) if answer.truncation => 1,
            Some(answer) if answer.response_code == ResponseCode::BADCOOKIE => 2,
            Some(_) => 0,
            None => 3,
        };
        outcomes[index] += 1;
    }
    outcomes
}

#[test]
fn flood_is_limited_but_cookie_and_tcp_clients_pass() {
    let rate = RateConfig { answers_per_s: 10, burst: 20, slip: 2, ..RateConfig::default() };
    let mut client = TestClient::new(&Config { rate, ..config() }, Transport::Udp);
    let cookie = cookie_of(&client.ask(&with_cookie(b"client-1")));
    assert_eq!(outcomes(&mut client, &question(LOGIN, RecordType::A), 59), [19, 20, 0, 20]);
    // A neighbour shares the limit; a stranger does not.
    client.from = [198, 51, 100, 200].into();
    assert_eq!(outcomes(&mut client, &question("nobody.shardkeep.test.", RecordType::A), 10), [0, 5, 0, 5]);
    client.from = [198, 51, 101, 7].into();
    assert_eq!(outcomes(&mut client, &question(LOGIN, RecordType::A), 10), [10, 0, 0, 0]);
    client.from = CLIENT;
    // A client that asks for a cookie gets one, and the cookie lifts the limit.
    assert_eq!(outcomes(&mut client, &with_cookie(b"client-1"), 10), [0, 0, 5, 5]);
    assert_eq!(outcomes(&mut client, &with_cookie(&cookie), 100), [100, 0, 0, 0]);
    let stolen = [&b"client-2"[..], &cookie[8..]].concat();
    assert_eq!(outcomes(&mut client, &with_cookie(&stolen), 10), [0, 0, 5, 5]);
    // A truncated answer is as long as its query, plus the cookie.
    let asked = question(LOGIN, RecordType::A).to_vec().unwrap();
    let longest = (0..4).filter_map(|_| client.bytes(&asked)).map(|answer| answer.len()).max();
    assert_eq!(longest, Some(asked.len()));
    // Garbage is not answered beyond the limit either.
    assert_eq!((0..10).filter(|_| client.bytes(&asked[..20]).is_some()).count(), 0);
    let mut tcp = TestClient {
        responder: Responder::new(client.responder.shared.clone(), Transport::Tcp, Random::new(1)),
        ..client
    };
    assert_eq!(outcomes(&mut tcp, &question(LOGIN, RecordType::A), 50), [50, 0, 0, 0]);
}

#[test]
fn slip_zero_drops_all_limited_answers() {
    let rate = RateConfig { answers_per_s: 10, burst: 1, slip: 0, ..RateConfig::default() };
    let mut client = TestClient::new(&Config { rate, ..config() }, Transport::Udp);
    assert_eq!(outcomes(&mut client, &question(LOGIN, RecordType::A), 11), [1, 0, 0, 10]);
}

#[test]
fn region_is_chosen_by_subnet_or_address() {
    let mut client = TestClient::udp();
    client.from = [10, 0, 0, 1].into();
    let everybody = ["203.0.113.1", "203.0.113.2", "203.0.113.3"];
    assert_eq!(addresses(&client.ask(&question(LOGIN, RecordType::A))), everybody);
    let cases = [
        ("192.0.2.0", 24, &["203.0.113.1"][..], 24),
        ("192.0.3.0", 24, &["203.0.113.2"], 24),
        ("192.0.128.0", 20, &["203.0.113.2"], 17),
        ("2001:db8:e::", 56, &["203.0.113.1"], 48),
        ("10.0.0.0", 8, &everybody, 1),
        // Less than what decides: the scope says that more should be told.
        ("192.0.0.0", 16, &["203.0.113.2"], 23),
    ];
    for (address, source, found, scope) in cases {
        let answer = client.ask(&with_subnet(address, source));
        assert_eq!(addresses(&answer), found, "{address}");
        let edns = answer.edns.unwrap();
        let Some(EdnsOption::Subnet(subnet)) = edns.option(EdnsCode::Subnet) else { panic!("{edns:?}") };
        let echoed = (subnet.addr().to_string(), subnet.source_prefix(), subnet.scope_prefix());
        assert_eq!(echoed, (address.to_owned(), source, scope));
    }
    // Without a subnet, or with one that hides the client, the resolver's own address counts, for all its clients.
    client.from = CLIENT;
    assert_eq!(addresses(&client.ask(&question(LOGIN, RecordType::A))), ["203.0.113.2"]);
    let answer = client.ask(&with_subnet("0.0.0.0", 0));
    assert_eq!(addresses(&answer), ["203.0.113.2"]);
    let edns = answer.edns.unwrap();
    let Some(EdnsOption::Subnet(subnet)) = edns.option(EdnsCode::Subnet) else { panic!("{edns:?}") };
    assert_eq!((subnet.source_prefix(), subnet.scope_prefix()), (0, 0));
    // An answer that is the same in every region has scope 0.
    let mut elsewhere = with_subnet("192.0.2.0", 24);
    elsewhere.queries[0].set_query_type(RecordType::TXT);
    let edns = client.ask(&elsewhere).edns.unwrap();
    let Some(EdnsOption::Subnet(subnet)) = edns.option(EdnsCode::Subnet) else { panic!("{edns:?}") };
    assert_eq!(subnet.scope_prefix(), 0);
}

/// Properties of every answer.
fn check(packet: &[u8], transport: Transport) {
    let mut client = TestClient::new(&config(), transport);
    let Some(answer) = client.bytes(packet) else { return };
    assert_eq!((answer[..2] == packet[..2], answer[2] & 0x80), (true, 0x80));
    let limit = match (transport, read(packet)) {
        (Transport::Tcp, _) => 65_535,
        (Transport::Udp, Ok(query)) => query.edns.map_or(512, |edns| edns.limit.into()),
        (Transport::Udp, Err(_)) => 1232,
    };
    assert!(answer.len() <= limit, "{} bytes, at most {limit}", answer.len());
    Message::from_vec(&answer).expect("a well-formed answer");
}

fn seeds() -> Vec<Vec<u8>> {
    let mut signed = with_edns(GATEWAYS, RecordType::SRV, |_| {});
    signed.add_additional(Record::from_rdata(Name::root(), 1, RData::A(A::new(192, 0, 2, 1))));
    [
        question(LOGIN, RecordType::A),
        with_edns(GATEWAYS, RecordType::SRV, |_| {}),
        with_cookie(&[7; 24]),
        with_subnet("192.0.2.0", 24),
        question("a.shardkeep.test.", RecordType::ANY),
        signed,
    ]
    .map(|message| message.to_vec().unwrap())
    .into()
}

proptest! {
    #[test]
    fn any_bytes_get_valid_answer_or_none(
        bytes in proptest::collection::vec(any::<u8>(), 0..600),
        tcp: bool,
    ) {
        check(&bytes, if tcp { Transport::Tcp } else { Transport::Udp });
    }

    #[test]
    fn damaged_queries_get_valid_answer_or_none(
        seed in 0usize..6,
        damage in proptest::collection::vec((0usize..90, any::<u8>()), 0..6),
        length in 0usize..120,
        tcp: bool,
    ) {
        let mut bytes = seeds().swap_remove(seed);
        for (at, value) in damage {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        bytes.truncate(length);
        check(&bytes, if tcp { Transport::Tcp } else { Transport::Udp });
    }
}
