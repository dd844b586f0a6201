//! Behaviour that every lane has, and behaviour that only some have. The gateway, its world and its zone are the
//! same.

use std::time::Duration;

use shardkeep_client::{
    Config,
    lanes::{Connector, Lane, Listener, Settings as Lanes},
    raw,
};
use shardkeep_link::{LinkEvent, MessageKind, ServerMessage, SessionChange};
use shardkeep_types::{BackendKind, DaemonKind, Epoch};
use shardkeep_wire::{Head, Message, opcode, payload::ErrorCode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    time::timeout,
};

use crate::{
    LIST,
    cluster::{Cluster, TEST_TIMEOUT, spec},
    player::{Player, connect_on, refused},
};

/// Attach, a request and its reply, key updates of both sides, altered bytes, resume, logout.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_lifecycle_works_on_every_lane() {
    let mut cluster = Cluster::start().await;
    let mut world = cluster.world("world-1", 1).await;
    // The server's key changes while the tests run.
    let _gateway =
        cluster.gateway_with("gateway-1", |config| config.key_update = Duration::from_millis(200)).await;
    let address = cluster.address("gateway-1");
    for (account, lane) in (7..).zip(Lane::ALL) {
        let ticket = cluster.ticket("gateway-1", account).await;
        let mut player = Player::attach_on(lane, &address, &ticket).await.expect("attached");
        assert_eq!(player.connection.lane(), lane);
        let gateway = world.session(player.session, SessionChange::Joined).await;

        for request in 1..=3 {
            player.request(LIST, request, b"who?").await;
            let asked = world.delivered(player.session).await;
            assert_eq!(
                (asked[0].kind, &asked[0].payload[..]),
                (MessageKind::Request, &b"who?"[..]),
                "{lane}"
            );
            world.hub.send(
                &gateway,
                &[player.session],
                vec![ServerMessage::reply(LIST, request.into(), "nobody")],
            );
            assert_eq!(player.next().await.unwrap().head, Head::Reply(request), "{lane}");
            player.connection.update_key().await.unwrap();
        }
        let mut updates = 0;
        while updates < 2 {
            let message =
                timeout(TEST_TIMEOUT, player.connection.receive()).await.expect("a new key").unwrap();
            updates += u32::from(message.opcode == opcode::KEY_UPDATE);
        }
        player.request(0x7777, 4, b"").await;
        assert_eq!(player.refusal(4).await, ErrorCode::OutOfPhase, "{lane}");

        let request = Message::new(LIST, Head::Request(5), (&b"bent"[..]).into());
        let mut record = player.connection.seal(std::slice::from_ref(&request)).unwrap();
        record[5] ^= 1;
        player.connection.send_bytes(&record).await.unwrap();
        assert_eq!(player.end().await, None, "{lane}: a forged record is not answered");
        player.resume_on(lane, &address).await.unwrap();
        assert!(player.established.ready.continued, "{lane}");
        player.connection.send_bytes(&raw::forge_record(u16::MAX, &[])).await.unwrap();
        assert_eq!(player.end().await, Some(ErrorCode::TooLarge), "{lane}");
        player.resume_on(lane, &address).await.unwrap();

        player.request(opcode::LOGOUT, 6, b"").await;
        assert_eq!(player.end().await, Some(ErrorCode::LoggedOut), "{lane}");
        world.session(player.session, SessionChange::Left).await;
        assert_eq!(
            refused(Player::attach_on(lane, &address, &ticket).await),
            ErrorCode::TicketInvalid,
            "{lane}"
        );
    }
}

