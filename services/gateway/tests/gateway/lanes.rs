//! What must hold on every lane, and what only some can do. The gateway, its world and its zone are the same.

use std::time::Duration;

use shardkeep_client::{
    Config,
    lanes::{Connector, Lane, Listener, Settings as Lanes},
    raw,
};
use shardkeep_link::{LinkEvent, MessageKind, ServerMessage, SessionChange};
use shardkeep_types::{BackendKind, DaemonKind, Epoch};
use shardkeep_wire::{Head, Message, opcode, payload::ErrorCode};
use tokio::{io::copy_bidirectional, time::timeout};

use crate::{
    LIST,
    cluster::{Cluster, TEST_TIMEOUT, spec},
    player::{Player, connect_on, refused},
};

/// Attach, a request and its reply, both sides' key updates, bent bytes, resume, logout.
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

/// Keys move in both directions while both are busy; neither direction waits for the other, and every message arrives
/// once and in order.
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
    // A new key whenever there is something to say, practically.
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
        // A client may have so many keys in a row (section 13).
        let mut own = 30;

        // The client reads nothing, so it does not know the server's keys; its own go on, and all it says is heard.
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

        // Now both talk, with new keys every few messages.
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

/// What is not read piles up within its bound, and the session ends with a word.
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
        // Half a megabyte may wait; nobody acknowledges any of it.
        for _ in 0..40 {
            world.hub.send(
                &gateway,
                &[player.session],
                vec![ServerMessage::event(opcode::QUEUE_POSITION, text.clone())],
            );
        }
        world.session(player.session, SessionChange::Left).await;
        // The word comes if it still finds room.
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
        // Said on one lane, perhaps not read there, and in any case read once on the next.
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
        // On QUIC because nothing has superseded it.
        assert_eq!(player.text(opcode::AVATAR).await, "I stand here", "{lane}");
    }
}

/// Ends the client's TLS, begins another to the gateway, and passes everything on.
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
    // On TCP there is nothing to bind to: who passes on sealed records learns and changes nothing.
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
