//! Every lane between our listener and our connector, over real sockets.

use std::{io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use bytes::{Buf, Bytes, BytesMut};
use futures::{FutureExt as _, SinkExt as _, StreamExt as _};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use shardkeep_lanes::{
    CloseCode, Connector, Lane, Listener, PLAYER_CERTIFICATE_NAME, Retry, Settings, Stream, Trust,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{
        self, Message,
        protocol::{CloseFrame, frame::coding::CloseCode as Code},
    },
};

/// Time limit for events, generous enough for a busy machine.
const TEST_TIMEOUT: Duration = Duration::from_secs(30);
const IDLE: Duration = Duration::from_secs(30);
const PREFACE: [u8; 4] = *b"SKEP";

async fn listen(settings: &Settings) -> (Listener, SocketAddr) {
    let listener = Listener::bind("127.0.0.1:0", settings, IDLE).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Both ends of a connection, after its first bytes.
async fn pair(listener: &Listener, connector: &Connector, lane: Lane) -> io::Result<(Stream, Stream)> {
    let address = listener.local_addr()?;
    let client = async {
        let mut client = connector.connect(lane, address).await?;
        client.write_all(&PREFACE).await?;
        client.flush().await?;
        Ok::<_, io::Error>(client)
    };
    let server = async {
        let upgrade = listener.upgrade();
        let mut server = listener.accept().await?.open().await?;
        let mut rest = BytesMut::new();
        let first: [u8; 4] = server.first(upgrade.as_deref(), &mut rest).await?;
        assert_eq!((first, rest.len()), (PREFACE, 0));
        Ok::<_, io::Error>(server)
    };
    timeout(TEST_TIMEOUT, async { tokio::try_join!(client, server) }).await.expect("a connection or an error")
}

/// Reads like a connection's task: waits, then takes the received bytes.
async fn read_to(stream: &Stream, wanted: usize) -> BytesMut {
    let mut buffer = BytesMut::new();
    let reading = async {
        while buffer.len() < wanted {
            stream.readable().await.unwrap();
            buffer.reserve(4_096);
            match stream.try_read_buf(&mut buffer) {
                Ok(0) => panic!("ended after {} bytes", buffer.len()),
                Ok(_) => {}
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
    };
    timeout(TEST_TIMEOUT, reading).await.expect("the bytes arrive");
    buffer
}

async fn write(stream: &Stream, mut bytes: &[u8]) {
    let writing = async {
        while !bytes.is_empty() {
            match stream.try_write(bytes) {
                Ok(count) => bytes.advance(count),
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                    stream.writable().await.unwrap();
                }
            }
        }
        // This task never waits to read, which would send accepted bytes.
        stream.writable().await.unwrap();
    };
    timeout(TEST_TIMEOUT, writing).await.expect("the bytes leave");
}

fn pseudo_random_bytes(length: usize) -> Vec<u8> {
    (0u32..).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).take(length).collect()
}

#[tokio::test]
async fn bytes_arrive_on_every_lane() {
    let (listener, _) = listen(&Settings::default()).await;
    for lane in Lane::ALL {
        let (mut client, server) = pair(&listener, &Connector::default(), lane).await.unwrap();
        assert_eq!((client.lane(), server.lane()), (lane, lane));
        let sent = pseudo_random_bytes(300_000);
        for (from, to) in [(&client, &server), (&server, &client)] {
            let ((), received) = tokio::join!(write(from, &sent), async {
                let received = read_to(to, sent.len()).await;
                received == sent[..]
            });
            assert!(received, "{lane}: altered");
        }
        let closing = async {
            client.write_all(b"bye").await.unwrap();
            client.shutdown().await.unwrap();
        };
        let received = async {
            assert_eq!(read_to(&server, 3).await[..], *b"bye");
            server.readable().await.unwrap();
            server.try_read_buf(&mut BytesMut::new()).unwrap()
        };
        let ((), rest) =
            timeout(TEST_TIMEOUT, async { tokio::join!(closing, received) }).await.expect("an end");
        assert_eq!(rest, 0, "{lane}: more than was sent");
    }
}

#[tokio::test]
async fn blocked_write_continues_when_there_is_room() {
    let (listener, _) = listen(&Settings::default()).await;
    for lane in Lane::ALL {
        let (client, server) = pair(&listener, &Connector::default(), lane).await.unwrap();
        let (chunk, mut written) = (pseudo_random_bytes(16_384), 0);
        loop {
            match server.try_write(&chunk) {
                Ok(count) => written += count,
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                    break;
                }
            }
            assert!(written < 256 << 20, "{lane}: there is a bound");
        }
        // Waiting to read also sends accepted bytes.
        tokio::select! {
            received = read_to(&client, written) => assert_eq!(received.len(), written, "{lane}"),
            received = read_to(&server, 1) => panic!("{lane}: nobody sent {received:?}"),
        }
        write(&server, b"more").await;
        assert_eq!(read_to(&client, 4).await[..], *b"more", "{lane}");
    }
}

#[tokio::test]
async fn exporter_is_unique_to_one_quic_connection() {
    let (listener, _) = listen(&Settings::default()).await;
    let connector = Connector::default();
    let (client, server) = pair(&listener, &connector, Lane::Quic).await.unwrap();
    let (other, _server) = pair(&listener, &connector, Lane::Quic).await.unwrap();
    assert!(client.exporter().is_some() && client.exporter() == server.exporter());
    assert_ne!(client.exporter(), other.exporter());
    for lane in [Lane::Tcp, Lane::Ws, Lane::Wss] {
        let (client, server) = pair(&listener, &connector, lane).await.unwrap();
        assert!(client.exporter().is_none() && server.exporter().is_none());
    }
}

#[tokio::test]
async fn datagrams_go_from_server_to_client() {
    let (listener, _) = listen(&Settings::default()).await;
    let (client, server) = pair(&listener, &Connector::default(), Lane::Quic).await.unwrap();
    assert!(server.max_datagram().is_some_and(|most| most > 1_000));
    assert_eq!(client.max_datagram(), Some(0), "the server takes none");
    assert!(server.send_datagram(Bytes::from_static(b"here I am")));
    assert_eq!(timeout(TEST_TIMEOUT, client.datagram()).await.unwrap().unwrap()[..], *b"here I am");
    let (_, server) = pair(&listener, &Connector::default(), Lane::Tcp).await.unwrap();
    assert!(server.max_datagram().is_none() && !server.send_datagram(Bytes::from_static(b"x")));
}

#[tokio::test]
async fn quic_connection_survives_port_change() {
    let (listener, _) = listen(&Settings::default()).await;
    let (client, server) = pair(&listener, &Connector::default(), Lane::Quic).await.unwrap();
    let before = client.local_addr().unwrap();
    client.migrate().unwrap();
    assert_ne!(client.local_addr().unwrap(), before);
    write(&client, b"moved").await;
    assert_eq!(read_to(&server, 5).await[..], *b"moved");
    write(&server, b"seen").await;
    assert_eq!(read_to(&client, 4).await[..], *b"seen");
    let (client, _server) = pair(&listener, &Connector::default(), Lane::Tcp).await.unwrap();
    assert_eq!(client.migrate().unwrap_err().kind(), io::ErrorKind::Unsupported);
}

#[tokio::test]
async fn unread_bytes_close_the_quic_window() {
    let (listener, _) = listen(&Settings::default()).await;
    let connector = Connector::with_window(&Trust::AnyCertificate, 2_048).unwrap();
    let (client, server) = pair(&listener, &connector, Lane::Quic).await.unwrap();
    // Four fill the window; the fifth stays in the stream.
    for _ in 0..5 {
        server.writable().await.unwrap();
        assert_eq!(server.try_write(&[7; 512]).unwrap(), 512);
    }
    assert!(server.writable().now_or_never().is_none(), "it is closed");
    let opens = async { tokio::join!(read_to(&client, 5 * 512), server.writable()) };
    let (read, writable) = timeout(TEST_TIMEOUT, opens).await.expect("reading opens it");
    writable.unwrap();
    assert_eq!(read.len(), 5 * 512);
}

#[tokio::test]
async fn retry_always_validates_new_addresses() {
    let (listener, _) = listen(&Settings { retry: Retry::Always, ..Settings::default() }).await;
    pair(&listener, &Connector::default(), Lane::Quic).await.unwrap();
    assert_eq!(listener.retries(), 1);
    // A returning client has a token, which proves its address.
    let connector = Connector::default();
    for _ in 0..2 {
        let (client, server) = pair(&listener, &connector, Lane::Quic).await.unwrap();
        write(&server, b"token").await;
        read_to(&client, 5).await;
    }
    assert_eq!(listener.retries(), 2);
}

#[tokio::test]
async fn retry_begins_under_load() {
    let (listener, address) = listen(&Settings::default()).await;
    let listener = Arc::new(listener);
    let accepting = listener.clone();
    tokio::spawn(async move {
        while let Ok(incoming) = accepting.accept().await {
            // Ends when the client opens its stream, which it never does.
            tokio::spawn(incoming.open());
        }
    });
    let mut idle = Vec::new();
    for _ in 0..64 {
        let connector = Connector::default();
        idle.push(timeout(TEST_TIMEOUT, connector.connect(Lane::Quic, address)).await.unwrap().unwrap());
        assert_eq!(listener.retries(), 0);
    }
    let late = Connector::default();
    timeout(TEST_TIMEOUT, late.connect(Lane::Quic, address)).await.unwrap().unwrap();
    assert_eq!(listener.retries(), 1);
}

/// A folder with a CA, and its certificate for players.
fn authority(folder: &Path) -> Settings {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new([PLAYER_CERTIFICATE_NAME.to_owned()])
        .unwrap()
        .signed_by(&key, &issuer)
        .unwrap();
    let file = |name: &str, content: String| {
        std::fs::write(folder.join(name), content).unwrap();
        folder.join(name)
    };
    file("ca.pem", issuer.pem());
    Settings {
        certificate: Some(file("players.pem", certificate.pem())),
        key: Some(file("players.key", key.serialize_pem())),
        ..Settings::default()
    }
}

#[tokio::test]
async fn authority_trust_requires_matching_issuer_and_name() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (listener, _) = listen(&authority(ours.path())).await;
    authority(theirs.path());
    let trust = |folder: &Path, name| Trust::authority(&folder.join("ca.pem"), name).unwrap();
    let good = Connector::new(&trust(ours.path(), None)).unwrap();
    let stranger = Connector::new(&trust(theirs.path(), None)).unwrap();
    let misnamed = Connector::new(&trust(ours.path(), Some("play.example"))).unwrap();
    for lane in [Lane::Quic, Lane::Wss] {
        pair(&listener, &good, lane).await.unwrap();
        assert!(pair(&listener, &stranger, lane).await.is_err(), "{lane}");
        assert!(pair(&listener, &misnamed, lane).await.is_err(), "{lane}");
    }
    let (self_made, _) = listen(&Settings::default()).await;
    assert!(pair(&self_made, &good, Lane::Quic).await.is_err());
    assert!(Trust::authority(&ours.path().join("none.pem"), None).is_err());
    assert!(Trust::authority(&ours.path().join("ca.pem"), Some("no name")).is_err());
}

