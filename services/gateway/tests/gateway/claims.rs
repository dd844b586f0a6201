//! Attaches and claims that are abandoned, overtaken or unanswered half way: exactly one gateway holds the session, and
//! every daemon that needs to know of its end is told.

use std::time::Duration;

use shardkeep_client::{Config, raw};
use shardkeep_link::{LinkEvent, SessionChange};
use shardkeep_rpc::gateway::{KickRequest, ListSessionsRequest, kick_request::Selector};
use shardkeep_wire::{Head, Message, opcode, payload::ErrorCode};
use tokio::time::timeout;

use crate::{
    LIST,
    cluster::{Cluster, TEST_TIMEOUT},
    player::{Player, connect, refused},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resume_with_invalid_count_is_refused_and_session_ends() {
    let mut cluster = Cluster::start().await;
    let mut world = cluster.world("world-1", 1).await;
    let link_loss = Duration::from_secs(1);
    let _one = cluster.gateway("gateway-1").await;
    let _two = cluster.gateway_with("gateway-2", |config| config.link_loss = link_loss).await;
    let mut player = cluster.player("gateway-1", 7).await;
    world.session(player.session, SessionChange::Joined).await;
    player.received = 1_000_000_000;
    assert_eq!(refused(player.resume(&cluster.address("gateway-2")).await), ErrorCode::TicketInvalid);
    for kind in [SessionChange::Joined, SessionChange::LinkDead, SessionChange::Left] {
        assert_eq!(&*world.session(player.session, kind).await, "gateway-2");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_log_is_reported_until_the_client_knows() {
    let mut cluster = Cluster::start().await;
    let mut world = cluster.world("world-1", 1).await;
    let mut gateways = Vec::new();
    for name in ["gateway-1", "gateway-2", "gateway-3"] {
        gateways.push(cluster.gateway(name).await);
    }
    let mut player = cluster.player("gateway-1", 7).await;
    let session = player.session;
    world.session(session, SessionChange::Joined).await;
    player.received = 4;
    cluster.world.set_holder(session.as_bytes(), "a gateway that is no more");
    player.resume_and_discard(&cluster.address("gateway-2")).await.unwrap();
    let gateway = world.session(session, SessionChange::Joined).await;
    world.event(&gateway, session, opcode::ANNOUNCEMENT, "said meanwhile");

    // At the gateway that began the log anew, and at another to which that one moves it.
    player.resume_and_discard(&cluster.address("gateway-2")).await.unwrap();
    player.resume(&cluster.address("gateway-3")).await.unwrap();
    assert!(!player.established.ready.continued);
    assert_eq!(player.text(opcode::ANNOUNCEMENT).await, "said meanwhile");

    // It knows now: the log goes on, at the same gateway and at another.
    player.resume(&cluster.address("gateway-3")).await.unwrap();
    assert!(player.established.ready.continued);
    player.resume(&cluster.address("gateway-2")).await.unwrap();
    assert!(player.established.ready.continued);
    player.request(LIST, 1, b"").await;
    assert_eq!(world.delivered(session).await[0].request, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resume_overtaken_by_another_claim_can_be_retried() {
    let mut cluster = Cluster::start().await;
    let mut world = cluster.world("world-1", 1).await;
    let (_one, _two) = (cluster.gateway("gateway-1").await, cluster.gateway("gateway-2").await);
    let mut player = cluster.player("gateway-1", 7).await;
    world.session(player.session, SessionChange::Joined).await;
    cluster.world.fail_next_claim();
    let address = cluster.address("gateway-2");
    assert_eq!(refused(player.resume(&address).await), ErrorCode::Unavailable);
    player.resume(&address).await.unwrap();
    assert!(player.established.ready.continued);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_held_for_a_new_leader_move_with_the_session() {
    let mut cluster = Cluster::start().await;
    let mut first = cluster.world("world-1", 1).await;
    let (_one, _two) = (cluster.gateway("gateway-1").await, cluster.gateway("gateway-2").await);
    let mut player = cluster.player("gateway-1", 7).await;
    let session = player.session;
    first.session(session, SessionChange::Joined).await;

    let paused = cluster.world.pause().await;
    let mut second = cluster.world("world-2", 2).await;
    cluster.world.wait_for_opening("world-2", 7).await;
    player.request(LIST, 1, b"held").await;
    // The gateway has read the request when it answers a ping behind it.
    player.ping().await;
    player.resume(&cluster.address("gateway-2")).await.unwrap();
    assert_eq!(player.established.ready.received, 1);
    drop(paused);
    // Either says that it leads, and the gateway asks both.
    let received = tokio::select! {
        received = first.delivered(session) => received,
        received = second.delivered(session) => received,
    };
    assert_eq!(&received[0].payload[..], b"held");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_ended_while_presented_also_ends_at_new_leader() {
    let mut cluster = Cluster::start().await;
    let mut first = cluster.world("world-1", 1).await;
    let _gateway = cluster.gateway("gateway-1").await;
    let mut player = cluster.player("gateway-1", 7).await;
    let session = player.session;
    first.session(session, SessionChange::Joined).await;

    let paused = cluster.world.pause().await;
    let mut second = cluster.world("world-2", 2).await;
    second.until("link", |event| matches!(event, LinkEvent::Up { .. }).then_some(())).await;
    cluster.world.wait_for_opening("world-2", 7).await;
    let selector = Some(Selector::Session(session.as_bytes().to_vec()));
    let kick = KickRequest { selector, code: ErrorCode::Kicked as u32, detail: String::new() };
    let gm = cluster.operator().await;
    cluster.gateway_client_as(&gm, "gateway-1").kick(kick).await.unwrap();
    assert_eq!(player.end().await, Some(ErrorCode::Kicked));
    // The gateway told the world of the end before the world answered the opening.
    second.session(session, SessionChange::Left).await;
    drop(paused);
    second.session(session, SessionChange::Left).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attach_during_leader_change_joins_the_new_leader() {
    let mut cluster = Cluster::start().await;
    let mut first = cluster.world("world-1", 1).await;
    let _gateway = cluster.gateway("gateway-1").await;
    let early = cluster.player("gateway-1", 7).await;
    first.session(early.session, SessionChange::Joined).await;

    let ticket = cluster.ticket("gateway-1", 8).await;
    let paused = cluster.world.pause().await;
    let address = cluster.address("gateway-1");
    let attaching = tokio::spawn(async move { Player::attach(&address, &ticket).await });
    cluster.world.wait_for_opening("world-1", 8).await;
    let mut second = cluster.world("world-2", 2).await;
    // Presented to the second, so the gateway knows that it leads.
    cluster.world.wait_for_opening("world-2", 7).await;
    drop(paused);
    let player = attaching.await.unwrap().unwrap();
    second.session(player.session, SessionChange::Joined).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attach_abandoned_before_open_ends_after_link_loss() {
    let mut cluster = Cluster::start().await;
    let mut world = cluster.world("world-1", 1).await;
    let change = |config: &mut shardkeep_gateway::Config| {
        config.handshake = Duration::from_secs(1);
        config.link_loss = Duration::from_secs(1);
    };
    let _gateway = cluster.gateway_with("gateway-1", change).await;
    let early = cluster.player("gateway-1", 7).await;
    world.session(early.session, SessionChange::Joined).await;

    let ticket = cluster.ticket("gateway-1", 8).await;
    let paused = cluster.world.pause().await;
    let mut connection = connect(&cluster.address("gateway-1")).await;
    let given_up = timeout(TEST_TIMEOUT, raw::attach(&mut connection, &Config::default(), &ticket)).await;
    assert!(given_up.expect("the handshake has its time").is_err());
    let request = ListSessionsRequest { account: Some(8), ..ListSessionsRequest::default() };
    let listed =
        cluster.gateway_client("gateway-1").list_sessions(request.clone()).await.unwrap().into_inner();
    assert_eq!((listed.sessions.len(), &*listed.tickets), (0, &[1][..]), "it is on its way");
    drop(paused);
    let mut session = None;
    for wanted in [SessionChange::Joined, SessionChange::LinkDead, SessionChange::Left] {
        let found = world
            .until("session", |event| match event {
                LinkEvent::Session { event, .. } if event.account.0 == 8 && event.kind == wanted => {
                    Some(event.session)
                }
                _ => None,
            })
            .await;
        assert_eq!(*session.get_or_insert(found), found);
    }
    let listed = cluster.gateway_client("gateway-1").list_sessions(request).await.unwrap().into_inner();
    assert_eq!((listed.sessions.len(), listed.tickets.len()), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_attaches_keep_the_later_login() {
    let mut cluster = Cluster::start().await;
    let mut world = cluster.world("world-1", 1).await;
    let _gateway = cluster.gateway("gateway-1").await;
    let early = cluster.player("gateway-1", 7).await;
    world.session(early.session, SessionChange::Joined).await;

    let paused = cluster.world.pause().await;
    let mut attaching = Vec::new();
    // The later one is opened first.
    for generation in [2, 1] {
        let ticket = cluster.later_ticket("gateway-1", 8, generation).await;
        let address = cluster.address("gateway-1");
        attaching.push(tokio::spawn(async move { Player::attach(&address, &ticket).await }));
        cluster.world.wait_for_opening("world-1", 8).await;
    }
    drop(paused);
    let mut players = Vec::new();
    for attaching in attaching {
        players.push(attaching.await.unwrap().unwrap());
    }
    assert_eq!(players[1].end().await, Some(ErrorCode::Displaced));
    players[0].request(LIST, 1, b"").await;
    assert_eq!(world.delivered(players[0].session).await[0].request, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logout_with_key_update_in_one_record_logs_out() {
    let mut cluster = Cluster::start().await;
    let mut world = cluster.world("world-1", 1).await;
    let _gateway = cluster.gateway("gateway-1").await;
    let mut player = cluster.player("gateway-1", 7).await;
    world.session(player.session, SessionChange::Joined).await;
    let logout = Message::new(opcode::LOGOUT, Head::Request(1), bytes::Bytes::new());
    player.connection.send(&[logout, raw::key_update()]).await.unwrap();
    assert_eq!(player.end().await, Some(ErrorCode::LoggedOut));
    world.session(player.session, SessionChange::Left).await;
}