/// Keys change in both directions under load. Neither direction waits for the other, and every message arrives once
/// and in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn key_updates_under_load_block_nothing_on_every_lane() {
    const ASK: u16 = 0x8001;
    const NUMBER: u16 = 0x8002;
    const UNREAD: u32 = 50;
    const UPDATES: u32 = 40;
    const MAX_AHEAD: u32 = 100;
    let numbered = |number: u32| Message::new(ASK, Head::Event, number.to_string().into_bytes().into());
    let mut cluster = Cluster::start().await;
    let _world = cluster.world("world-1", 1).await;
    let mut range = spec(BackendKind::FIRST_CUSTOM, 0x8000, 0x80ff);
    (range.routes[0].rate, range.routes[0].burst) = (10_000, 10_000);
    let mut busy = cluster.backend(DaemonKind::Backend, "busy-1", range).await;
    // The server changes its key nearly every time it sends.
    let _gateway =
        cluster.gateway_with("gateway-1", |config| config.key_update = Duration::from_millis(1)).await;
    busy.until("link", |event| matches!(event, LinkEvent::Up { .. }).then_some(())).await;
    let address = cluster.address("gateway-1");
    for (account, lane) in (7..).zip(Lane::ALL) {
        let ticket = cluster.ticket("gateway-1", account).await;
        let mut player = Player::attach_on(lane, &address, &ticket).await.expect("attached");
        let session = player.session;
        let gateway = busy.session(session, SessionChange::Joined).await;
        let (mut asked, mut received, mut sent) = (0, 0, 0);
        // Most key changes of a client in a row (section 13).
        let mut own = 30;

        // The client reads nothing, so it does not follow the server's keys. Its own keys change, and all its
        // messages arrive.
        for number in 1..=UNREAD {
            busy.event(&gateway, session, NUMBER, &number.to_string());
            player.send(numbered(number)).await;
            if number % 4 == 0 {
                player.connection.update_key().await.unwrap();
                own -= 1;
            }
        }
        while asked < UNREAD {
            for message in busy.delivered(session).await {
                asked += 1;
                assert_eq!(message.payload, asked.to_string().as_bytes(), "{lane}");
            }
        }
        sent += UNREAD;

        // Now both sides send, with new keys every few messages.
        let (mut updates, mut wanted) = (0, asked);
        while received < sent || updates < UPDATES {
            let message =
                timeout(TEST_TIMEOUT, player.connection.receive()).await.expect("a message").unwrap();
            player.received += u64::from(message.is_reliable());
            match message.opcode {
                opcode::KEY_UPDATE => updates += 1,
                NUMBER => {
                    received += 1;
                    assert_eq!(message.payload, received.to_string().as_bytes(), "{lane}");
                    if received % 5 == 0 {
                        wanted += 1;
                        player.send(numbered(wanted)).await;
                        if own > 0 {
                            player.connection.update_key().await.unwrap();
                            own -= 1;
                        }
                    }
                    if received % MAX_AHEAD == 0 {
                        player.acknowledge().await;
                    }
                    while updates < UPDATES && sent < received + MAX_AHEAD {
                        sent += 1;
                        busy.event(&gateway, session, NUMBER, &sent.to_string());
                    }
                }
                _ => {}
            }
        }
        assert_eq!(own, 0, "{lane}");
        while asked < wanted {
            for message in busy.delivered(session).await {
                asked += 1;
                assert_eq!(message.payload, asked.to_string().as_bytes(), "{lane}");
            }
        }
    }
}

