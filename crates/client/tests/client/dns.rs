//! Finding servers, against a DNS server of a dozen lines.

use std::net::SocketAddr;

use hickory_proto::{
    op::{Message, MessageType, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, SRV},
    },
};
use shardkeep_client::{
    Config,
    dns::{DnsError, Resolver},
    login,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
};

use super::with_timeout;

/// Answers what `answer` makes of the question; `None` is silence. UDP and TCP share a port.
async fn serve(answer: impl Fn(&mut Message, bool) -> bool + Send + Sync + Copy + 'static) -> SocketAddr {
    let (udp, tcp) = loop {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
            break (udp, tcp);
        }
    };
    let address = udp.local_addr().unwrap();
    let reply = move |query: &[u8], by_tcp: bool| {
        let mut message = Message::from_vec(query).unwrap();
        message.metadata.message_type = MessageType::Response;
        answer(&mut message, by_tcp).then(|| message.to_vec().unwrap())
    };
    tokio::spawn(async move {
        let mut buffer = [0; 2_048];
        while let Ok((length, from)) = udp.recv_from(&mut buffer).await {
            if let Some(bytes) = reply(&buffer[..length], false) {
                udp.send_to(&bytes, from).await.unwrap();
            }
        }
    });
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = tcp.accept().await {
            let mut query = vec![0; stream.read_u16().await.unwrap().into()];
            stream.read_exact(&mut query).await.unwrap();
            if let Some(bytes) = reply(&query, true) {
                stream.write_u16(bytes.len() as u16).await.unwrap();
                stream.write_all(&bytes).await.unwrap();
            }
        }
    });
    address
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn srv(priority: u16, port: u16, target: &str) -> Record {
    let data = RData::SRV(SRV::new(priority, 10, port, name(target)));
    Record::from_rdata(name("_shardkeep._tcp.login.shardkeep.test."), 5, data)
}

fn a(host: &str, last: u8) -> Record {
    Record::from_rdata(name(host), 5, RData::A(A([127, 0, 0, last].into())))
}

/// Two login servers; the second's address is not in the first answer.
fn zone(message: &mut Message, _by_tcp: bool) -> bool {
    let asked = message.queries[0].name().to_ascii();
    match (message.queries[0].query_type(), asked.as_str()) {
        (RecordType::SRV, "_shardkeep._tcp.login.shardkeep.test.") => {
            message.answers = vec![srv(2, 7_102, "b.test."), srv(1, 7_101, "a.test.")];
            message.additionals = vec![a("a.test.", 2)];
        }
        (RecordType::A, "b.test.") => message.answers = vec![a("b.test.", 3)],
        (RecordType::A, "login.old.test.") => message.answers = vec![a("login.old.test.", 4)],
        (_, "login.nowhere.test." | "_shardkeep._tcp.login.nowhere.test.") => {
            message.metadata.response_code = ResponseCode::NXDomain;
        }
        _ => {}
    }
    true
}

#[tokio::test]
async fn srv_targets_are_returned_in_priority_order() {
    let config = Config::with_dns(serve(zone).await);
    let found = with_timeout(login::find(&config, "shardkeep.test")).await.unwrap();
    assert_eq!(found, ["127.0.0.2:7101".parse().unwrap(), "127.0.0.3:7102".parse().unwrap()]);
}

#[tokio::test]
async fn missing_srv_falls_back_to_default_port() {
    let config = Config::with_dns(serve(zone).await);
    let found = with_timeout(login::find(&config, "old.test")).await.unwrap();
    assert_eq!(found, ["127.0.0.4:7100".parse().unwrap()]);
}

#[tokio::test]
async fn unknown_host_error_names_the_host() {
    let config = Config::with_dns(serve(zone).await);
    let error = with_timeout(login::find(&config, "nowhere.test")).await.unwrap_err();
    assert!(error.to_string().contains("login.nowhere.test"), "{error}");
}

#[tokio::test]
async fn truncated_udp_answer_is_retried_over_tcp() {
    let server = serve(|message, by_tcp| {
        message.metadata.truncation = !by_tcp;
        if by_tcp { zone(message, true) } else { true }
    });
    let found = with_timeout(Resolver::new(server.await).addresses("b.test")).await.unwrap();
    assert_eq!(found, ["127.0.0.3".parse::<std::net::IpAddr>().unwrap()]);
}

#[tokio::test]
async fn silent_server_and_wrong_query_id_time_out() {
    let silent = serve(|_, _| false).await;
    let mut resolver = Resolver::new(silent);
    resolver.timeout = std::time::Duration::from_millis(20);
    assert!(matches!(with_timeout(resolver.addresses("b.test")).await, Err(DnsError::Timeout { .. })));

    let stranger = serve(|message, _| {
        message.metadata.id = message.metadata.id.wrapping_add(1);
        zone(message, false)
    });
    let mut resolver = Resolver::new(stranger.await);
    resolver.timeout = std::time::Duration::from_millis(20);
    assert!(matches!(with_timeout(resolver.addresses("b.test")).await, Err(DnsError::Timeout { .. })));
}
