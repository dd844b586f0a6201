//! Black-box tests: real gateways and real client sockets, among doubles of all other daemons.

mod claims;
mod cluster;
mod instructions;
mod lanes;
mod moves;
mod player;

use std::{sync::Arc, time::Duration};

use shardkeep_client::{ClientError, Config, raw};
use shardkeep_gateway::AdvertisedLane;
use shardkeep_link::{LinkEvent, MessageKind, PublishKind, ServerMessage, SessionChange};
use shardkeep_rpc::{
    accounts::{Closure, Closures},
    gateway::{
        AdmitRequest, AnnounceRequest, KickRequest, ListCostsRequest, ListSessionsRequest,
        RevokeAccountRequest, announce_request::To, kick_request::Selector,
    },
};
use shardkeep_types::{BackendKind, DaemonKind, Epoch, GroupKey};
use shardkeep_wire::{
    Head, Message, opcode,
    payload::{self, Announcement, ErrorCode, LaneAddress, Ping, Redirect},
    proxy,
};
use tokio::time::timeout;
use tonic::Code;

use crate::{
    cluster::{Cluster, TEST_TIMEOUT, spec},
    player::{Player, connect, refused},
};

const PLACED: u16 = opcode::PLACED;
const LIST: u16 = opcode::LIST_CHARACTERS;
const INVENTORY: u16 = opcode::GET_INVENTORY;