/// Unread messages are kept up to a bound; beyond it the session ends with an error.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_that_does_not_read_is_disconnected_on_every_lane() {
    let mut cluster = Cluster::start().await;
    let mut world = cluster.world("world-1", 1).await;
    let _gateway = cluster.gateway("gateway-1").await;
    let address = cluster.address("gateway-1");
    for (account, lane) in (7..).zip(Lane::ALL) {
        let ticket = cluster.ticket("gateway-1", account).await;
        let mut player = Player::attach_on(lane, &address, &ticket).await.expect("attached");
        let gateway = world.session(player.session, SessionChange::Joined).await;
        let text = "x".repeat(16 << 10);
        // Half a megabyte may wait, and the client acknowledges nothing.
        for _ in 0..40 {
            world.hub.send(
                &gateway,
                &[player.session],
                vec![ServerMessage::event(opcode::QUEUE_POSITION, text.clone())],
            );
        }
        world.session(player.session, SessionChange::Left).await;
        // The error arrives if the socket still has room.
        let ending = player.end().await;
        assert!(ending.is_none_or(|code| code == ErrorCode::TooSlow), "{lane}: {ending:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_resumes_across_lanes() {
    let mut cluster = Cluster::start().await;
    let mut world = cluster.world("world-1", 1).await;
    let _gateway = cluster.gateway("gateway-1").await;
    let address = cluster.address("gateway-1");
    let ticket = cluster.ticket("gateway-1", 7).await;
    let mut player = Player::attach_on(Lane::Quic, &address, &ticket).await.expect("attached");
    let gateway = world.session(player.session, SessionChange::Joined).await;
    let mut number = 0;
    for lane in [Lane::Tcp, Lane::Quic, Lane::Wss, Lane::Ws, Lane::Quic] {
        // Sent on one lane, perhaps not read there, and read once on the next.
        for _ in 0..2 {
            number += 1;
            let sent = ServerMessage::event(opcode::QUEUE_POSITION, number.to_string());
            world.hub.send(&gateway, &[player.session], vec![sent]);
        }
        assert_eq!(player.text(opcode::QUEUE_POSITION).await, (number - 1).to_string());
        player.resume_on(lane, &address).await.unwrap();
        assert!(player.established.ready.continued);
        assert_eq!(player.text(opcode::QUEUE_POSITION).await, number.to_string(), "on {lane}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_survives_quic_address_migration() {
    let mut cluster = Cluster::start().await;
    let mut world = cluster.world("world-1", 1).await;
    let _gateway = cluster.gateway("gateway-1").await;
    let address = cluster.address("gateway-1");
    let ticket = cluster.ticket("gateway-1", 7).await;
    let mut player = Player::attach_on(Lane::Quic, &address, &ticket).await.expect("attached");
    let gateway = world.session(player.session, SessionChange::Joined).await;
    let before = player.connection.local_address().unwrap();
    player.connection.migrate().unwrap();
    assert_ne!(player.connection.local_address().unwrap(), before);
    player.request(LIST, 1, b"from elsewhere").await;
    assert_eq!(&world.delivered(player.session).await[0].payload[..], b"from elsewhere");
    world.hub.send(&gateway, &[player.session], vec![ServerMessage::reply(LIST, 1, "heard")]);
    assert_eq!(player.next().await.unwrap().head, Head::Reply(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn avatar_state_is_sent_by_datagram_then_repeated_in_record() {
    let mut cluster = Cluster::start().await;
    let mut world = cluster.world("world-1", 1).await;
    let mut zone = cluster.zone("zone-1").await;
    let _gateway = cluster.gateway("gateway-1").await;
    let address = cluster.address("gateway-1");
    for (account, lane) in [(7, Lane::Quic), (8, Lane::Tcp)] {
        let ticket = cluster.ticket("gateway-1", account).await;
        let mut player = Player::attach_on(lane, &address, &ticket).await.expect("attached");
        let gateway = world.session(player.session, SessionChange::Joined).await;
        world.hub.bind(&gateway, player.session, BackendKind::ZONE, "zone-1", Epoch(1));
        zone.bound(player.session).await;
        let avatar = ServerMessage::state(opcode::AVATAR, 0, 0, "I stand here");
        zone.hub.send(&gateway, &[player.session], vec![avatar]);
        if lane == Lane::Quic {
            let messages =
                timeout(TEST_TIMEOUT, player.connection.receive_datagram()).await.unwrap().unwrap();
            assert_eq!((messages.len(), &messages[0].payload[..]), (1, &b"I stand here"[..]));
        }
        // On QUIC the message is repeated in a record, because no other has superseded it.
        assert_eq!(player.text(opcode::AVATAR).await, "I stand here", "{lane}");
    }
}

/// A proxy that ends the client's TLS, opens another TLS connection to the gateway, and forwards all bytes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quic_attach_through_a_tls_proxy_is_refused() {
    let mut cluster = Cluster::start().await;
    let _world = cluster.world("world-1", 1).await;
    let _gateway = cluster.gateway("gateway-1").await;
    let address = cluster.address("gateway-1");
    let proxy = Listener::bind("127.0.0.1:0", &Lanes::default(), TEST_TIMEOUT).await.unwrap();
    let proxy_address = proxy.local_addr().unwrap().to_string();
    let gateway = address.parse().unwrap();
    tokio::spawn(async move {
        while let Ok(incoming) = proxy.accept().await {
            let lane = incoming.lane();
            tokio::spawn(async move {
                let mut client = incoming.open().await?;
                let mut server = Connector::default().connect(lane, gateway).await?;
                copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
    let ticket = cluster.ticket("gateway-1", 7).await;
    let passed = Player::attach_on(Lane::Quic, &proxy_address, &ticket).await;
    assert_eq!(refused(passed), ErrorCode::TicketInvalid, "the proof is of another connection");
    Player::attach_on(Lane::Quic, &address, &ticket).await.expect("which has not used up the ticket");
    // TCP has nothing to bind to, and a proxy that forwards sealed records learns and changes nothing.
    let ticket = cluster.ticket("gateway-1", 8).await;
    Player::attach_on(Lane::Tcp, &proxy_address, &ticket).await.expect("passed on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateway_with_tcp_only_refuses_other_lanes() {
    let mut cluster = Cluster::start().await;
    let _world = cluster.world("world-1", 1).await;
    let lanes = Lanes { quic: false, websocket: false, ..Lanes::default() };
    let _gateway = cluster.gateway_with("gateway-1", |config| config.lanes = lanes).await;
    let address = cluster.address("gateway-1");
    let mut config = Config::default();
    config.timing.connect = Duration::from_millis(200);
    for lane in [Lane::Quic, Lane::Ws, Lane::Wss] {
        let connecting = raw::Connection::open_on(
            &config,
            lane,
            address.parse().unwrap(),
            shardkeep_wire::preface::Service::Gateway,
        );
        assert!(connecting.await.is_err(), "{lane}");
    }
    let mut connection = connect_on(Lane::Tcp, &address).await;
    let ticket = cluster.ticket("gateway-1", 7).await;
    raw::attach(&mut connection, &config, &ticket).await.expect("attached");
}

/// Forwards one connection, and returns at its end the bytes that the server sent.
async fn recording_proxy(server: &str) -> (String, oneshot::Receiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (recorded, receiver) = oneshot::channel();
    let server = server.to_owned();
    tokio::spawn(async move {
        let (client, _) = listener.accept().await.unwrap();
        let server = TcpStream::connect(server).await.unwrap();
        let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
            (client.into_split(), server.into_split());
        tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
        let (mut sent, mut chunk) = (Vec::new(), Vec::new());
        while from_server.read_buf(&mut chunk).await.is_ok_and(|count| count > 0) {
            let _ = to_client.write_all(&chunk).await;
            sent.append(&mut chunk);
        }
        let _ = recorded.send(sent);
    });
    (address, receiver)
}

/// A close frame of a server (RFC 6455, section 5.5.1).
fn close_frame(code: u16) -> Vec<u8> {
    [&[0x88, 2][..], &code.to_be_bytes()].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn websocket_session_ends_with_the_close_code_of_its_reason() {
    let mut cluster = Cluster::start().await;
    let mut world = cluster.world("world-1", 1).await;
    let gateway = cluster.gateway("gateway-1").await;
    let address = cluster.address("gateway-1");
    // Another session makes the world's leader known, so that the first attach through the proxy succeeds.
    let _first = cluster.player("gateway-1", 6).await;
    for (account, code) in [(7, 1000), (8, 1002), (9, 1001)] {
        let (proxy, recorded) = recording_proxy(&address).await;
        let ticket = cluster.ticket("gateway-1", account).await;
        let mut player = Player::attach_on(Lane::Ws, &proxy, &ticket).await.expect("attached");
        world.session(player.session, SessionChange::Joined).await;
        match code {
            1000 => player.request(opcode::LOGOUT, 1, b"").await,
            1002 => {
                for _ in 0..20 {
                    player.send(Message::new(0x7777, Head::Event, (&b""[..]).into())).await;
                }
            }
            _ => gateway.daemon().drain("the test"),
        }
        assert!(player.end().await.is_some());
        drop(player);
        let sent = timeout(TEST_TIMEOUT, recorded).await.expect("an end").unwrap();
        assert!(sent.ends_with(&close_frame(code)), "{code}: {sent:?}");
    }
}