#[tokio::test]
async fn disabled_lanes_accept_nothing() {
    let settings = Settings { quic: false, websocket: false, ..Settings::default() };
    let (listener, address) = listen(&settings).await;
    pair(&listener, &Connector::default(), Lane::Tcp).await.unwrap();
    assert!(listener.upgrade().is_none());
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut server = listener.accept().await.unwrap().open().await.unwrap();
    let mut rest = BytesMut::new();
    assert_eq!(server.first::<4>(None, &mut rest).await.unwrap(), *b"GET ", "it stays TCP");
    assert_eq!(rest[..], *b"/ HTTP/1.1\r\n\r\n");
    std::net::UdpSocket::bind(address).expect("the UDP port is free");
}

#[tokio::test]
async fn invalid_websocket_upgrade_fails() {
    let (listener, address) = listen(&Settings::default()).await;
    let upgrade = listener.upgrade();
    let wrong: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET \xff\xff\xff\xff\r\n\r\n",
        b"\x16\x03\x01\x00\x05hello",
        b"\x16\x03\xff\xff\xff",
    ];
    for bytes in wrong {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(bytes).await.unwrap();
        client.shutdown().await.unwrap();
        let mut server = listener.accept().await.unwrap().open().await.unwrap();
        let first = timeout(TEST_TIMEOUT, server.first::<4>(upgrade.as_deref(), &mut BytesMut::new()))
            .await
            .expect("an end");
        assert!(first.is_err(), "{bytes:?}");
        assert!(server.try_write(b"x").is_err() && server.readable().await.is_err());
    }
}

