//! Tests of a DNS daemon on real sockets, with a registry that lists what a test announces.

mod delegation;
mod env;

use std::{net::SocketAddr, process::Command, time::Duration};

use env::TestEnv;
use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{
        Name, RecordType,
        rdata::opt::{EdnsCode, EdnsOption},
    },
};
use shardkeep_cluster::State;
use shardkeep_daemon::Running;
use shardkeep_dns::RateConfig;
use shardkeep_rpc::dns::{ListPoolsRequest, SwitchPoolRequest, dns_client::DnsClient};
use shardkeep_types::DaemonKind;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream, UdpSocket},
};

const TEST_TIMEOUT: Duration = Duration::from_secs(20);
const LOGIN: &str = "login.shardkeep.test.";
const GATEWAY: &str = "gateway.shardkeep.test.";

struct Cluster {
    env: TestEnv,
    dns: Running,
    server: SocketAddr,
    grpc: String,
}

impl Cluster {
    async fn start() -> Self {
        let env = TestEnv::start().await;
        let mut dns = env.launch_dns().await;
        let bound = dns.ready().await.unwrap();
        Self { env, dns, server: bound.client.parse().unwrap(), grpc: bound.grpc }
    }

    async fn udp(&self, packet: &[u8]) -> Vec<u8> {
        udp_at(self.server, packet).await
    }

    async fn tcp(&self, packets: &[Vec<u8>]) -> Vec<Message> {
        let mut stream = TcpStream::connect(self.server).await.unwrap();
        let mut answers = Vec::new();
        for packet in packets {
            stream.write_u16(u16::try_from(packet.len()).unwrap()).await.unwrap();
            stream.write_all(packet).await.unwrap();
        }
        for _ in packets {
            let mut bytes = vec![0; stream.read_u16().await.unwrap().into()];
            stream.read_exact(&mut bytes).await.unwrap();
            answers.push(Message::from_vec(&bytes).unwrap());
        }
        answers
    }

    async fn ask(&self, name: &str, kind: RecordType) -> Message {
        Message::from_vec(&self.udp(&packet(name, kind)).await).unwrap()
    }

    async fn addresses(&self, name: &str) -> Vec<String> {
        let answer = self.ask(name, RecordType::A).await;
        assert_eq!(answer.id, 77);
        let mut found: Vec<_> = answer.answers.iter().map(|record| record.data.to_string()).collect();
        found.sort();
        found
    }

    /// Asks until the answer is this: a change in the registry takes effect a moment later.
    async fn until(&self, name: &str, wanted: &[&str]) {
        let wait = async {
            while self.addresses(name).await != wanted {
                tokio::task::yield_now().await;
            }
        };
        assert!(
            tokio::time::timeout(TEST_TIMEOUT, wait).await.is_ok(),
            "{name}: {:?}",
            self.addresses(name).await
        );
    }
}

async fn udp_at(server: SocketAddr, packet: &[u8]) -> Vec<u8> {
    let answer = tokio::time::timeout(TEST_TIMEOUT, try_udp_at(server, packet)).await;
    answer.expect("an answer").unwrap()
}

/// Fails while no server listens on the port.
async fn try_udp_at(server: SocketAddr, packet: &[u8]) -> std::io::Result<Vec<u8>> {
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    socket.connect(server).await?;
    let mut buffer = vec![0; 65_535];
    socket.send(packet).await?;
    let length = socket.recv(&mut buffer).await?;
    buffer.truncate(length);
    Ok(buffer)
}

