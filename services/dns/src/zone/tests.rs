use hickory_proto::{
    op::{Message, MessageType, OpCode, Query as HickoryQuery, ResponseCode},
    rr::{DNSClass, RData, Record, RecordType},
};

use super::*;
use crate::{query::read, random::Random};

fn target(name: &str, addresses: &[&str], weight: u16) -> Target {
    let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
    Target { name: name.into(), addresses, port: 4000, weight, region: String::new() }
}

fn view() -> View {
    let mut view = View::new(true, 7);
    view.set_targets(Service::Login, vec![target("Login-1", &["203.0.113.1", "2001:db8::1"], 50)]);
    let gateways =
        (1..=9).map(|n| target(&format!("gateway-{n}"), &[&format!("203.0.113.{n}")], n)).collect();
    view.set_targets(Service::Gateway, gateways);
    view.set_targets(Service::NameServer, vec![target("dns-1", &["203.0.113.53"], 100)]);
    view
}

fn zone() -> Zone {
    let regions = [("eu".into(), vec![]), ("us".into(), vec![])].into();
    Zone::new("shardkeep.test", &Config { regions, ..Config::default() }).unwrap()
}

fn query_message(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(9, MessageType::Query, OpCode::Query);
    message.add_query(HickoryQuery::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn answer(view: &View, region: Option<u16>, query_message: &Message) -> Message {
    answer_of(&zone(), view, region, query_message)
}

fn answer_of(zone: &Zone, view: &View, region: Option<u16>, query_message: &Message) -> Message {
    let packet = query_message.to_vec().unwrap();
    let query = read(&packet).unwrap();
    let table = zone.table(view);
    let mut bytes = Vec::new();
    let question = query.question.as_ref().unwrap();
    table.find(question, region).write(&query, 1232, None, &mut Random::new(3), &mut bytes);
    Message::from_vec(&bytes).unwrap()
}

fn ask_with(view: &View, name: &str, kind: RecordType) -> Message {
    answer(view, None, &query_message(name, kind))
}

fn ask(name: &str, kind: RecordType) -> Message {
    ask_with(&view(), name, kind)
}

fn kinds(records: &[Record]) -> Vec<RecordType> {
    records.iter().map(Record::record_type).collect()
}

#[test]
fn address_records_match_family() {
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
fn names_match_any_case_and_echo_the_query() {
    let answer = ask("LoGiN.ShardKeep.TEST.", RecordType::A);
    assert_eq!(answer.queries[0].name().to_ascii(), "LoGiN.ShardKeep.TEST.");
    assert_eq!(answer.answers[0].name.to_ascii(), "LoGiN.ShardKeep.TEST.");
    assert_eq!(kinds(&ask("login-1.LOGIN.shardkeep.test.", RecordType::A).answers), [RecordType::A]);
}

#[test]
fn answer_count_is_bounded() {
    assert_eq!(ask("gateway.shardkeep.test.", RecordType::A).answers.len(), 4);
}

#[test]
fn negative_answers_carry_soa() {
    let cases = [
        ("gateway.shardkeep.test.", RecordType::AAAA, ResponseCode::NoError),
        ("login.shardkeep.test.", RecordType::TXT, ResponseCode::NoError),
        ("_tcp.login.shardkeep.test.", RecordType::A, ResponseCode::NoError),
        ("shardkeep.test.", RecordType::A, ResponseCode::NoError),
        ("_shardkeep._tcp.login.shardkeep.test.", RecordType::A, ResponseCode::NoError),
        ("world.shardkeep.test.", RecordType::A, ResponseCode::NXDomain),
        ("login-2.login.shardkeep.test.", RecordType::A, ResponseCode::NXDomain),
        ("dns-1.ns.shardkeep.test.", RecordType::A, ResponseCode::NXDomain),
        ("a.b.c.d.login.shardkeep.test.", RecordType::A, ResponseCode::NXDomain),
        ("_http._tcp.login.shardkeep.test.", RecordType::SRV, ResponseCode::NXDomain),
    ];
    for (name, kind, code) in cases {
        let answer = ask(name, kind);
        assert_eq!(answer.response_code, code, "{name}");
        assert!(answer.answers.is_empty() && answer.authoritative, "{name}");
        let [soa] = &answer.authorities[..] else { panic!("{name}") };
        assert_eq!(soa.name.to_ascii(), "shardkeep.test.", "{name}");
        let RData::SOA(data) = &soa.data else { panic!("{name}") };
        assert_eq!(data.mname.to_ascii(), "ns.shardkeep.test.");
        assert_eq!(data.rname.to_ascii(), "hostmaster.shardkeep.test.");
        assert_eq!((soa.ttl, data.minimum, data.serial, data.expire), (2, 2, 7, 86_400));
    }
}

#[test]
fn apex_has_soa_and_ns() {
    let soa = ask("shardkeep.test.", RecordType::SOA);
    let RData::SOA(data) = &soa.answers[0].data else { panic!() };
    assert_eq!((data.serial, data.mname.to_ascii().as_str()), (7, "ns.shardkeep.test."));
    let ns = ask("shardkeep.test.", RecordType::NS);
    assert_eq!(kinds(&ns.answers), [RecordType::NS]);
    assert_eq!(ns.answers[0].data.to_string(), "ns.shardkeep.test.");
    assert_eq!(ns.additionals[0].data.to_string(), "203.0.113.53");
    assert_eq!(ns.additionals[0].name.to_ascii(), "ns.shardkeep.test.");
    assert_eq!(kinds(&ask("ns.shardkeep.test.", RecordType::A).answers), [RecordType::A]);
}

#[test]
fn srv_targets_have_ports_and_resolve() {
    let answer = ask("_shardkeep._tcp.gateway.shardkeep.test.", RecordType::SRV);
    assert_eq!(answer.answers.len(), 4);
    for record in &answer.answers {
        let RData::SRV(srv) = &record.data else { panic!() };
        assert_eq!((srv.port, srv.priority), (4000, 0));
        let host = srv.target.to_ascii();
        assert_eq!(host, format!("gateway-{}.gateway.shardkeep.test.", srv.weight));
        assert_eq!(kinds(&ask(&host, RecordType::A).answers), [RecordType::A], "{host}");
        assert!(answer.additionals.iter().any(|glue| glue.name == srv.target));
    }
}

#[test]
fn srv_omits_instances_with_invalid_labels() {
    let mut view = view();
    let names = ["a.b", "", &"x".repeat(64), "good"];
    let targets = names.iter().map(|name| target(name, &["203.0.113.1"], 1)).collect();
    view.set_targets(Service::Login, targets);
    let answer = ask_with(&view, "_shardkeep._tcp.login.shardkeep.test.", RecordType::SRV);
    assert_eq!(answer.answers.len(), 1);
    assert_eq!(ask_with(&view, "login.shardkeep.test.", RecordType::A).answers.len(), 1);
}

#[test]
fn replicas_at_one_address_share_a_record() {
    let mut view = view();
    let replicas = vec![
        target("login-1", &["203.0.113.1", "2001:db8::1"], 70),
        target("login-2", &["203.0.113.1"], 70),
        target("login-3", &["203.0.113.2", "2001:db8::1"], 10),
    ];
    view.set_targets(Service::Login, replicas.clone());
    view.set_targets(Service::NameServer, replicas);
    let cases = [
        ("login.shardkeep.test.", RecordType::A, 2),
        ("login.shardkeep.test.", RecordType::AAAA, 1),
        ("login.shardkeep.test.", RecordType::ANY, 2),
        ("ns.shardkeep.test.", RecordType::A, 2),
    ];
    for (name, kind, count) in cases {
        assert_eq!(ask_with(&view, name, kind).answers.len(), count, "{name} {kind}");
    }
    let ns = ask_with(&view, "shardkeep.test.", RecordType::NS);
    assert_eq!(ns.additionals.len(), 3);
    assert_eq!(addresses(view.targets(Service::Login))[0], ("203.0.113.1".parse().unwrap(), 140));
}

#[test]
fn configured_name_servers_are_in_the_zone() {
    let name_servers = [
        ("ns1".into(), vec!["203.0.113.1".parse().unwrap(), "2001:db8::1".parse().unwrap()]),
        ("ns2".into(), vec!["203.0.113.2".parse().unwrap()]),
    ];
    let config = Config { name_servers: name_servers.into(), ..Config::default() };
    let zone = Zone::new("shardkeep.test", &config).unwrap();
    let ask = |name: &str, kind| answer_of(&zone, &view(), None, &query_message(name, kind));
    let ns = ask("shardkeep.test.", RecordType::NS);
    let names: Vec<_> = ns.answers.iter().map(|record| record.data.to_string()).collect();
    assert_eq!(names, ["ns1.shardkeep.test.", "ns2.shardkeep.test."]);
    assert_eq!(ns.additionals.len(), 3);
    for record in ns.answers.iter().chain(&ns.additionals) {
        assert_eq!(record.ttl, 3600, "{record}");
    }
    let cases = [
        ("ns1.shardkeep.test.", RecordType::A, "203.0.113.1"),
        ("NS1.shardkeep.test.", RecordType::AAAA, "2001:db8::1"),
        ("ns2.shardkeep.test.", RecordType::A, "203.0.113.2"),
    ];
    for (name, kind, address) in cases {
        let answer = ask(name, kind);
        assert_eq!(answer.answers[0].data.to_string(), address, "{name}");
        assert_eq!(answer.answers[0].ttl, 3600, "{name}");
    }
    // The name exists without this type, so a resolver must not take the whole name for absent.
    assert_eq!(ask("ns2.shardkeep.test.", RecordType::AAAA).response_code, ResponseCode::NoError);
    let RData::SOA(soa) = &ask("shardkeep.test.", RecordType::SOA).answers[0].data.clone() else { panic!() };
    assert_eq!(soa.mname.to_ascii(), "ns1.shardkeep.test.");
}

#[test]
fn queries_outside_zone_are_refused() {
    let refused = |name, kind| ask(name, kind).response_code == ResponseCode::Refused;
    assert!(refused("example.com.", RecordType::A));
    assert!(refused("notshardkeep.test.", RecordType::A));
    assert!(refused("test.", RecordType::A));
    assert!(refused(".", RecordType::NS));
    assert!(refused("shardkeep.test.", RecordType::AXFR));
    let mut chaos = query_message("login.shardkeep.test.", RecordType::TXT);
    chaos.queries[0].set_query_class(DNSClass::CH);
    let answer = answer(&view(), None, &chaos);
    assert_eq!(answer.response_code, ResponseCode::Refused);
    assert!(!answer.authoritative);
}

#[test]
fn unknown_view_is_servfail_and_empty_view_is_noerror() {
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
    let instance = "login-1.login.shardkeep.test.";
    assert_eq!(ask_with(&unknown, instance, RecordType::A).response_code, ResponseCode::ServFail);
    assert_eq!(ask_with(&unknown, "shardkeep.test.", RecordType::SOA).answers.len(), 1);
}

#[test]
fn region_gets_own_replicas_or_else_all() {
    let mut view = view();
    let in_region =
        |name: &str, region: &str, address| Target { region: region.into(), ..target(name, &[address], 1) };
    let gateways = vec![
        in_region("gateway-1", "eu", "203.0.113.1"),
        in_region("gateway-2", "eu", "203.0.113.2"),
        in_region("gateway-3", "", "203.0.113.3"),
    ];
    view.set_targets(Service::Gateway, gateways);
    let addresses = |region| {
        let answer = answer(&view, region, &query_message("gateway.shardkeep.test.", RecordType::A));
        let mut found: Vec<_> = answer.answers.iter().map(|record| record.data.to_string()).collect();
        found.sort();
        found
    };
    assert_eq!(addresses(Some(0)), ["203.0.113.1", "203.0.113.2"]);
    // The second region has no replica that is up.
    for everybody in [Some(1), None] {
        assert_eq!(addresses(everybody), ["203.0.113.1", "203.0.113.2", "203.0.113.3"]);
    }
    let srv = query_message("_shardkeep._tcp.gateway.shardkeep.test.", RecordType::SRV);
    assert_eq!(answer(&view, Some(0), &srv).answers.len(), 2);
    let one = query_message("gateway-3.gateway.shardkeep.test.", RecordType::A);
    assert_eq!(answer(&view, Some(0), &one).answers.len(), 1, "a name of one replica is that replica");
}