/// The server's end of a connection and the client's, which is a WebSocket of another library.
async fn foreign_websocket(listener: &Listener) -> (Stream, WebSocketStream<TcpStream>) {
    let address = listener.local_addr().unwrap();
    let client = async {
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut client, _) = client_async(format!("ws://{address}/"), stream).await.unwrap();
        client.send(Message::Binary(Bytes::from_static(&PREFACE))).await.unwrap();
        client
    };
    let server = async {
        let upgrade = listener.upgrade();
        let mut server = listener.accept().await.unwrap().open().await.unwrap();
        let first: [u8; 4] = server.first(upgrade.as_deref(), &mut BytesMut::new()).await.unwrap();
        assert_eq!(first, PREFACE);
        server
    };
    let (client, server) =
        timeout(TEST_TIMEOUT, async { tokio::join!(client, server) }).await.expect("a connection");
    (server, client)
}

/// The code of the next close frame.
async fn close_code(client: &mut WebSocketStream<TcpStream>) -> Option<Code> {
    let closed = async {
        loop {
            match client.next().await {
                Some(Ok(Message::Close(frame))) => {
                    // Sends the answer to the close frame, for which the server waits.
                    let _ = client.flush().await;
                    return frame.map(|frame| frame.code);
                }
                Some(Ok(_)) => {}
                Some(Err(tungstenite::Error::Io(_) | tungstenite::Error::Protocol(_))) | None => return None,
                Some(Err(error)) => panic!("{error}"),
            }
        }
    };
    timeout(TEST_TIMEOUT, closed).await.expect("an end")
}