async fn ask_at(server: SocketAddr, name: &str) -> Message {
    Message::from_vec(&udp_at(server, &packet(name, RecordType::A)).await).unwrap()
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(77, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn packet(name: &str, kind: RecordType) -> Vec<u8> {
    question(name, kind).to_vec().unwrap()
}

#[tokio::test]
async fn answers_follow_registry_changes() {
    let cluster = Cluster::start().await;
    let env = &cluster.env;
    env.announce(DaemonKind::Login, "login-1", "203.0.113.1:3724", State::Up);
    cluster.until(LOGIN, &["203.0.113.1"]).await;
    env.announce(DaemonKind::Login, "login-2", "203.0.113.2:3724", State::Up);
    cluster.until(LOGIN, &["203.0.113.1", "203.0.113.2"]).await;
    env.announce(DaemonKind::Login, "login-1", "203.0.113.1:3724", State::Draining);
    cluster.until(LOGIN, &["203.0.113.2"]).await;
    env.announce(DaemonKind::Login, "login-2", "203.0.113.2:3724", State::Offline);
    cluster.until(LOGIN, &[]).await;
    let nobody = cluster.ask(LOGIN, RecordType::A).await;
    assert_eq!(nobody.response_code, ResponseCode::NoError);
    assert_eq!(nobody.authorities[0].record_type(), RecordType::SOA);
    cluster.dns.stop().await.unwrap();
}

#[tokio::test]
async fn long_answers_use_tcp_or_large_packets() {
    let cluster = Cluster::start().await;
    for n in 1..=9 {
        let name = format!("gateway-with-a-rather-long-name-number-{n}");
        cluster.env.announce(DaemonKind::Gateway, &name, &format!("203.0.113.{n}:4000"), State::Up);
    }
    let srv = "_shardkeep._tcp.gateway.shardkeep.test.";
    let all = async {
        while cluster.tcp(&[packet(srv, RecordType::SRV)]).await[0].answers.len() < 8 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(TEST_TIMEOUT, all).await.expect("eight gateways");
    // Eight SRV records do not fit 512 bytes.
    let short = cluster.ask(srv, RecordType::SRV).await;
    assert!(short.truncation && short.answers.is_empty());
    let mut large = question(srv, RecordType::SRV);
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    large.set_edns(edns);
    let long = Message::from_vec(&cluster.udp(&large.to_vec().unwrap()).await).unwrap();
    assert!(!long.truncation && long.answers.len() == 8 && long.edns.is_some());
    // Several queries on one connection are answered in order.
    let answers = cluster.tcp(&[packet(srv, RecordType::SRV), packet(GATEWAY, RecordType::A)]).await;
    assert_eq!(answers[0].answers.len(), 8);
    assert_eq!(answers[1].answers[0].record_type(), RecordType::A);
}

#[tokio::test]
async fn broken_packet_does_not_end_the_server() {
    let cluster = Cluster::start().await;
    let mut cut = packet(GATEWAY, RecordType::A);
    cut.truncate(20);
    assert_eq!(Message::from_vec(&cluster.udp(&cut).await).unwrap().response_code, ResponseCode::FormErr);
    // The server ignores a response, and answers the next query from the same socket.
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut response = question(GATEWAY, RecordType::A);
    response.metadata.message_type = MessageType::Response;
    response.metadata.id = 1;
    socket.send_to(&response.to_vec().unwrap(), cluster.server).await.unwrap();
    socket.send_to(&packet(GATEWAY, RecordType::A), cluster.server).await.unwrap();
    let mut buffer = [0; 512];
    let length = tokio::time::timeout(TEST_TIMEOUT, socket.recv(&mut buffer)).await.unwrap().unwrap();
    assert_eq!(Message::from_vec(&buffer[..length]).unwrap().id, 77);
    cluster.dns.stop().await.unwrap();
}

#[tokio::test]
async fn wrong_length_closes_the_connection_after_the_answers_before_it() {
    let cluster = Cluster::start().await;
    for lie in [0u16, 12, 40_000] {
        let mut stream = TcpStream::connect(cluster.server).await.unwrap();
        let good = packet(GATEWAY, RecordType::A);
        let length = u16::try_from(good.len()).unwrap();
        // In one write: the server may close as soon as it has read the wrong length.
        let bytes = [&length.to_be_bytes()[..], &good, &lie.to_be_bytes(), &[0xff; 40]].concat();
        stream.write_all(&bytes).await.unwrap();
        let mut answered = Vec::new();
        // The server may also reset the connection.
        let _ = tokio::time::timeout(TEST_TIMEOUT, stream.read_to_end(&mut answered)).await.expect("the end");
        let length = usize::from(u16::from_be_bytes([answered[0], answered[1]]));
        assert_eq!((answered.len(), &answered[2..4]), (2 + length, &[0, 77][..]), "{lie}");
    }
}

#[tokio::test]
async fn login_is_servfail_before_registry_answers() {
    let env = TestEnv::without_registry();
    // A daemon without a registry does not become ready, but it answers.
    let dns = env.launch_dns().await;
    let listening = async {
        while dns.daemon().bound().client.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(TEST_TIMEOUT, listening).await.expect("the DNS sockets are bound");
    let bound = dns.daemon().bound();
    let cluster = Cluster { env, dns, server: bound.client.parse().unwrap(), grpc: bound.grpc };
    let unknown = cluster.ask(LOGIN, RecordType::A).await;
    assert_eq!(unknown.response_code, ResponseCode::ServFail);
    let refused = cluster.ask("example.com.", RecordType::A).await;
    assert_eq!(refused.response_code, ResponseCode::Refused);
    cluster.dns.stop().await.unwrap();
}

#[tokio::test]
async fn switch_pool_reaches_every_replica() {
    let first = Cluster::start().await;
    let env = &first.env;
    env.announce(DaemonKind::Login, "login-1", "203.0.113.1:3724", State::Up);
    let mut dns = first.env.launch_replica("dns-2").await;
    let bound = dns.ready().await.unwrap();
    let second = bound.client.parse().unwrap();
    first.until(LOGIN, &["203.0.113.1"]).await;
    let told = async { while ask_at(second, LOGIN).await.answers.is_empty() {} };
    tokio::time::timeout(TEST_TIMEOUT, told).await.expect("the second server has heard of login-1");
    let mut operator = DnsClient::new(first.env.operator(&bound.grpc));
    for (pool, address) in [("shelter", "198.51.100.9"), ("live", "203.0.113.1")] {
        // A registry names daemons a moment after they are up: until then there is one to wait for.
        let both = async {
            loop {
                let reply = operator.switch_pool(SwitchPoolRequest { pool: pool.into() }).await.unwrap();
                let mut reply = reply.into_inner();
                reply.answering.sort();
                if reply.answering == ["dns-1", "dns-2"] && reply.lagging.is_empty() {
                    return;
                }
            }
        };
        tokio::time::timeout(TEST_TIMEOUT, both).await.expect("both switch");
        // The next answer of each server comes from the pool.
        for server in [first.server, second] {
            let answer = ask_at(server, LOGIN).await;
            assert_eq!(answer.answers[0].data.to_string(), address, "{pool} at {server}");
        }
    }
    let unknown = operator.switch_pool(SwitchPoolRequest { pool: "nowhere".into() }).await.unwrap_err();
    assert!(unknown.message().contains("there are: shelter, live"), "{unknown}");
    let pools = operator.list_pools(ListPoolsRequest {}).await.unwrap().into_inner();
    assert_eq!((pools.active.as_str(), pools.pools.len()), ("live", 2));
    dns.stop().await.unwrap();
    first.dns.stop().await.unwrap();
}

#[tokio::test]
async fn switch_pool_reports_replica_without_the_pool() {
    let cluster = Cluster::start().await;
    let mut dns = cluster.env.launch_with("dns-2", |config| config.pools.clear()).await;
    let bound = dns.ready().await.unwrap();
    let mut operator = DnsClient::new(cluster.env.operator(&cluster.grpc));
    let named = async {
        loop {
            let reply = operator.switch_pool(SwitchPoolRequest { pool: "shelter".into() }).await.unwrap();
            let reply = reply.into_inner();
            assert_eq!(reply.answering, ["dns-1"]);
            if reply.lagging == ["dns-2"] {
                return;
            }
        }
    };
    tokio::time::timeout(TEST_TIMEOUT, named).await.expect("dns-2 lags");
    assert!(bound.client.parse::<SocketAddr>().is_ok());
    dns.stop().await.unwrap();
    cluster.dns.stop().await.unwrap();
}

#[tokio::test]
async fn flood_is_limited_and_region_gets_near_replica() {
    let env = TestEnv::start().await;
    let mut dns = env
        .launch_with("dns-1", |config| {
            config.rate =
                RateConfig { answers_per_s: 1, burst: 5, slip: 1, exempt: vec![], ..RateConfig::default() };
            config.regions.insert("here".into(), vec!["127.0.0.0/8".into()]);
            config.sockets = 3;
        })
        .await;
    let bound = dns.ready().await.unwrap();
    let cluster = Cluster { env, dns, server: bound.client.parse().unwrap(), grpc: bound.grpc };
    let env = &cluster.env;
    env.announce_in_region("here", DaemonKind::Login, "login-1", "203.0.113.1:3724");
    env.announce_in_region("there", DaemonKind::Login, "login-2", "203.0.113.2:3724");
    // The rate limit does not apply to TCP.
    let both = async {
        while cluster.tcp(&[packet("login-2.login.shardkeep.test.", RecordType::A)]).await[0]
            .answers
            .is_empty()
        {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(TEST_TIMEOUT, both).await.expect("both login servers");
    let near = &cluster.tcp(&[packet(LOGIN, RecordType::A)]).await[0];
    assert_eq!(near.answers.iter().map(|it| it.data.to_string()).collect::<Vec<_>>(), ["203.0.113.1"]);
    let limited = async { while !cluster.ask(LOGIN, RecordType::A).await.truncation {} };
    tokio::time::timeout(TEST_TIMEOUT, limited).await.expect("a limit");
    // BADCOOKIE carries a cookie that lifts the limit.
    let mut cookie = b"client-1".to_vec();
    let open = async {
        loop {
            let mut message = question(LOGIN, RecordType::A);
            let mut edns = Edns::new();
            edns.options_mut().insert(EdnsOption::Unknown(EdnsCode::Cookie.into(), cookie.clone()));
            message.set_edns(edns);
            let answer = Message::from_vec(&cluster.udp(&message.to_vec().unwrap()).await).unwrap();
            assert!(!answer.truncation);
            if cookie.len() == 24 && !answer.answers.is_empty() {
                return;
            }
            let given = answer.edns.as_ref().and_then(|edns| edns.option(EdnsCode::Cookie)).cloned();
            let Some(EdnsOption::Unknown(_, given)) = given else { panic!("no cookie: {answer:?}") };
            cookie = given;
        }
    };
    tokio::time::timeout(TEST_TIMEOUT, open).await.expect("an answer to the cookie");
    cluster.dns.stop().await.unwrap();
}

/// dig and kdig, where they are installed, decode the answers.
#[tokio::test(flavor = "multi_thread")]
async fn answers_are_understood_by_dig_and_kdig() {
    let cluster = Cluster::start().await;
    cluster.env.announce(DaemonKind::Login, "login-1", "203.0.113.1:3724", State::Up);
    cluster.until(LOGIN, &["203.0.113.1"]).await;
    let port = cluster.server.port().to_string();
    let run = |tool: &str, options: &[&str]| {
        let output = Command::new(tool).args(["@127.0.0.1", "-p", &port]).args(options).output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    for tool in ["dig", "kdig"] {
        for transport in ["+notcp", "+tcp"] {
            let Some(text) = run(tool, &[transport, "+short", "LOGIN.shardkeep.test", "A"]) else { continue };
            assert_eq!(text.trim(), "203.0.113.1", "{tool} {transport}");
        }
    }
    let question = ["+notcp", "login.shardkeep.test", "A"];
    if let Some(text) = run("dig", &[&question[..], &["+cookie", "+subnet=192.0.2.0/24"]].concat()) {
        for sign in ["status: NOERROR", "(good)", "CLIENT-SUBNET: 192.0.2.0/24/0", "udp: 1232", "203.0.113.1"]
        {
            assert!(text.contains(sign), "dig does not say {sign}:\n{text}");
        }
    }
    if let Some(text) = run("kdig", &[&question[..], &["+cookie", "+subnet=192.0.2.0/24", "+edns"]].concat())
    {
        for sign in ["status: NOERROR", "COOKIE", "CLIENT-SUBNET: 192.0.2.0/24/0", "203.0.113.1"] {
            assert!(text.contains(sign), "kdig does not say {sign}:\n{text}");
        }
    }
    cluster.dns.stop().await.unwrap();
}

/// A connection without a query.
async fn connect_from(client: [u8; 4], server: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((client, 0).into()).unwrap();
    socket.connect(server).await.unwrap()
}

async fn send_query(stream: &mut TcpStream) -> std::io::Result<u16> {
    let packet = packet(LOGIN, RecordType::A);
    stream.write_u16(u16::try_from(packet.len()).unwrap()).await?;
    stream.write_all(&packet).await?;
    let length = stream.read_u16().await?;
    stream.read_exact(&mut vec![0; length.into()]).await?;
    Ok(length)
}

#[tokio::test]
async fn tcp_limit_evicts_from_network_with_most_connections() {
    let env = TestEnv::start().await;
    let mut dns = env.launch_with("dns-1", |config| config.tcp_connections = 2).await;
    let server: SocketAddr = dns.ready().await.unwrap().client.parse().unwrap();
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut one = connect_from([127, 0, 0, 1], server).await;
        assert!(send_query(&mut one).await.is_ok());
        held.push(one);
    }
    let mut other = connect_from([127, 0, 1, 1], server).await;
    assert!(send_query(&mut other).await.is_ok());
    let closed =
        tokio::time::timeout(TEST_TIMEOUT, held[0].read(&mut [0])).await.expect("the oldest has made room");
    assert!(matches!(closed, Ok(0) | Err(_)));
    // A further connection replaces one of the same network.
    assert!(send_query(&mut connect_from([127, 0, 0, 1], server).await).await.is_ok());
    assert!(send_query(&mut held[1]).await.is_err());
    assert!(send_query(&mut other).await.is_ok());
    dns.stop().await.unwrap();
}
