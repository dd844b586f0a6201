//! The world list, and tickets for gateways.

use shardkeep_cluster::Leadership;
use shardkeep_rpc::{
    accounts::{ListClosuresRequest, SetMaintenanceRequest, SetStaffRequest},
    gateway::gateway_server::GatewayServer,
};
use shardkeep_testkit::{FakeGateway, GatewayCall, Postgres};
use shardkeep_types::DaemonKind;
use shardkeep_wire::payload::{ErrorCode, WorldList, WorldStatus};
use tonic::{Code, service::Routes};

use crate::{
    cluster::{Cluster, GATEWAY_ADDRESS},
    player::Player,
};

#[tokio::test]
async fn world_list_follows_the_registry() {
    let mut cluster = Cluster::start().await;
    cluster.account("alice", "right").await;
    let mut player = cluster.connect().await;
    player.log_in("alice", "right").await.unwrap();
    assert_eq!(player.worlds_until(|_| true).await.worlds, []);

    let dawn = cluster.world(1, "Dawn").await;
    let list = player
        .worlds_until(|list| list.worlds.iter().any(|world| world.status() == WorldStatus::WorldUp))
        .await;
    let world = &list.worlds[0];
    assert_eq!((world.id, world.name.as_str(), world.load_permille, world.online), (1, "Dawn", 250, 25));

    dawn.set_attribute("online", "100".into());
    dawn.set_attribute("queue", "7".into());
    player
        .worlds_until(|list| list.worlds[0].load_permille == 1000 && list.worlds[0].queue_length == 7)
        .await;
    dawn.set_leadership(Leadership::Standby);
    player.worlds_until(|list| list.worlds[0].status() == WorldStatus::WorldMaintenance).await;
    let refused = player.select(1).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Unavailable);
    assert!(!refused.retry_after.is_zero());
}