#[tokio::test]
async fn websocket_close_of_client_is_answered() {
    let (listener, _) = listen(&Settings::default()).await;
    let (server, mut client) = foreign_websocket(&listener).await;
    let frame = CloseFrame { code: Code::Normal, reason: "done".into() };
    client.send(Message::Close(Some(frame))).await.unwrap();
    timeout(TEST_TIMEOUT, server.readable()).await.unwrap().unwrap();
    assert_eq!(server.try_read(&mut [0; 16]).unwrap(), 0, "the client has finished");
    drop(server);
    assert_eq!(close_code(&mut client).await, Some(Code::Normal));
}

#[tokio::test]
async fn websocket_close_of_server_carries_its_code() {
    let (listener, _) = listen(&Settings::default()).await;
    for (code, received) in [
        (CloseCode::Normal, Code::Normal),
        (CloseCode::GoingAway, Code::Away),
        (CloseCode::Policy, Code::Policy),
        (CloseCode::TryAgainLater, Code::Again),
    ] {
        let (mut server, mut client) = foreign_websocket(&listener).await;
        let (closed, seen) = tokio::join!(timeout(TEST_TIMEOUT, server.close(code)), close_code(&mut client));
        closed.expect("the client answers").unwrap();
        assert_eq!(seen, Some(received));
    }
}

#[tokio::test]
async fn websocket_text_message_is_closed_as_unsupported() {
    let (listener, _) = listen(&Settings::default()).await;
    let (server, mut client) = foreign_websocket(&listener).await;
    client.send(Message::Text("hello".into())).await.unwrap();
    assert!(timeout(TEST_TIMEOUT, server.readable()).await.unwrap().is_err());
    drop(server);
    assert_eq!(close_code(&mut client).await, Some(Code::Unsupported));
}