fn cell(number: u64) -> GroupKey {
    GroupKey::new(0x0200, 1, number)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_reaches_the_world_and_its_reply_the_client() {
    let mut cluster = Cluster::start().await;
    let mut world = cluster.world("world-1", 1).await;
    let _gateway = cluster.gateway("gateway-1").await;
    let mut player = cluster.player("gateway-1", 7).await;
    assert!(player.established.ready.continued);
    let gateway = world.session(player.session, SessionChange::Joined).await;

    player.request(LIST, 1, b"who?").await;
    let asked = world.delivered(player.session).await;
    assert_eq!(
        (asked[0].opcode, asked[0].kind, &asked[0].payload[..]),
        (LIST, MessageKind::Request, &b"who?"[..])
    );
    world.hub.send(&gateway, &[player.session], vec![ServerMessage::reply(LIST, 1, "nobody")]);
    let reply = player.next().await.unwrap();
    assert_eq!((reply.head, &reply.payload[..]), (Head::Reply(1), &b"nobody"[..]));

    player.request(INVENTORY, 2, b"").await;
    assert_eq!(player.refusal(2).await, ErrorCode::Refused, "no zone yet");
    player.request(opcode::LOGOUT, 3, b"").await;
    assert_eq!(player.end().await, Some(ErrorCode::LoggedOut));
    world.session(player.session, SessionChange::Left).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ticket_used_or_revoked_is_refused() {
    let mut cluster = Cluster::start().await;
    let _world = cluster.world("world-1", 1).await;
    let _gateway = cluster.gateway("gateway-1").await;
    let address = cluster.address("gateway-1");
    let ticket = cluster.ticket("gateway-1", 7).await;
    // A client that knows the ticket's id but not its key cannot use it up.
    let mut thief = shardkeep_auth::ticket::Ticket {
        index: 0,
        id: ticket.id,
        key: shardkeep_types::Secret::new([0; 32]),
    };
    assert_eq!(refused(Player::attach(&address, &thief).await), ErrorCode::TicketInvalid);
    let _player = Player::attach(&address, &ticket).await.expect("the ticket is still good");
    thief.key = ticket.key.clone();
    assert_eq!(refused(Player::attach(&address, &thief).await), ErrorCode::TicketInvalid, "used");

    let revoked = cluster.ticket("gateway-1", 8).await;
    let request = RevokeAccountRequest { account: 8, below_generation: 2, code: 0, detail: String::new() };
    cluster.gateway_client("gateway-1").revoke_account(request).await.unwrap();
    assert_eq!(refused(Player::attach(&address, &revoked).await), ErrorCode::TicketInvalid, "revoked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_are_evicted_when_full() {
    let mut cluster = Cluster::start().await;
    let _world = cluster.world("world-1", 1).await;
    let _gateway = cluster.gateway_with("gateway-1", |config| config.max_connections = 2).await;
    let address = cluster.address("gateway-1");
    let mut silent = [connect(&address).await, connect(&address).await];
    let mut player = cluster.player("gateway-1", 1).await;
    assert!(silent[0].wait_for_close().await);
    let _newcomer = connect(&address).await;
    assert!(silent[1].wait_for_close().await);
    player.send(Message::event(opcode::PING, &Ping { value: 7 })).await;
    while player.connection.receive().await.unwrap().opcode != opcode::PONG {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn input_before_attach_is_refused_or_closes_the_connection() {
    let cluster = Cluster::start().await;
    let _gateway = cluster.gateway("gateway-1").await;
    let address = cluster.address("gateway-1");
    let mut foreign = connect(&address).await;
    foreign.discard_preface();
    foreign.send_bytes(b"HELO example.com\r\n").await.unwrap();
    assert!(foreign.wait_for_close().await, "not a word");
    let mut early = connect(&address).await;
    early.send(&[Message::new(LIST, Head::Request(1), (&b""[..]).into())]).await.unwrap();
    assert_eq!(refused(early.next().await), ErrorCode::OutOfPhase);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_requests_are_refused_until_too_many_end_the_connection() {
    let mut cluster = Cluster::start().await;
    let mut world = cluster.world("world-1", 1).await;
    let _gateway = cluster.gateway("gateway-1").await;
    let mut player = cluster.player("gateway-1", 7).await;
    world.session(player.session, SessionChange::Joined).await;
    player.request(0x7777, 1, b"").await;
    assert_eq!(player.refusal(1).await, ErrorCode::OutOfPhase);
    player.send(Message::new(LIST, Head::Request(2), vec![0; 300].into())).await;
    assert_eq!(player.refusal(2).await, ErrorCode::TooLarge);
    player.request(LIST, 3, b"still here").await;
    assert_eq!(&world.delivered(player.session).await[0].payload[..], b"still here");
    for _ in 0..20 {
        player.send(Message::new(0x7777, Head::Event, (&b""[..]).into())).await;
    }
    assert_eq!(player.end().await, Some(ErrorCode::OutOfPhase), "one strike too many");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_or_oversized_record_closes_the_connection() {
    let mut cluster = Cluster::start().await;
    let _world = cluster.world("world-1", 1).await;
    let _gateway = cluster.gateway("gateway-1").await;
    let mut player = cluster.player("gateway-1", 7).await;
    let mut record =
        player.connection.seal(&[Message::new(LIST, Head::Request(4), (&b""[..]).into())]).unwrap();
    record[5] ^= 1;
    player.connection.send_bytes(&record).await.unwrap();
    assert_eq!(player.end().await, None, "a forged record is not answered");
    player.resume(&cluster.address("gateway-1")).await.unwrap();
    player.connection.send_bytes(&[0xff, 0xff, 0]).await.unwrap();
    assert_eq!(player.end().await, Some(ErrorCode::TooLarge));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trusted_balancer_sets_the_client_address() {
    let mut cluster = Cluster::start().await;
    let _world = cluster.world("world-1", 1).await;
    let balancers = ["127.0.0.0/8".parse::<shardkeep_daemon::Network>().unwrap()];
    let trust = |config: &mut shardkeep_gateway::Config| {
        config.trusted_balancers = balancers.into_iter().collect();
    };
    let _gateway = cluster.gateway_with("gateway-1", trust).await;
    let address = cluster.address("gateway-1");
    let ticket = cluster.ticket("gateway-1", 7).await;
    let (client, server) = ("203.0.113.9:4711".parse().unwrap(), "198.51.100.1:7200".parse().unwrap());
    let attached = async {
        loop {
            let mut connection = connect(&address).await;
            let opening = [proxy::encode(client, server), connection.preface().encode().to_vec()].concat();
            connection.discard_preface();
            connection.send_bytes(&opening).await.unwrap();
            match raw::attach(&mut connection, &Config::default(), &ticket).await {
                // The gateway does not know the world's leader yet.
                Err(ClientError::Refused(refusal)) if refusal.code == ErrorCode::Unavailable => {}
                attached => break attached.map(|_| connection),
            }
        }
    };
    let _connection = timeout(TEST_TIMEOUT, attached).await.expect("the world is led").unwrap();
    let gm = cluster.operator().await;
    let listed =
        cluster.gateway_client_as(&gm, "gateway-1").list_sessions(ListSessionsRequest::default()).await;
    assert_eq!(listed.unwrap().into_inner().sessions[0].address, "203.0.113.9");

    let mut silent = connect(&address).await;
    silent.send_preface().await.unwrap();
    assert!(silent.wait_for_close().await, "it must say so");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proxy_header_from_untrusted_peer_closes_the_connection() {
    let cluster = Cluster::start().await;
    let _gateway = cluster.gateway("gateway-1").await;
    let mut stranger = connect(&cluster.address("gateway-1")).await;
    stranger.discard_preface();
    let client = "203.0.113.9:4711".parse().unwrap();
    stranger.send_bytes(&proxy::encode(client, client)).await.unwrap();
    assert!(stranger.wait_for_close().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inputs_are_held_during_bind_and_only_the_owner_rebinds() {
    let mut cluster = Cluster::start().await;
    let mut world = cluster.world("world-1", 1).await;
    let (mut west, mut east) = (cluster.zone("zone-1").await, cluster.zone("zone-2").await);
    let _gateway = cluster.gateway("gateway-1").await;
    let mut player = cluster.player("gateway-1", 7).await;
    let session = player.session;
    let gateway = world.session(session, SessionChange::Joined).await;
    for zone in [&mut west, &mut east] {
        zone.until("link", |event| matches!(event, LinkEvent::Up { .. }).then_some(())).await;
    }

    world.hub.bind(&gateway, session, BackendKind::ZONE, "zone-1", Epoch(1));
    world.hub.send(&gateway, &[session], vec![ServerMessage::event(opcode::QUEUE_POSITION, "")]);
    player.next().await.unwrap();
    player.request(INVENTORY, 1, b"one").await;
    player.request(INVENTORY, 2, b"two").await;
    west.bound(session).await;
    let mut heard = Vec::new();
    while heard.len() < 2 {
        heard.extend(west.delivered(session).await.into_iter().map(|message| message.request));
    }
    assert_eq!(heard, [1, 2]);

    // A bind of a zone that is not the owner, of the owner, and of the former owner. Links have no order among them:
    // a message to a second player shows that the gateway has handled the east's messages.
    let mut fence = cluster.player("gateway-1", 8).await;
    world.session(fence.session, SessionChange::Joined).await;
    world.hub.bind(&gateway, fence.session, BackendKind::ZONE, "zone-2", Epoch(1));
    east.bound(fence.session).await;
    east.hub.bind(&gateway, session, BackendKind::ZONE, "zone-2", Epoch(9));
    east.event(&gateway, session, PLACED, "not bound");
    east.event(&gateway, fence.session, PLACED, "fence");
    assert_eq!(fence.text(PLACED).await, "fence");
    west.hub.bind(&gateway, session, BackendKind::ZONE, "zone-2", Epoch(2));
    assert_eq!(east.bound(session).await.1, Epoch(2));
    west.event(&gateway, session, PLACED, "not bound any more");
    east.event(&gateway, session, PLACED, "welcome");
    assert_eq!(player.text(PLACED).await, "welcome");
    player.request(INVENTORY, 3, b"three").await;
    assert_eq!(east.delivered(session).await[0].request, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_subscriber_gets_keyframe_deltas_and_next_event() {
    let mut cluster = Cluster::start().await;
    let mut world = cluster.world("world-1", 1).await;
    let mut zone = cluster.zone("zone-1").await;
    let _gateway = cluster.gateway("gateway-1").await;
    let mut players = Vec::new();
    for account in [7, 8] {
        let player = cluster.player("gateway-1", account).await;
        let gateway = world.session(player.session, SessionChange::Joined).await;
        world.hub.bind(&gateway, player.session, BackendKind::ZONE, "zone-1", Epoch(1));
        zone.bound(player.session).await;
        players.push(player);
    }
    let (gateway, late) = (Arc::from("gateway-1"), players.pop().unwrap());
    let (mut early, mut late) = (players.pop().unwrap(), late);

    zone.hub.subscribe(&gateway, early.session, &[cell(1)], false);
    zone.watched(cell(1)).await;
    zone.publish(cell(1), PublishKind::Keyframe, "keyframe");
    zone.publish(cell(1), PublishKind::Delta, "delta");
    assert_eq!(early.text(opcode::CELL).await, "keyframe");
    assert_eq!(early.text(opcode::CELL).await, "delta");
    zone.hub.subscribe(&gateway, late.session, &[cell(1)], false);
    zone.publish(cell(1), PublishKind::Event, "event");
    assert_eq!(late.text(opcode::CELL).await, "keyframe");
    assert_eq!(late.text(opcode::CELL).await, "delta");
    assert_eq!(late.text(PLACED).await, "event");
    assert_eq!(early.text(PLACED).await, "event");

    zone.hub.subscribe(&gateway, early.session, &[cell(2)], true);
    zone.hub.subscribe(&gateway, late.session, &[], true);
    zone.until("unwatch", |event| {
        matches!(event, LinkEvent::Unwatched { group, .. } if group == cell(1)).then_some(())
    })
    .await;
    assert_eq!((zone.hub.watchers(cell(1)), zone.hub.watchers(cell(2))), (0, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_survives_connection_loss_until_link_loss_timeout() {
    let mut cluster = Cluster::start().await;
    let mut world = cluster.world("world-1", 1).await;
    let _gateway =
        cluster.gateway_with("gateway-1", |config| config.link_loss = Duration::from_secs(2)).await;
    let address = cluster.address("gateway-1");
    let mut player = cluster.player("gateway-1", 7).await;
    let session = player.session;
    let gateway = world.session(session, SessionChange::Joined).await;
    let send_text = |text: &str| world.event(&gateway, session, opcode::ANNOUNCEMENT, text);

    send_text("first");
    assert_eq!(player.text(opcode::ANNOUNCEMENT).await, "first");
    send_text("lost on the way");
    // The player disconnects without having read the second message.
    player.connection = connect(&address).await;
    world.session(session, SessionChange::LinkDead).await;
    world.event(&gateway, session, opcode::ANNOUNCEMENT, "said meanwhile");
    player.resume(&address).await.unwrap();
    assert!(player.established.ready.continued);
    world.session(session, SessionChange::Resumed).await;
    for text in ["lost on the way", "said meanwhile"] {
        assert_eq!(player.text(opcode::ANNOUNCEMENT).await, text);
    }
    player.acknowledge().await;

    // A second connection of the same session replaces the first.
    let mut before = connect(&address).await;
    std::mem::swap(&mut before, &mut player.connection);
    player.resume(&address).await.unwrap();
    assert!(timeout(TEST_TIMEOUT, before.wait_for_close()).await.unwrap());
    world.event(&gateway, session, opcode::ANNOUNCEMENT, "still there");
    assert_eq!(player.text(opcode::ANNOUNCEMENT).await, "still there");

    player.connection = connect(&address).await;
    world.session(session, SessionChange::Left).await;
    cluster.world.forget(session.as_bytes());
    assert_eq!(refused(player.resume(&address).await), ErrorCode::TicketInvalid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_moves_to_another_gateway_with_its_log() {
    let mut cluster = Cluster::start().await;
    let mut world = cluster.world("world-1", 1).await;
    let mut zone = cluster.zone("zone-1").await;
    let (_one, _two) = (cluster.gateway("gateway-1").await, cluster.gateway("gateway-2").await);
    let mut player = cluster.player("gateway-1", 7).await;
    let session = player.session;
    let gateway = world.session(session, SessionChange::Joined).await;
    world.hub.bind(&gateway, session, BackendKind::ZONE, "zone-1", Epoch(5));
    zone.bound(session).await;
    player.request(LIST, 1, b"").await;
    world.delivered(session).await;
    world.event(&gateway, session, opcode::ANNOUNCEMENT, "unread");
    world.hub.send(&gateway, &[session], vec![ServerMessage::reply(LIST, 1, "answer")]);

    player.resume(&cluster.address("gateway-2")).await.unwrap();
    assert!(player.established.ready.continued);
    assert_eq!(player.established.ready.received, 1);
    assert_eq!(player.text(opcode::ANNOUNCEMENT).await, "unread");
    assert_eq!(player.text(LIST).await, "answer");
    let (moved_to, epoch) = zone.bound(session).await;
    assert_eq!((&*moved_to, epoch), ("gateway-2", Epoch(5)));
    player.request(INVENTORY, 2, b"").await;
    assert_eq!(zone.delivered(session).await[0].request, 2);
    let gm = cluster.operator().await;
    let listed = cluster
        .gateway_client_as(&gm, "gateway-1")
        .list_sessions(ListSessionsRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert!(listed.sessions.is_empty(), "the old gateway has dropped it");
    // Each report has the session epoch, so that billing can tell reports of the old gateway apart.
    let mut reports = cluster.billing.reports.subscribe();
    let id = session.as_bytes();
    let reported = reports.wait_for(|all| all.iter().any(|it| it.session == id && it.session_epoch == 2));
    timeout(TEST_TIMEOUT, reported).await.expect("play time is reported").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_of_dead_gateway_is_claimed_without_its_log() {
    let mut cluster = Cluster::start().await;
    let mut world = cluster.world("world-1", 1).await;
    let mut zone = cluster.zone("zone-1").await;
    let (_one, _two) = (cluster.gateway("gateway-1").await, cluster.gateway("gateway-2").await);
    let mut player = cluster.player("gateway-1", 7).await;
    world.session(player.session, SessionChange::Joined).await;
    player.received = 3;
    cluster.world.set_zone_binding(player.session.as_bytes(), "zone-1", 5);
    cluster.world.set_holder(player.session.as_bytes(), "a gateway that is no more");
    player.resume(&cluster.address("gateway-2")).await.unwrap();
    assert!(!player.established.ready.continued, "its log can not be had");
    assert_eq!((player.received, player.established.ready.received), (0, 0));
    let (gateway, epoch) = zone.bound(player.session).await;
    assert_eq!((&*gateway, epoch), ("gateway-2", Epoch(5)));
    zone.event(&gateway, player.session, PLACED, "welcome back");
    assert_eq!(player.text(PLACED).await, "welcome back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_are_presented_to_a_new_leader() {
    let mut cluster = Cluster::start().await;
    let mut first = cluster.world("world-1", 1).await;
    let _gateway = cluster.gateway("gateway-1").await;
    let mut player = cluster.player("gateway-1", 7).await;
    first.session(player.session, SessionChange::Joined).await;
    player.request(LIST, 1, b"").await;
    first.delivered(player.session).await;
    let mut opened = cluster.world.opened.subscribe();
    opened.mark_unchanged();

    let mut second = cluster.world("world-2", 2).await;
    timeout(TEST_TIMEOUT, opened.changed()).await.expect("presented again").unwrap();
    let gateway = second.session(player.session, SessionChange::Joined).await;
    assert_eq!(player.refusal(1).await, ErrorCode::Unavailable, "the first world will not answer it");
    first.event(&gateway, player.session, opcode::ANNOUNCEMENT, "outdated");
    second.event(&gateway, player.session, opcode::ANNOUNCEMENT, "new");
    assert_eq!(player.text(opcode::ANNOUNCEMENT).await, "new");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revocations_end_sessions_after_reconnecting_to_login() {
    let mut cluster = Cluster::start().await;
    let mut world = cluster.world("world-1", 1).await;
    let login = cluster.followed_login().await;
    let _gateway = cluster.gateway("gateway-1").await;
    let mut early = cluster.player("gateway-1", 7).await;
    login.heard(7, 1).await;

    // Revoked while the stream is cut: the gateway sends its sessions again.
    login.revoke(7, 2, ErrorCode::Banned as u32);
    login.cut();
    assert_eq!(early.end().await, Some(ErrorCode::Banned));
    world.session(early.session, SessionChange::Left).await;

    // Login is asked about a later session too; a session that was not revoked continues.
    let mut outdated = cluster.player("gateway-1", 8).await;
    let mut other = cluster.player("gateway-1", 9).await;
    login.revoke(8, 2, ErrorCode::Displaced as u32);
    login.cut();
    assert_eq!(outdated.end().await, Some(ErrorCode::Displaced));
    login.heard(9, 1).await;
    other.request(LIST, 1, b"still here").await;
    assert_eq!(&world.delivered(other.session).await[0].payload[..], b"still here");

    let of = |account| ListSessionsRequest { account: Some(account), ..ListSessionsRequest::default() };
    let mut asked = cluster.gateway_client("gateway-1");
    let found = asked.list_sessions(of(9)).await.unwrap().into_inner();
    let session = &found.sessions[0];
    assert_eq!((found.sessions.len(), session.account, session.generation), (1, 9, 1));
    assert!(!session.link_dead && found.tickets.is_empty());
    assert!(asked.list_sessions(of(8)).await.unwrap().into_inner().sessions.is_empty());
    cluster.ticket("gateway-1", 10).await;
    assert_eq!(asked.list_sessions(of(10)).await.unwrap().into_inner().tickets, [1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_list_is_limited_to_given_sessions_and_to_later_pages() {
    let mut cluster = Cluster::start().await;
    let _world = cluster.world("world-1", 1).await;
    let _gateway = cluster.gateway("gateway-1").await;
    let players = [cluster.player("gateway-1", 7).await, cluster.player("gateway-1", 8).await];
    let mut ids = players.each_ref().map(|player| player.session.as_bytes().to_vec());
    ids.sort_unstable();
    let [first, second] = &ids;
    let gm = cluster.operator().await;
    let mut client = cluster.gateway_client_as(&gm, "gateway-1");
    let mut list = async |sessions: Vec<Vec<u8>>, after: &[u8]| {
        let after = after.to_vec();
        let request = ListSessionsRequest { sessions, after, ..ListSessionsRequest::default() };
        let reply = client.list_sessions(request).await?.into_inner();
        assert!(reply.next.is_empty(), "two sessions fit one page");
        Ok::<Vec<_>, tonic::Status>(reply.sessions.into_iter().map(|session| session.session).collect())
    };
    assert_eq!(list(vec![second.clone(), vec![0; 16]], &[]).await.unwrap(), ids[1..]);
    assert_eq!(list(vec![], &[]).await.unwrap(), ids);
    assert_eq!(list(vec![], first).await.unwrap(), ids[1..]);
    let refused = list(vec![first.clone(); 1_025], &[]).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closed_world_warns_and_disconnects_players_but_keeps_staff() {
    let mut cluster = Cluster::start().await;
    let mut world = cluster.world("world-1", 1).await;
    let login = cluster.followed_login().await;
    let (_one, _two) = (cluster.gateway("gateway-1").await, cluster.gateway("gateway-2").await);
    let mut players = [cluster.player("gateway-1", 7).await, cluster.player("gateway-1", 8).await];
    let mut staff = cluster.player("gateway-1", 9).await;
    let close = |ends_ms, left_ms| {
        let closure = Closure { world: 1, note: "new maps".into(), ends_ms, left_ms };
        let elsewhere = Closure { world: 2, ..closure.clone() };
        login.closed.send_replace(Closures { worlds: vec![closure, elsewhere], staff: vec![9] });
    };
    close(1, 3_600_000);
    for player in &mut players {
        let warned = player.next().await.unwrap().decode::<Announcement>().unwrap().text;
        assert!(warned.contains("maintenance") && warned.ends_with(": new maps"), "{warned}");
    }
    // New sessions, and sessions that come from another gateway, are warned too.
    let [stays, mut moves] = players;
    moves.resume(&cluster.address("gateway-2")).await.unwrap();
    let mut late = cluster.player("gateway-2", 10).await;
    for player in [&mut moves, &mut late] {
        assert_eq!(player.next().await.unwrap().opcode, opcode::ANNOUNCEMENT);
    }
    close(2, 0);
    for mut player in [stays, moves, late] {
        let end = player.closing_error().await.expect("it is told why");
        assert_eq!((end.code(), end.detail.as_str()), (ErrorCode::Maintenance, "new maps"));
    }
    // The ticket was admitted before the closure.
    let mut early = cluster.player("gateway-1", 11).await;
    assert_eq!(early.end().await, Some(ErrorCode::Maintenance));
    staff.request(LIST, 1, b"still here").await;
    assert_eq!(&world.delivered(staff.session).await[0].payload[..], b"still here");
    login.closed.send_replace(Closures::default());
    let mut again = cluster.player("gateway-1", 7).await;
    again.request(LIST, 1, b"again").await;
    assert_eq!(&world.delivered(again.session).await[0].payload[..], b"again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_client_is_disconnected_without_affecting_others() {
    let mut cluster = Cluster::start().await;
    let mut world = cluster.world("world-1", 1).await;
    let _gateway = cluster.gateway("gateway-1").await;
    let slow = cluster.player("gateway-1", 7).await;
    let mut quick = cluster.player("gateway-1", 8).await;
    let gateway = world.session(quick.session, SessionChange::Joined).await;
    let line = "x".repeat(60_000);
    for _ in 0..20 {
        let message = ServerMessage::event(opcode::ANNOUNCEMENT, line.clone());
        world.hub.send(&gateway, &[slow.session, quick.session], vec![message]);
        assert_eq!(quick.text(opcode::ANNOUNCEMENT).await.len(), line.len());
        quick.acknowledge().await;
    }
    world.session(slow.session, SessionChange::Left).await;
    quick.request(LIST, 1, b"").await;
    world.delivered(quick.session).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn newer_login_ends_the_earlier_session() {
    let mut cluster = Cluster::start().await;
    let _world = cluster.world("world-1", 1).await;
    let _gateway = cluster.gateway("gateway-1").await;
    let mut first = cluster.player("gateway-1", 7).await;
    let _second = cluster.player("gateway-1", 7).await;
    assert_eq!(first.end().await, Some(ErrorCode::Displaced));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn announcement_and_kick_need_an_operator() {
    let cluster = Cluster::start().await;
    let _gateway = cluster.gateway("gateway-1").await;
    let mut login = cluster.gateway_client("gateway-1");
    let refused = login.announce(AnnounceRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let refused = login.kick(KickRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operator_announcement_is_heard_and_kick_ends_the_session() {
    let mut cluster = Cluster::start().await;
    let _world = cluster.world("world-1", 1).await;
    let _gateway = cluster.gateway("gateway-1").await;
    let mut player = cluster.player("gateway-1", 7).await;
    let gm = cluster.operator().await;
    let mut gateway = cluster.gateway_client_as(&gm, "gateway-1");
    let line = AnnounceRequest { text: "restart at noon".into(), to: Some(To::World(1)) };
    assert_eq!(gateway.announce(line).await.unwrap().into_inner().reached, 1);
    let heard = player.next().await.unwrap();
    assert_eq!(heard.decode::<Announcement>().unwrap().text, "restart at noon");
    let kick = KickRequest {
        selector: Some(Selector::Account(7)),
        code: ErrorCode::Kicked as u32,
        detail: "bye".into(),
    };
    assert_eq!(gateway.kick(kick).await.unwrap().into_inner().ended, 1);
    assert_eq!(player.end().await, Some(ErrorCode::Kicked));

    let mut reports = cluster.billing.reports.subscribe();
    let id = player.session.as_bytes();
    let reported = reports.wait_for(|all| all.iter().any(|report| report.ended && report.session == id));
    timeout(TEST_TIMEOUT, reported).await.expect("play time is reported").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn draining_gateway_redirects_players_to_another() {
    let mut cluster = Cluster::start().await;
    let mut world = cluster.world("world-1", 1).await;
    let (one, _two) = (cluster.gateway("gateway-1").await, cluster.gateway("gateway-2").await);
    let mut player = cluster.player("gateway-1", 7).await;
    world.session(player.session, SessionChange::Joined).await;
    let mut other = cluster.player("gateway-1", 8).await;
    one.daemon().drain("a test");
    let redirect = player.next().await.unwrap();
    assert_eq!(redirect.opcode, opcode::REDIRECT);
    let address = redirect.decode::<Redirect>().unwrap().gateway;
    assert_eq!(address, cluster.address("gateway-2"));
    player.resume(&address).await.unwrap();
    assert!(player.established.ready.continued);
    assert_eq!(other.end().await, Some(ErrorCode::Draining), "who stays is told when the time is up");
    one.stop().await.unwrap();
    let gateway = world.session(player.session, SessionChange::Joined).await;
    world.event(&gateway, player.session, opcode::ANNOUNCEMENT, "here");
    assert_eq!(player.text(opcode::ANNOUNCEMENT).await, "here");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateways_draining_together_do_not_wait_for_each_other() {
    let hour = Duration::from_secs(3_600);
    let mut cluster = Cluster::start().await;
    let _world = cluster.world("world-1", 1).await;
    let one = cluster.gateway_as("gateway-1", |settings| settings.daemon.grace = hour).await;
    let two = cluster.gateway_as("gateway-2", |settings| settings.daemon.grace = hour).await;
    let mut player = cluster.player("gateway-1", 7).await;
    two.daemon().drain("a test");
    one.daemon().drain("a test");
    assert_eq!(player.end().await, Some(ErrorCode::Draining), "an hour before the time is up");
    one.stop().await.unwrap();
    two.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crowded_gateway_redirects_newcomers_to_a_lighter_one() {
    let mut cluster = Cluster::start().await;
    let mut world = cluster.world("world-1", 1).await;
    let _one = cluster.gateway_with("gateway-1", |config| config.capacity = 5).await;
    let _two = cluster.gateway("gateway-2").await;
    let mut held = Vec::new();
    for account in 1..=4 {
        held.push(cluster.player("gateway-1", account).await);
    }
    let mut gateways = cluster.login.directory(DaemonKind::Gateway);
    let crowded = async {
        while !gateways.get("gateway-1").is_some_and(|gateway| gateway.load >= 0.8) {
            gateways.changed().await;
        }
    };
    timeout(TEST_TIMEOUT, crowded).await.expect("its load is told");
    let sent_on = async {
        loop {
            let mut player = cluster.player("gateway-1", 9).await;
            player.send(Message::event(opcode::PING, &Ping { value: 7 })).await;
            let message = player.connection.receive().await.unwrap();
            if message.opcode == opcode::REDIRECT {
                break (player, message.decode::<Redirect>().unwrap().gateway);
            }
            // The gateway did not know of the other one yet.
            player.request(opcode::LOGOUT, 1, b"").await;
            player.end().await;
        }
    };
    let (mut player, address) = timeout(TEST_TIMEOUT, sent_on).await.expect("a newcomer is sent on");
    assert_eq!(address, cluster.address("gateway-2"));
    player.resume(&address).await.unwrap();
    assert!(player.established.ready.continued, "the session moved with its client");
    let gateway = world.session(player.session, SessionChange::Joined).await;
    assert_eq!(&*gateway, "gateway-1");
    let gateway = world.session(player.session, SessionChange::Joined).await;
    assert_eq!(&*gateway, "gateway-2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_gateway_refuses_tickets() {
    let mut cluster = Cluster::start().await;
    let _world = cluster.world("world-1", 1).await;
    let _gateway = cluster.gateway_with("gateway-1", |config| config.capacity = 2).await;
    let _player = cluster.player("gateway-1", 1).await;
    cluster.ticket("gateway-1", 2).await;
    let refused = cluster.admit("gateway-1", 3).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tickets_of_one_call_are_admitted_individually() {
    let mut cluster = Cluster::start().await;
    let _world = cluster.world("world-1", 1).await;
    let _gateway = cluster.gateway_with("gateway-1", |config| config.capacity = 2).await;
    let (tickets, mut admissions): (Vec<_>, Vec<_>) =
        (1..=4).map(|account| cluster.admission(account)).unzip();
    admissions[1].ticket_key.pop();
    let mut gateway = cluster.gateway_client("gateway-1");
    let reply = gateway.admit(AdmitRequest { admissions: admissions.clone() }).await.unwrap().into_inner();
    let codes: Vec<_> = reply.admitted.iter().map(|it| Code::from_i32(it.code as i32)).collect();
    assert_eq!(codes, [Code::Ok, Code::InvalidArgument, Code::Ok, Code::ResourceExhausted]);
    for taken in [&tickets[0], &tickets[2]] {
        Player::attach(&cluster.address("gateway-1"), taken).await.expect("attached");
    }
    let many = AdmitRequest { admissions: vec![admissions.remove(0); 1_025] };
    assert_eq!(gateway.admit(many).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn list_costs_reports_messages_by_opcode() {
    let mut cluster = Cluster::start().await;
    let mut world = cluster.world("world-1", 1).await;
    let _gateway = cluster.gateway("gateway-1").await;
    let mut player = cluster.player("gateway-1", 7).await;
    let gateway = world.session(player.session, SessionChange::Joined).await;
    player.request(LIST, 1, b"who?").await;
    world.delivered(player.session).await;
    world.hub.send(&gateway, &[player.session], vec![ServerMessage::reply(LIST, 1, "nobody")]);
    player.next().await.unwrap();
    let operator = cluster.operator().await;
    let costs =
        cluster.gateway_client_as(&operator, "gateway-1").list_costs(ListCostsRequest {}).await.unwrap();
    let costs = costs.into_inner().costs;
    let list = costs.iter().find(|cost| cost.name == "ListCharacters").expect("it has been seen");
    // The process has one count, which other tests share.
    assert!(list.received >= 1 && list.received_bytes >= 4, "{list:?}");
    assert!(list.sent >= 1 && list.sent_bytes > 6, "{list:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn key_updates_work_in_both_directions() {
    let mut cluster = Cluster::start().await;
    let mut world = cluster.world("world-1", 1).await;
    let _gateway =
        cluster.gateway_with("gateway-1", |config| config.key_update = Duration::from_secs(1)).await;
    let mut player = cluster.player("gateway-1", 7).await;
    let gateway = world.session(player.session, SessionChange::Joined).await;
    for _ in 0..2 {
        while player.connection.receive().await.unwrap().opcode != opcode::KEY_UPDATE {}
        player.connection.update_key().await.unwrap();
        player.request(LIST, 1, b"").await;
        world.delivered(player.session).await;
        world.event(&gateway, player.session, opcode::ANNOUNCEMENT, "heard");
        assert_eq!(player.text(opcode::ANNOUNCEMENT).await, "heard");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn custom_backend_registers_its_opcodes() {
    let mut cluster = Cluster::start().await;
    let _world = cluster.world("world-1", 1).await;
    let _gateway = cluster.gateway("gateway-1").await;
    let mut player = cluster.player("gateway-1", 7).await;
    player.request(0x8001, 1, b"").await;
    assert_eq!(player.refusal(1).await, ErrorCode::OutOfPhase);
    let spec = spec(BackendKind::FIRST_CUSTOM, 0x8000, 0x80ff);
    let mut studio = cluster.backend(DaemonKind::Backend, "dice-1", spec).await;
    let gateway = studio.session(player.session, SessionChange::Joined).await;
    player.request(0x8001, 2, b"roll").await;
    assert_eq!(&studio.delivered(player.session).await[0].payload[..], b"roll");
    studio.event(&gateway, player.session, 0x8002, "six");
    assert_eq!(player.text(0x8002).await, "six");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moves_above_their_rate_are_coalesced_without_strikes() {
    let mut cluster = Cluster::start().await;
    let mut world = cluster.world("world-1", 1).await;
    let mut zone = cluster.zone("zone-1").await;
    let _gateway = cluster.gateway("gateway-1").await;
    let mut player = cluster.player("gateway-1", 7).await;
    let gateway = world.session(player.session, SessionChange::Joined).await;
    world.hub.bind(&gateway, player.session, BackendKind::ZONE, "zone-1", Epoch(1));
    zone.bound(player.session).await;

    // Far more than the burst, and than the number of strikes that closes a connection.
    let count = 200u8;
    for number in 0..count {
        let head = Head::State { class: 0, key: 0 };
        player.send(Message::new(opcode::MOVE, head, vec![number; 9].into())).await;
    }
    let mut delivered = Vec::new();
    while delivered.last() != Some(&(count - 1)) {
        delivered.extend(zone.delivered(player.session).await.into_iter().map(|message| message.payload[0]));
    }
    assert!(delivered.is_sorted() && delivered.len() < usize::from(count), "{delivered:?}");
    player.ping().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_are_told_the_address_of_each_lane() {
    let advertised = |host: &str| AdvertisedLane {
        address: format!("{host}.example:443"),
        certificate_name: "play.example".into(),
    };
    let told = |host: &str| LaneAddress {
        lane: payload::Lane::Wss.into(),
        address: format!("{host}.example:443"),
        certificate_name: "play.example".into(),
    };
    let mut cluster = Cluster::start().await;
    let _world = cluster.world("world-1", 1).await;
    let lane = |host: &str| [(shardkeep_client::lanes::Lane::Wss, advertised(host))].into();
    let gateway = cluster.gateway_with("gateway-1", |config| config.lane_addresses = lane("one")).await;
    let _other = cluster.gateway_with("gateway-2", |config| config.lane_addresses = lane("two")).await;
    let mut player = cluster.player("gateway-1", 7).await;
    assert_eq!(player.established.ready.lanes, [told("one")]);
    gateway.daemon().drain("the test");
    let message = player.next().await.unwrap();
    assert_eq!(message.opcode, opcode::REDIRECT);
    assert_eq!(message.decode::<Redirect>().unwrap().lanes, [told("two")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_in_the_record_of_confirm_reaches_the_world() {
    let mut cluster = Cluster::start().await;
    let mut world = cluster.world("world-1", 1).await;
    let _gateway = cluster.gateway("gateway-1").await;
    // The gateway knows the world's leader once a session is attached.
    let _first = cluster.player("gateway-1", 6).await;
    let ticket = cluster.ticket("gateway-1", 7).await;
    let mut connection = connect(&cluster.address("gateway-1")).await;
    let request = Message::new(LIST, Head::Request(2), (&b"early"[..]).into());
    let established =
        raw::attach_with(&mut connection, &Config::default(), &ticket, &[request]).await.unwrap();
    assert_eq!(&world.delivered(established.session).await[0].payload[..], b"early");
    let gateway = Arc::from("gateway-1");
    world.hub.send(&gateway, &[established.session], vec![ServerMessage::reply(LIST, 2, "answer")]);
    assert_eq!(timeout(TEST_TIMEOUT, connection.next()).await.unwrap().unwrap().head, Head::Reply(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keyframe_in_parts_is_delivered_without_asking_for_another() {
    const PARTS: u8 = 16;
    let mut cluster = Cluster::start().await;
    let mut world = cluster.world("world-1", 1).await;
    let mut zone = cluster.zone("zone-1").await;
    let _gateway = cluster.gateway("gateway-1").await;
    let gateway = Arc::from("gateway-1");
    let mut players = Vec::new();
    for account in [7, 8] {
        let player = cluster.player("gateway-1", account).await;
        world.session(player.session, SessionChange::Joined).await;
        world.hub.bind(&gateway, player.session, BackendKind::ZONE, "zone-1", Epoch(1));
        zone.bound(player.session).await;
        players.push(player);
    }
    zone.hub.subscribe(&gateway, players[0].session, &[cell(1)], false);
    zone.watched(cell(1)).await;
    for number in 0..=PARTS {
        let kind = if number == 0 { PublishKind::Keyframe } else { PublishKind::Part };
        let message = ServerMessage::state(0x1081, 1, cell(1).number(), vec![number; 50_000]);
        zone.hub.publish(cell(1), Epoch(1), kind, message);
    }
    // The first subscriber gets them as they come, the second from the gateway.
    zone.hub.subscribe(&gateway, players[1].session, &[cell(1)], false);
    for player in &mut players {
        for number in 0..=PARTS {
            assert_eq!(player.next().await.unwrap().payload[..], [number; 50_000][..]);
        }
    }
    while let Ok(event) = zone.events.try_recv() {
        assert!(!matches!(event, LinkEvent::Watched { .. } | LinkEvent::KeyframeWanted { .. }), "{event:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reply_larger_than_a_record_is_refused_as_too_large() {
    let mut cluster = Cluster::start().await;
    let mut world = cluster.world("world-1", 1).await;
    let _gateway = cluster.gateway("gateway-1").await;
    let mut player = cluster.player("gateway-1", 7).await;
    let gateway = world.session(player.session, SessionChange::Joined).await;
    player.request(LIST, 1, b"everything").await;
    world.delivered(player.session).await;
    world.hub.send(&gateway, &[player.session], vec![ServerMessage::reply(LIST, 1, vec![0; 70_000])]);
    assert_eq!(player.refusal(1).await, ErrorCode::TooLarge);
}
