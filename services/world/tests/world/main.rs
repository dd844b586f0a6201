//! Tests of real worlds over mutual TLS, with stand-ins for the other daemons.

mod cluster;
mod database;
mod gateway;
mod zone;

use prost::Message;
use shardkeep_link::{BackendItem, SessionChange};
use shardkeep_rpc::world::{
    ChangeLayoutRequest, ClaimSessionRequest, CloseSpace, CreateSpace, KickRequest, MoveSector, Opening,
    Partition, Presence, PresenceReport, SplitSector, StatusRequest, WatchPartitionRequest,
    WatchPresenceRequest, change_layout_request::Change, kick_request::Selector,
};
use shardkeep_types::DaemonKind;
use shardkeep_wire::{
    opcode,
    payload::{Entered, ErrorCode, Leave},
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use crate::cluster::{Cluster, TIMEOUT, client_of, wait_until_leading};

fn owners(table: &Partition) -> Vec<&str> {
    table.sectors.iter().map(|sector| sector.zone.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn player_enters_and_leaves() {
    let mut cluster = Cluster::start().await;
    let (west, _) = cluster.zone("zone-1").await;
    let _east = cluster.zone("zone-2").await;
    let _world = cluster.world("world-1").await;
    let mut gateway = cluster.gateway("gateway-1", "world-1").await;
    let character = gateway.enter_new_character("world-1", 1, "Ann").await;
    assert_eq!(gateway.bound().await, ("zone-1".to_owned(), 1));
    let reply = gateway.reply(11).await;
    let entered = Entered::decode(&*reply.payload).unwrap();
    assert_eq!((reply.opcode, entered.character_id), (opcode::ENTER, character));
    let admitted = west.admitted.borrow().clone();
    assert_eq!((admitted.len(), admitted[0].term, admitted[0].account), (1, 1, 1));
    assert_eq!(cluster.database.character(character).coins, 100);

    gateway.request(1, opcode::LEAVE, 3, &Leave {}).await;
    assert_eq!(gateway.reply(3).await.opcode, opcode::LEAVE);
    assert_eq!(west.evicted.borrow().len(), 1);
    assert_eq!(cluster.database.character(character).owner, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn avatar_of_closed_space_enters_at_start_of_space_1() {
    let mut cluster = Cluster::start().await;
    let (west, _) = cluster.zone("zone-1").await;
    let _east = cluster.zone("zone-2").await;
    let _world = cluster.world("world-1").await;
    let mut gateway = cluster.gateway("gateway-1", "world-1").await;
    let character = gateway.enter_new_character("world-1", 1, "Ann").await;
    gateway.reply(11).await;
    gateway.request(1, opcode::LEAVE, 12, &Leave {}).await;
    gateway.reply(12).await;
    cluster.database.set_space(character, 9);
    gateway.enter(1, 13, character).await;
    let entered = Entered::decode(&*gateway.reply(13).await.payload).unwrap();
    let admitted = west.admitted.borrow().last().unwrap().character.clone().unwrap();
    assert_eq!((entered.space, admitted.position.unwrap().space), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_zone_loses_avatars_and_sectors_to_other_zone() {
    let mut cluster = Cluster::start().await;
    let _west = cluster.zone("zone-1").await;
    let (east, node) = cluster.zone("zone-2").await;
    let _world = cluster.world("world-1").await;
    let mut gateway = cluster.gateway("gateway-1", "world-1").await;
    let mut client = client_of(&node, "world-1").await;
    let watch = WatchPartitionRequest { zone: Some(node.id().into()) };
    let mut tables = client.watch_partition(watch).await.unwrap().into_inner();
    let character = gateway.enter_new_character("world-1", 1, "Ann").await;
    assert_eq!(gateway.bound().await, ("zone-1".to_owned(), 1));

    cluster.registry.mark_offline("zone-1");
    assert_eq!(gateway.bound().await, ("zone-2".to_owned(), 2));
    assert_eq!(east.admitted.borrow()[0].character.as_ref().unwrap().id, character);
    let mut epoch = 0;
    loop {
        let table = timeout(TIMEOUT, tables.message()).await.expect("a table").unwrap().unwrap();
        assert!(table.epoch > epoch);
        epoch = table.epoch;
        if owners(&table) == ["zone-2", "zone-2"] {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn standby_refuses_until_leading_then_restores_presence() {
    let mut cluster = Cluster::start().await;
    let _west = cluster.zone("zone-1").await;
    let (_, node) = cluster.zone("zone-2").await;
    let first = cluster.world("world-1").await;
    let mut gateway = cluster.gateway("gateway-1", "world-1").await;
    let character = gateway.enter_new_character("world-1", 1, "Ann").await;
    gateway.bound().await;
    let _second = cluster.world("world-2").await;
    let mut standby = client_of(&gateway.node, "world-2").await;
    let refused = gateway.open_session("world-2", gateway.opening(1, 1, 0)).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);

    first.stop().await.unwrap();
    wait_until_leading(&gateway.node, "world-2").await;
    assert_eq!(gateway.open_session("world-2", gateway.opening(1, 1, 0)).await.unwrap(), (1, 2));
    // The zone reports its avatars; the gateway did not know.
    let mut zone = client_of(&node, "world-2").await;
    let (reports, stream) = mpsc::channel(1);
    let reporting = tokio::spawn(async move { zone.report_presence(ReceiverStream::new(stream)).await });
    let ann = Presence {
        character,
        name: "Ann".into(),
        session: vec![1; 16],
        account: 1,
        space: 1,
        cell_x: 15,
        cell_y: 16,
        zone: "zone-2".into(),
        epoch: 1,
    };
    let report = PresenceReport {
        zone: Some(node.id().into()),
        complete: true,
        present: vec![ann],
        gone: vec![],
        space: 1,
    };
    reports.send(report).await.unwrap();
    let chat = cluster.member(DaemonKind::Chat, "chat-1").await;
    let mut chat = client_of(&chat, "world-2").await;
    let mut presence = chat.watch_presence(WatchPresenceRequest {}).await.unwrap().into_inner();
    let is_ann = |report: PresenceReport| report.present.iter().any(|avatar| avatar.name == "Ann");
    let seen = async { while !is_ann(presence.message().await.unwrap().unwrap()) {} };
    timeout(TIMEOUT, seen).await.expect("Ann is seen");
    let found = standby
        .find_session(shardkeep_rpc::world::FindSessionRequest { session: vec![1; 16] })
        .await
        .unwrap()
        .into_inner();
    let zone = found.bindings.iter().find(|binding| binding.kind == 2).expect("bound to a zone");
    assert_eq!((zone.instance.as_str(), zone.bind_epoch), ("zone-2", 1));
    drop(reports);
    reporting.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kick_ends_session_and_releases_character() {
    let mut cluster = Cluster::start().await;
    let (west, _) = cluster.zone("zone-1").await;
    let _east = cluster.zone("zone-2").await;
    let _world = cluster.world("world-1").await;
    let mut gateway = cluster.gateway("gateway-1", "world-1").await;
    gateway.enter_new_character("world-1", 1, "Ann").await;
    gateway.reply(11).await;
    let operator = cluster.member(DaemonKind::Gm, "gm-1").await;
    let mut gm = client_of(&operator, "world-1").await;
    let selector = Some(Selector::Character("ANN".into()));
    let reply = gm.kick(KickRequest { selector, reason: "rude".into() }).await.unwrap().into_inner();
    assert_eq!(reply.ended, 1);
    let closed = gateway.next_item(|item| match item {
        BackendItem::Close { code, detail, .. } => Some((*code, detail.clone())),
        _ => None,
    });
    assert_eq!(closed.await, (ErrorCode::Kicked as u32, "rude".to_owned()));
    let mut evicted = west.evicted.subscribe();
    timeout(TIMEOUT, evicted.wait_for(|evicted| evicted.len() == 1)).await.expect("evicted").unwrap();
    let again = gateway.open_session("world-1", gateway.opening(1, 1, 0)).await.unwrap_err();
    assert_eq!(again.code(), Code::Aborted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateway_cannot_open_sessions_for_another_gateway() {
    let mut cluster = Cluster::start().await;
    let _world = cluster.world("world-1").await;
    let gateway = cluster.gateway("gateway-1", "world-1").await;
    let refused = gateway.open_as("gateway-2", "world-1", gateway.opening(1, 0, 0)).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    gateway.session_event(1, SessionChange::Left);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claim_returns_possible_holders() {
    let mut cluster = Cluster::start().await;
    let _world = cluster.world("world-1").await;
    let mut gateways = Vec::new();
    for name in ["gateway-1", "gateway-2", "gateway-3"] {
        gateways.push(cluster.gateway(name, "world-1").await);
    }
    gateways[0].open_session("world-1", gateways[0].opening(1, 0, 0)).await.unwrap();
    let claims = [(1, 1, vec![("gateway-1", 1)]), (2, 2, vec![("gateway-1", 1), ("gateway-2", 2)])];
    for (at, from_epoch, expected) in claims {
        let node = &gateways[at].node;
        let claim = ClaimSessionRequest {
            session: vec![1; 16],
            from_epoch,
            gateway: node.id().name.clone(),
            used_key: vec![1; 32],
            next_key: vec![10 + u8::try_from(at).unwrap(); 32],
        };
        let claimed = client_of(node, "world-1").await.claim_session(claim).await.unwrap().into_inner();
        let holders = claimed.holders.iter().map(|it| (it.gateway.as_str(), it.session_epoch));
        assert_eq!((claimed.session_epoch, holders.collect::<Vec<_>>()), (from_epoch + 1, expected));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queue_place_survives_change_of_world_leader() {
    let mut cluster = Cluster::start().await;
    let _west = cluster.zone("zone-1").await;
    let _east = cluster.zone("zone-2").await;
    let first = cluster.world_with_capacity("world-1", 1).await;
    let mut gateway = cluster.gateway("gateway-1", "world-1").await;
    let ann = gateway.enter_new_character("world-1", 1, "Ann").await;
    gateway.reply(11).await;
    gateway.enter_new_character("world-1", 2, "Ben").await;
    assert_eq!(gateway.place(2).await, 1);
    let cid = gateway.enter_new_character("world-1", 3, "Cid").await;
    assert_eq!(gateway.place(3).await, 2);
    first.stop().await.unwrap();
    drop(gateway);

    let _second = cluster.world_with_capacity("world-2", 1).await;
    let mut gateway = cluster.gateway("gateway-1b", "world-2").await;
    // Ann is inside, Ben has left meanwhile, Cid waits in the second place, and Dan is new.
    gateway.open_session("world-2", gateway.opening(1, 1, ann)).await.unwrap();
    let waiting = Opening { queue_place: 2, ..gateway.opening(3, 1, 0) };
    gateway.open_session("world-2", waiting).await.unwrap();
    gateway.enter_new_character("world-2", 4, "Dan").await;
    assert_eq!(gateway.place(4).await, 2);
    gateway.enter(3, 33, cid).await;
    assert_eq!(gateway.place(3).await, 1);
    gateway.request(1, opcode::LEAVE, 12, &Leave {}).await;
    assert_eq!(gateway.reply(33).await.opcode, opcode::ENTER);
    assert_eq!(gateway.place(4).await, 1);
}

fn change(change: Change) -> ChangeLayoutRequest {
    ChangeLayoutRequest { change: Some(change) }
}

fn split(sector: u32) -> ChangeLayoutRequest {
    change(Change::Split(SplitSector { sector, line: None }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn layout_survives_change_of_leader() {
    let mut cluster = Cluster::start().await;
    let _west = cluster.zone("zone-1").await;
    let (_, node) = cluster.zone("zone-2").await;
    let first = cluster.world("world-1").await;
    let operator = cluster.member(DaemonKind::Gm, "gm-1").await;
    wait_until_leading(&operator, "world-1").await;
    let mut gm = client_of(&operator, "world-1").await;
    // A change is not idempotent, so the first one waits until the layout is loaded.
    loop {
        let status = gm.status(StatusRequest {}).await.unwrap().into_inner();
        if status.partition.is_some_and(|partition| !partition.sectors.is_empty()) {
            break;
        }
        tokio::task::yield_now().await;
    }
    let done = gm.change_layout(split(1)).await.unwrap().into_inner();
    let create = change(Change::Create(CreateSpace { map: "meadow".into(), tick_hz: 30 }));
    assert_eq!((done.made, gm.change_layout(create).await.unwrap().into_inner().made), (3, 2));
    let watch = || WatchPartitionRequest { zone: Some(node.id().into()) };
    let settled = async |world: &str| {
        let mut tables = client_of(&node, world).await.watch_partition(watch()).await.unwrap().into_inner();
        loop {
            let table = timeout(TIMEOUT, tables.message()).await.expect("a table").unwrap().unwrap();
            if table.sectors.len() == 4 && !owners(&table).contains(&"") {
                return table;
            }
        }
    };
    let before = settled("world-1").await;
    let spaces: Vec<_> = before.spaces.iter().map(|space| (space.space, space.tick_hz)).collect();
    assert_eq!(spaces, [(1, 20), (2, 30)]);
    assert_eq!(cluster.database.layout().revision, before.epoch);
    first.stop().await.unwrap();

    let _second = cluster.world("world-2").await;
    wait_until_leading(&node, "world-2").await;
    let after = settled("world-2").await;
    assert_eq!((after.term, after.epoch), (before.term + 1, before.epoch));
    assert_eq!((after.sectors, after.spaces), (before.sectors, before.spaces));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn layout_change_is_announced_only_after_it_is_stored() {
    let mut cluster = Cluster::start().await;
    let (_, node) = cluster.zone("zone-1").await;
    let _east = cluster.zone("zone-2").await;
    let _world = cluster.world("world-1").await;
    let operator = cluster.member(DaemonKind::Gm, "gm-1").await;
    wait_until_leading(&operator, "world-1").await;
    let mut zone = client_of(&node, "world-1").await;
    let watch = WatchPartitionRequest { zone: Some(node.id().into()) };
    let mut tables = zone.watch_partition(watch).await.unwrap().into_inner();
    let mut next = async || timeout(TIMEOUT, tables.message()).await.expect("a table").unwrap().unwrap();
    while owners(&next().await) != ["zone-1", "zone-2"] {}

    cluster.database.set_layout_fails(true);
    let mut gm = client_of(&operator, "world-1").await;
    let splitting = tokio::spawn({
        let mut gm = gm.clone();
        async move { gm.change_layout(split(1)).await }
    });
    let status = async |gm: &mut shardkeep_rpc::world::world_client::WorldClient<_>| {
        gm.status(StatusRequest {}).await.unwrap().into_inner().partition.unwrap()
    };
    while cluster.database.refused_layouts() == 0 {
        assert_eq!(status(&mut gm).await.sectors.len(), 2);
    }
    assert!(!splitting.is_finished());
    cluster.database.set_layout_fails(false);
    let done = splitting.await.unwrap().unwrap().into_inner();
    assert_eq!(cluster.database.layout().revision, done.revision);
    let table = next().await;
    assert_eq!((table.epoch, table.sectors.len()), (done.revision, 3), "one announcement");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn impossible_layout_changes_are_refused_with_reasons() {
    let mut cluster = Cluster::start().await;
    let _west = cluster.zone("zone-1").await;
    let _east = cluster.zone("zone-2").await;
    let _world = cluster.world("world-1").await;
    let operator = cluster.member(DaemonKind::Gm, "gm-1").await;
    wait_until_leading(&operator, "world-1").await;
    let mut gm = client_of(&operator, "world-1").await;
    while gm.change_layout(change(Change::Close(CloseSpace { space: 9 }))).await.unwrap_err().code()
        == Code::Unavailable
    {}
    let create = |map: &str, tick_hz| Change::Create(CreateSpace { map: map.into(), tick_hz });
    let moved = |zone: &str| Change::Move(MoveSector { sector: 1, zone: zone.into() });
    let refused = [
        (Change::Close(CloseSpace { space: 9 }), Code::NotFound, "the nearest number is 1"),
        (Change::Close(CloseSpace { space: 1 }), Code::FailedPrecondition, "space 1 cannot be closed"),
        (create("moon", 20), Code::NotFound, "the maps are meadow"),
        (create("meadow", 61), Code::InvalidArgument, "10 to 60"),
        (moved("zone-7"), Code::NotFound, "the zones are zone-1, zone-2"),
        (Change::Split(SplitSector { sector: 8, line: None }), Code::NotFound, "nearest number is 2"),
    ];
    for (wrong, code, text) in refused {
        let status = gm.change_layout(change(wrong)).await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(text), "{status}");
    }
    let empty = gm.change_layout(ChangeLayoutRequest { change: None }).await.unwrap_err();
    assert_eq!(empty.code(), Code::InvalidArgument);
}