#[tokio::test]
async fn closed_world_admits_only_staff() {
    let mut cluster = Cluster::start().await;
    cluster.world(1, "Dawn").await;
    for name in ["alice", "grace"] {
        cluster.account(name, "right").await;
    }
    let mut accounts = cluster.accounts();
    accounts.set_staff(SetStaffRequest { name: "grace".into(), staff: true }).await.unwrap();
    assert!(cluster.show("grace").await.staff && !cluster.show("alice").await.staff);
    let (mut player, mut staff) = (cluster.connect().await, cluster.connect().await);
    player.log_in("alice", "right").await.unwrap();
    staff.log_in("grace", "right").await.unwrap();
    let open = |list: &WorldList| list.worlds.first().is_some_and(|world| world.may_enter);
    let list = player.worlds_until(open).await;
    assert!(list.worlds[0].recommended && list.worlds[0].note.is_empty());

    let close =
        |grace_ms| SetMaintenanceRequest { world: 1, closed: true, note: "until nine".into(), grace_ms };
    assert_eq!(accounts.set_maintenance(close(u64::MAX)).await.unwrap_err().code(), Code::InvalidArgument);
    let close = close(60_000);
    accounts.set_maintenance(close).await.unwrap();
    let closed = |list: &WorldList| {
        list.worlds.first().is_some_and(|world| world.status() == WorldStatus::WorldMaintenance)
    };
    let list = player.worlds_until(closed).await;
    assert_eq!((list.worlds[0].note.as_str(), list.worlds[0].may_enter), ("until nine", false));
    assert!(!list.worlds[0].recommended);
    let refused = player.select(1).await.unwrap_err();
    assert_eq!((refused.code, refused.detail.as_str()), (ErrorCode::Maintenance, "until nine"));
    let listed = accounts.list_closures(ListClosuresRequest {}).await.unwrap().into_inner();
    let listed: Vec<_> =
        listed.worlds.iter().map(|it| (it.world, it.note.as_str(), it.left_ms > 0)).collect();
    assert_eq!(listed, [(1, "until nine", true)]);
    assert!(staff.worlds_until(closed).await.worlds[0].may_enter);
    staff.select(1).await.unwrap();

    let opened = SetMaintenanceRequest { world: 1, ..SetMaintenanceRequest::default() };
    accounts.set_maintenance(opened).await.unwrap();
    player.worlds_until(open).await;
    player.select(1).await.unwrap();
    assert!(accounts.list_closures(ListClosuresRequest {}).await.unwrap().into_inner().worlds.is_empty());
    let nowhere = SetMaintenanceRequest { closed: true, ..SetMaintenanceRequest::default() };
    assert_eq!(accounts.set_maintenance(nowhere).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn world_selection_revokes_the_previous_ticket() {
    let mut cluster = Cluster::start().await;
    cluster.world(1, "Dawn").await;
    cluster.world(2, "Dusk").await;
    let id = cluster.account("alice", "right").await;
    let mut player = cluster.connect().await;
    player.log_in("alice", "right").await.unwrap();
    player
        .worlds_until(|list| {
            list.worlds.iter().filter(|world| world.status() == WorldStatus::WorldUp).count() == 2
        })
        .await;

    let first = player.select(1).await.unwrap();
    assert_eq!(
        (first.gateway.as_str(), first.ticket_index, first.ticket_lifetime_ms),
        (GATEWAY_ADDRESS, 0, 60_000)
    );
    // Selecting an unknown world uses no ticket.
    assert_eq!(player.select(9).await.unwrap_err().code, ErrorCode::NotFound);
    let second = player.select(2).await.unwrap();
    assert_eq!(second.ticket_index, 1);

    let admitted = cluster.gateway.admitted();
    let chain = player.chain.as_mut().unwrap();
    for (request, world) in admitted.iter().zip([1, 2]) {
        let ticket = chain.take();
        assert_eq!(request.ticket_id, ticket.id.as_bytes());
        assert_eq!(request.ticket_key, ticket.key.expose());
        let rest = (request.account, request.account_name.as_str(), request.generation, request.world);
        assert_eq!(rest, (id, "alice", 2, world));
    }
    assert_eq!(admitted.len(), 2);
    let voided = GatewayCall::RevokeTicket(admitted[0].ticket_id.clone());
    assert!(cluster.gateway.calls().contains(&voided));
}

#[tokio::test]
async fn refused_ticket_is_offered_to_another_gateway() {
    let mut cluster = Cluster::start().await;
    cluster.world(1, "Dawn").await;
    cluster.account("alice", "right").await;
    let mut player = cluster.connect().await;
    player.log_in("alice", "right").await.unwrap();
    player
        .worlds_until(|list| list.worlds.first().is_some_and(|world| world.status() == WorldStatus::WorldUp))
        .await;

    cluster.gateway.refuse(true);
    assert_eq!(player.select(1).await.unwrap_err().code, ErrorCode::Unavailable);
    let other = FakeGateway::default();
    let node = cluster.member(DaemonKind::Gateway, "gateway-2").await;
    node.set_client_address("other.example:7200".into());
    node.serve(Routes::new(GatewayServer::new(other.clone())));
    let offer = loop {
        match player.select(1).await {
            Ok(offer) => break offer,
            Err(refused) => assert!(matches!(refused.code, ErrorCode::Unavailable | ErrorCode::TooFast)),
        }
    };
    // The earlier refusals used no ticket.
    assert_eq!((offer.gateway.as_str(), offer.ticket_index), ("other.example:7200", 0));
    assert_eq!(other.admitted()[0].ticket_id, player.chain.as_mut().unwrap().take().id.as_bytes());
}

#[tokio::test]
async fn tickets_in_one_batch_are_refused_individually() {
    let mut cluster = Cluster::start().await;
    cluster.world(1, "Dawn").await;
    let mut players = Vec::new();
    for name in ["alice", FakeGateway::REFUSED, "bob"] {
        cluster.account(name, "right").await;
        let mut player = cluster.connect().await;
        player.log_in(name, "right").await.unwrap();
        player.worlds_until(|list| list.worlds.first().is_some_and(|world| world.may_enter)).await;
        players.push(player);
    }
    let offers = futures::future::join_all(players.iter_mut().map(|player| player.select(1))).await;
    let outcomes: Vec<_> = offers.into_iter().map(|it| it.map_err(|error| error.code)).collect();
    assert!(outcomes[0].is_ok() && outcomes[2].is_ok(), "{outcomes:?}");
    assert_eq!(outcomes[1].as_ref().unwrap_err(), &ErrorCode::Unavailable);
    let admitted: Vec<_> = cluster.gateway.admitted().into_iter().map(|it| it.account_name).collect();
    assert!(admitted.contains(&"alice".to_owned()) && admitted.contains(&"bob".to_owned()));
}

/// A logged-in player, and one open world.
async fn ready(cluster: &mut Cluster, name: &str) -> Player {
    cluster.world(1, "Dawn").await;
    cluster.account(name, "right").await;
    let mut player = cluster.connect().await;
    player.log_in(name, "right").await.unwrap();
    player.worlds_until(|list| list.worlds.first().is_some_and(|world| world.may_enter)).await;
    player
}

#[tokio::test]
async fn outdated_generation_at_gateway_ends_the_connection() {
    let mut cluster = Cluster::start().await;
    let mut player = ready(&mut cluster, FakeGateway::OUTDATED).await;
    // This is not a lack of gateways, and no second gateway is tried.
    assert_eq!(player.select(1).await.unwrap_err().code, ErrorCode::Displaced);
    assert_eq!(player.last_error().await, None);
    let revokes = cluster.gateway.calls().into_iter().filter(|it| matches!(it, GatewayCall::RevokeTicket(_)));
    assert_eq!(revokes.count(), 0);
}

#[tokio::test]
async fn failed_selection_reuses_its_ticket() {
    let server = Postgres::dedicated().await;
    let store = format!("login.store={}", server.url());
    let mut cluster = Cluster::start_with(&[&store]).await;
    let mut player = ready(&mut cluster, "alice").await;
    // The gateway takes the ticket, and then the store does not answer.
    server.freeze();
    assert_eq!(player.select(1).await.unwrap_err().code, ErrorCode::Unavailable);
    server.thaw();
    let offer = loop {
        match player.select(1).await {
            Ok(offer) => break offer,
            Err(refused) => assert!(matches!(refused.code, ErrorCode::Unavailable | ErrorCode::TooFast)),
        }
    };
    assert_eq!(offer.ticket_index, 0);
    let first = player.chain.as_mut().unwrap().take();
    let asked = cluster.gateway.calls();
    assert!(asked.contains(&GatewayCall::RevokeTicket(first.id.as_bytes().to_vec())), "void in between");
    assert_eq!(cluster.gateway.admitted().last().unwrap().ticket_id, first.id.as_bytes());
}

#[tokio::test]
async fn drain_lets_logins_in_progress_finish() {
    let mut cluster = Cluster::start_with(&["daemon.grace=2s"]).await;
    cluster.world(1, "Dawn").await;
    cluster.account("alice", "right").await;
    let mut early = cluster.connect().await;
    let challenge = early.hello("alice").await.unwrap();
    let answer = early.answer("alice", "right", &challenge);
    let mut welcomed = cluster.connect().await;
    welcomed.log_in("alice", "right").await.unwrap();

    cluster.signal("TERM").await;
    early.prove(&challenge, answer).await.unwrap();
    assert_eq!(welcomed.last_error().await, Some(ErrorCode::Draining));
    drop(early);
    assert!(cluster.wait_for_exit().await);
}
