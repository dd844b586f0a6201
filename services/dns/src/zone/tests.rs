use hickory_proto::op::{MessageType, OpCode};

use super::*;

fn target(name: &str, addresses: &[&str], weight: u16) -> Target {
    let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
    Target { name: name.into(), addresses, port: 4000, weight }
}

fn view() -> View {
    let mut view = View::new(true, 7);
    view.set_targets(Service::Login, vec![target("login-1", &["203.0.113.1", "2001:db8::1"], 50)]);
    let gateways =
        (1..=9).map(|n| target(&format!("gateway-{n}"), &[&format!("203.0.113.{n}")], n)).collect();
    view.set_targets(Service::Gateway, gateways);
    view.set_targets(Service::NameServer, vec![target("dns-1", &["203.0.113.53"], 100)]);
    view
}

fn zone() -> Zone {
    Zone::new("shardkeep.test", Config::default()).unwrap()
}

fn question(name: &str, kind: RecordType) -> Question {
    let query = Query::query(Name::from_ascii(name).unwrap(), kind);
    Question { metadata: Metadata::new(9, MessageType::Query, OpCode::Query), query, edns: None }
}

fn ask_with(view: &View, name: &str, kind: RecordType) -> Message {
    zone().answer(&question(name, kind), view, &mut Random::new(3))
}

fn ask(name: &str, kind: RecordType) -> Message {
    ask_with(&view(), name, kind)
}

fn kinds(records: &[Record]) -> Vec<RecordType> {
    records.iter().map(Record::record_type).collect()
}

#[test]
fn addresses_of_each_family() {
    for (kind, address) in [(RecordType::A, "203.0.113.1"), (RecordType::AAAA, "2001:db8::1")] {
        let answer = ask("login.shardkeep.test.", kind);
        assert_eq!(answer.response_code, ResponseCode::NoError);
        assert!(answer.authoritative && !answer.recursion_available);
        assert_eq!(kinds(&answer.answers), [kind]);
        assert_eq!(answer.answers[0].data.to_string(), address);
        assert!(answer.answers[0].ttl <= 5);
    }
    let any = ask("login.shardkeep.test.", RecordType::ANY);
    assert_eq!(kinds(&any.answers), [RecordType::A]);
}

#[test]
fn names_are_found_in_any_case_and_answered_in_theirs() {
    let answer = ask("LoGiN.ShardKeep.TEST.", RecordType::A);
    assert_eq!(answer.queries[0].name().to_ascii(), "LoGiN.ShardKeep.TEST.");
    assert_eq!(answer.answers[0].name.to_ascii(), "LoGiN.ShardKeep.TEST.");
}

#[test]
fn answers_are_bounded() {
    assert_eq!(ask("gateway.shardkeep.test.", RecordType::A).answers.len(), 4);
}

#[test]
fn no_address_and_no_name_carry_the_soa() {
    let cases = [
        ("gateway.shardkeep.test.", RecordType::AAAA, ResponseCode::NoError),
        ("login.shardkeep.test.", RecordType::TXT, ResponseCode::NoError),
        ("_tcp.login.shardkeep.test.", RecordType::A, ResponseCode::NoError),
        ("shardkeep.test.", RecordType::A, ResponseCode::NoError),
        ("world.shardkeep.test.", RecordType::A, ResponseCode::NXDomain),
        ("login-2.login.shardkeep.test.", RecordType::A, ResponseCode::NXDomain),
        ("a.b.c.d.login.shardkeep.test.", RecordType::A, ResponseCode::NXDomain),
        ("_http._tcp.login.shardkeep.test.", RecordType::SRV, ResponseCode::NXDomain),
    ];
    for (name, kind, code) in cases {
        let answer = ask(name, kind);
        assert_eq!(answer.response_code, code, "{name}");
        assert!(answer.answers.is_empty() && answer.authoritative, "{name}");
        assert_eq!(kinds(&answer.authorities), [RecordType::SOA], "{name}");
    }
}

#[test]
fn the_apex_has_soa_and_ns() {
    let soa = ask("shardkeep.test.", RecordType::SOA);
    let RData::SOA(data) = &soa.answers[0].data else { panic!() };
    assert_eq!((data.serial, data.mname.to_ascii().as_str()), (7, "ns.shardkeep.test."));
    let ns = ask("shardkeep.test.", RecordType::NS);
    assert_eq!(kinds(&ns.answers), [RecordType::NS]);
    assert_eq!(ns.additionals[0].data.to_string(), "203.0.113.53");
    assert_eq!(kinds(&ask("ns.shardkeep.test.", RecordType::A).answers), [RecordType::A]);
}

#[test]
fn srv_names_ports_and_replicas_that_resolve() {
    let answer = ask("_shardkeep._tcp.gateway.shardkeep.test.", RecordType::SRV);
    assert_eq!(answer.answers.len(), 4);
    for record in &answer.answers {
        let RData::SRV(srv) = &record.data else { panic!() };
        assert_eq!((srv.port, srv.priority), (4000, 0));
        let host = srv.target.to_ascii();
        assert_eq!(kinds(&ask(&host, RecordType::A).answers), [RecordType::A], "{host}");
        assert!(answer.additionals.iter().any(|glue| glue.name == srv.target));
    }
}

#[test]
fn what_is_not_ours_is_refused() {
    let refused = |name, kind| ask(name, kind).response_code == ResponseCode::Refused;
    assert!(refused("example.com.", RecordType::A));
    assert!(refused("notshardkeep.test.", RecordType::A));
    assert!(refused(".", RecordType::NS));
    assert!(refused("shardkeep.test.", RecordType::AXFR));
    let mut chaos = question("login.shardkeep.test.", RecordType::TXT);
    chaos.query.set_query_class(DNSClass::CH);
    let answer = zone().answer(&chaos, &view(), &mut Random::new(1));
    assert_eq!(answer.response_code, ResponseCode::Refused);
    assert!(!answer.authoritative);
}

#[test]
fn edns_is_echoed_and_unknown_versions_are_told() {
    let mut asked = question("login.shardkeep.test.", RecordType::A);
    let mut edns = Edns::new();
    edns.set_max_payload(4096).set_dnssec_ok(true);
    asked.edns = Some(edns.clone());
    let answer = zone().answer(&asked, &view(), &mut Random::new(1));
    let echoed = answer.edns.unwrap();
    assert_eq!((echoed.version(), echoed.max_payload(), echoed.flags().dnssec_ok), (0, MAX_UDP, true));
    edns.set_version(1);
    asked.edns = Some(edns);
    let answer = zone().answer(&asked, &view(), &mut Random::new(1));
    assert_eq!(answer.response_code, ResponseCode::BADVERS);
    assert!(answer.answers.is_empty());
}

#[test]
fn not_knowing_is_not_the_same_as_nobody() {
    let nobody = View::new(true, 7);
    let unknown = View::default();
    for (name, kind) in
        [("login.shardkeep.test.", RecordType::A), ("_shardkeep._tcp.login.shardkeep.test.", RecordType::SRV)]
    {
        assert_eq!(ask_with(&nobody, name, kind).response_code, ResponseCode::NoError);
        let failed = ask_with(&unknown, name, kind);
        assert_eq!(failed.response_code, ResponseCode::ServFail);
        assert!(failed.authorities.is_empty() && !failed.authoritative);
    }
}
