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
const NOW: Moment = Moment { micros: 1_000_000, seconds: 1_700_000_000 };
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

struct Asker {
    answerer: Answerer,
    from: IpAddr,
    now: Moment,
}

impl Asker {
    fn new(config: &Config, transport: Transport) -> Self {
        let answerer = Answerer::new(shared(config), transport, Random::new(5));
        Self { answerer, from: CLIENT, now: NOW }
    }

    fn udp() -> Self {
        Self::new(&config(), Transport::Udp)
    }

    fn bytes(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        let mut out = vec![0xaa; 7];
        self.answerer.answer(packet, self.from, self.now, &mut out).then_some(out)
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
fn edns_is_echoed_and_unknown_versions_are_told() {
    let mut asker = Asker::udp();
    let answer = asker.ask(&with_edns(LOGIN, RecordType::A, |edns| {
        edns.set_dnssec_ok(true);
    }));
    let echoed = answer.edns.as_ref().unwrap();
    assert_eq!((echoed.version(), echoed.max_payload(), echoed.flags().dnssec_ok), (0, 1232, true));
    assert!(!answer.answers.is_empty());
    let answer = asker.ask(&with_edns(LOGIN, RecordType::A, |edns| {
        edns.set_version(1);
    }));
    // The number has two names.
    assert_eq!(u16::from(answer.response_code), 16);
    assert_eq!((answer.answers.len(), answer.edns.unwrap().version()), (0, 0));
    assert!(asker.ask(&question(LOGIN, RecordType::A)).edns.is_none());
}

#[test]
fn what_is_too_long_sheds_extras_then_answers() {
    let mut asker = Asker::udp();
    let short = asker.ask(&question(GATEWAYS, RecordType::SRV));
    assert!(short.truncation && short.answers.is_empty() && short.authorities.is_empty());
    let whole = asker.ask(&with_edns(GATEWAYS, RecordType::SRV, |_| {}));
    assert_eq!((whole.truncation, whole.answers.len(), whole.additionals.len()), (false, 8, 8));
    let tight = asker.ask(&with_edns(GATEWAYS, RecordType::SRV, |edns| {
        edns.set_max_payload(1000);
    }));
    assert!(!tight.truncation && tight.answers.len() == 8 && tight.additionals.len() < 8);
    let mut tcp = Asker::new(&config(), Transport::Tcp);
    assert_eq!(tcp.ask(&question(GATEWAYS, RecordType::SRV)).answers.len(), 8);
}

#[test]
fn malformed_packets_get_the_code_that_fits() {
    let mut asker = Asker::udp();
    let mut code = |packet: &[u8]| {
        let answer = asker.bytes(packet)?;
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
fn unusual_queries_are_answered_all_the_same() {
    let mut asker = Asker::udp();
    let mut signed = with_edns(LOGIN, RecordType::A, |_| {});
    let record = Record::from_rdata(Name::root(), 1, RData::A(A::new(192, 0, 2, 1)));
    signed.add_additional(record.clone());
    signed.add_answer(record);
    let answer = asker.ask(&signed);
    assert_eq!((answer.id, answer.response_code), (77, ResponseCode::NoError));
    assert!(!answer.answers.is_empty() && answer.edns.is_some());
}

#[test]
fn a_cookie_is_given_and_taken() {
    let mut asker = Asker::udp();
    let cookie = cookie_of(&asker.ask(&with_cookie(b"client-1")));
    assert_eq!((&cookie[..8], cookie.len()), (&b"client-1"[..], 24));
    assert_eq!(cookie_of(&asker.ask(&with_cookie(&cookie))), cookie);
    asker.now.seconds += 2000;
    let renewed = cookie_of(&asker.ask(&with_cookie(&cookie)));
    assert!(renewed != cookie && renewed[..8] == cookie[..8]);
    // A cookie may also be asked for without a question.
    let mut bare = with_cookie(b"client-1");
    bare.queries.clear();
    let answer = asker.ask(&bare);
    assert_eq!((answer.response_code, cookie_of(&answer).len()), (ResponseCode::NoError, 24));
}

/// Answers by kind: whole ones, cut ones, BADCOOKIE, none.
fn outcomes(asker: &mut Asker, message: &Message, times: usize) -> [usize; 4] {
    let mut outcomes = [0; 4];
    for _ in 0..times {
        let place = match asker.try_ask(message) {
            Some(answer) if answer.truncation => 1,
            Some(answer) if answer.response_code == ResponseCode::BADCOOKIE => 2,
            Some(_) => 0,
            None => 3,
        };
        outcomes[place] += 1;
    }
    outcomes
}

#[test]
fn floods_are_limited_and_real_clients_find_a_way() {
    let rate = RateConfig { answers_per_s: 10, burst: 20, slip: 2, ..RateConfig::default() };
    let mut asker = Asker::new(&Config { rate, ..config() }, Transport::Udp);
    let cookie = cookie_of(&asker.ask(&with_cookie(b"client-1")));
    assert_eq!(outcomes(&mut asker, &question(LOGIN, RecordType::A), 59), [19, 20, 0, 20]);
    // A neighbour shares the limit; a stranger does not.
    asker.from = [198, 51, 100, 200].into();
    assert_eq!(outcomes(&mut asker, &question("nobody.shardkeep.test.", RecordType::A), 10), [0, 5, 0, 5]);
    asker.from = [198, 51, 101, 7].into();
    assert_eq!(outcomes(&mut asker, &question(LOGIN, RecordType::A), 10), [10, 0, 0, 0]);
    asker.from = CLIENT;
    // Who asks for a cookie gets one, and with it every answer.
    assert_eq!(outcomes(&mut asker, &with_cookie(b"client-1"), 10), [0, 0, 5, 5]);
    assert_eq!(outcomes(&mut asker, &with_cookie(&cookie), 100), [100, 0, 0, 0]);
    let stolen = [&b"client-2"[..], &cookie[8..]].concat();
    assert_eq!(outcomes(&mut asker, &with_cookie(&stolen), 10), [0, 0, 5, 5]);
    // What slips through is no longer than what was asked, but for the cookie.
    let asked = question(LOGIN, RecordType::A).to_vec().unwrap();
    let longest = (0..4).filter_map(|_| asker.bytes(&asked)).map(|answer| answer.len()).max();
    assert_eq!(longest, Some(asked.len()));
    // Garbage is not answered beyond the limit either.
    assert_eq!((0..10).filter(|_| asker.bytes(&asked[..20]).is_some()).count(), 0);
    let mut tcp = Asker {
        answerer: Answerer::new(asker.answerer.shared.clone(), Transport::Tcp, Random::new(1)),
        ..asker
    };
    assert_eq!(outcomes(&mut tcp, &question(LOGIN, RecordType::A), 50), [50, 0, 0, 0]);
}

#[test]
fn slipping_may_be_switched_off() {
    let rate = RateConfig { answers_per_s: 10, burst: 1, slip: 0, ..RateConfig::default() };
    let mut asker = Asker::new(&Config { rate, ..config() }, Transport::Udp);
    assert_eq!(outcomes(&mut asker, &question(LOGIN, RecordType::A), 11), [1, 0, 0, 10]);
}

#[test]
fn regions_are_told_by_subnet_or_by_address() {
    let mut asker = Asker::udp();
    asker.from = [10, 0, 0, 1].into();
    let everybody = ["203.0.113.1", "203.0.113.2", "203.0.113.3"];
    assert_eq!(addresses(&asker.ask(&question(LOGIN, RecordType::A))), everybody);
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
        let answer = asker.ask(&with_subnet(address, source));
        assert_eq!(addresses(&answer), found, "{address}");
        let edns = answer.edns.unwrap();
        let Some(EdnsOption::Subnet(subnet)) = edns.option(EdnsCode::Subnet) else { panic!("{edns:?}") };
        let echoed = (subnet.addr().to_string(), subnet.source_prefix(), subnet.scope_prefix());
        assert_eq!(echoed, (address.to_owned(), source, scope));
    }
    // Without a subnet, or with one that hides the client, the resolver's own address counts, for all its clients.
    asker.from = CLIENT;
    assert_eq!(addresses(&asker.ask(&question(LOGIN, RecordType::A))), ["203.0.113.2"]);
    let answer = asker.ask(&with_subnet("0.0.0.0", 0));
    assert_eq!(addresses(&answer), ["203.0.113.2"]);
    let edns = answer.edns.unwrap();
    let Some(EdnsOption::Subnet(subnet)) = edns.option(EdnsCode::Subnet) else { panic!("{edns:?}") };
    assert_eq!((subnet.source_prefix(), subnet.scope_prefix()), (0, 0));
    // What is the same everywhere is told to be so.
    let mut elsewhere = with_subnet("192.0.2.0", 24);
    elsewhere.queries[0].set_query_type(RecordType::TXT);
    let edns = asker.ask(&elsewhere).edns.unwrap();
    let Some(EdnsOption::Subnet(subnet)) = edns.option(EdnsCode::Subnet) else { panic!("{edns:?}") };
    assert_eq!(subnet.scope_prefix(), 0);
}

/// What every answer must be, whatever the packet.
fn check(packet: &[u8], transport: Transport) {
    let mut asker = Asker::new(&config(), transport);
    let Some(answer) = asker.bytes(packet) else { return };
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
    fn any_bytes_have_a_fitting_answer_or_none(
        bytes in proptest::collection::vec(any::<u8>(), 0..600),
        tcp: bool,
    ) {
        check(&bytes, if tcp { Transport::Tcp } else { Transport::Udp });
    }

    #[test]
    fn damaged_queries_have_a_fitting_answer_or_none(
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