/// The response to a request for an upgrade, from a server with these settings.
async fn upgrade_response(settings: &Settings, headers: &str) -> String {
    let (listener, address) = listen(settings).await;
    let client = async {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(format!("GET / HTTP/1.1\r\nHost: x\r\n{headers}\r\n").as_bytes()).await.unwrap();
        let mut response = Vec::new();
        loop {
            let count = client.read_buf(&mut response).await.unwrap();
            if count == 0 || response.starts_with(b"HTTP/1.1 101") && response.ends_with(b"\r\n\r\n") {
                return String::from_utf8(response).unwrap();
            }
        }
    };
    let server = async {
        let upgrade = listener.upgrade();
        let mut server = listener.accept().await.unwrap().open().await.unwrap();
        let _ = server.first::<4>(upgrade.as_deref(), &mut BytesMut::new()).await;
    };
    let response = async {
        tokio::select! {
            response = client => response,
            () = async { server.await; std::future::pending().await } => unreachable!(),
        }
    };
    timeout(TEST_TIMEOUT, response).await.expect("a response")
}

const UPGRADE: &str = "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n";
const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

#[tokio::test]
async fn websocket_request_of_another_version_is_told_the_right_one() {
    for version in ["Sec-WebSocket-Version: 8\r\n", ""] {
        let response = upgrade_response(&Settings::default(), &format!("{UPGRADE}{KEY}{version}")).await;
        assert!(response.starts_with("HTTP/1.1 426 Upgrade Required\r\n"), "{response}");
        assert!(response.contains("\r\nSec-WebSocket-Version: 13\r\n"), "{response}");
    }
}

#[tokio::test]
async fn websocket_request_with_missing_header_is_told_which() {
    let version = "Sec-WebSocket-Version: 13\r\n";
    let response = upgrade_response(&Settings::default(), "").await;
    assert!(response.starts_with("HTTP/1.1 426 ") && response.contains("Upgrade: websocket"), "{response}");
    let response = upgrade_response(&Settings::default(), &format!("{UPGRADE}{version}")).await;
    assert!(response.starts_with("HTTP/1.1 400 ") && response.contains("Sec-WebSocket-Key"), "{response}");
    let large = format!("X: {}\r\n", "x".repeat(9_000));
    let response = upgrade_response(&Settings::default(), &large).await;
    assert!(response.starts_with("HTTP/1.1 "), "{response}");
}

#[tokio::test]
async fn websocket_origin_is_refused_unless_allowed() {
    let settings = Settings { allowed_origins: vec!["https://play.example".into()], ..Settings::default() };
    let good = format!("{UPGRADE}{KEY}Sec-WebSocket-Version: 13\r\n");
    for (origin, status) in [
        ("Origin: https://evil.example\r\n", "403"),
        ("Origin: https://play.example\r\n", "101"),
        ("", "101"),
    ] {
        let response = upgrade_response(&settings, &format!("{good}{origin}")).await;
        assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{origin}: {response}");
    }
    let anywhere =
        upgrade_response(&Settings::default(), &format!("{good}Origin: https://x.example\r\n")).await;
    // The key and its answer are those of RFC 6455, section 1.3.
    assert!(anywhere.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{anywhere}");
}

#[tokio::test]
async fn changed_certificate_is_used_without_restart() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let settings = authority(ours.path());
    let replacement = authority(theirs.path());
    let (listener, _) = listen(&settings).await;
    // A new connector each time: it has no ticket of an earlier connection.
    let connector =
        |folder: &Path| Connector::new(&Trust::authority(&folder.join("ca.pem"), None).unwrap()).unwrap();
    for lane in [Lane::Quic, Lane::Wss] {
        pair(&listener, &connector(ours.path()), lane).await.unwrap();
    }
    let replace = |from: &Option<std::path::PathBuf>, to: &Option<std::path::PathBuf>| {
        std::fs::copy(from.as_ref().unwrap(), to.as_ref().unwrap()).unwrap();
    };
    replace(&replacement.certificate, &settings.certificate);
    pair(&listener, &connector(ours.path()), Lane::Wss)
        .await
        .expect("without its key, the old pair stays in use");
    replace(&replacement.key, &settings.key);
    for lane in [Lane::Quic, Lane::Wss] {
        pair(&listener, &connector(theirs.path()), lane).await.unwrap();
        assert!(pair(&listener, &connector(ours.path()), lane).await.is_err(), "{lane}");
    }
}
