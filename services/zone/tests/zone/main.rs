//! Black-box tests of real zones over mutual TLS, with doubles of the daemons that they call.

mod cluster;

use shardkeep_link::{BackendItem, PublishKind, SessionChange};
use shardkeep_rpc::{
    common::Position,
    zone::{EvictRequest, ObserveRequest},
};
use shardkeep_testkit::{ReplyMode, TIMEOUT};
use shardkeep_types::EntityId;
use shardkeep_wire::{
    movement::Cell,
    opcode,
    payload::{self, Committed, Inventory, Placed},
};
use tokio::time::timeout;
use tonic::Code;

use crate::cluster::{BORDER, Cluster, ROAD};

const EAST: [i16; 2] = [6_000, 0];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bound_player_gets_state_moves_and_is_published() {
    let mut cluster = Cluster::start().await;
    let _zone = cluster.zone("zone-1").await;
    cluster.publish_sectors(1, 1, &["zone-1"]).await;
    let mut gateway = cluster.gateway("gateway-1", "zone-1").await;
    let ann = cluster.admit(1, "zone-1", 100_000).await;

    gateway.bound(1, ann.epoch);
    let groups = gateway
        .next_item(|item| match item {
            BackendItem::Subscribe { groups, replace: true, .. } => Some(groups.len()),
            _ => None,
        })
        .await;
    assert_eq!(groups, 25);
    assert_eq!(gateway.ready(1).await, ann.epoch);
    let placed: Placed = gateway.event(1, opcode::PLACED).await;
    assert_eq!((placed.zone.as_str(), placed.x_mm, placed.y_mm), ("zone-1", 100_000, ROAD));
    let inventory: Inventory = gateway.event(1, opcode::INVENTORY_CHANGED).await;
    assert_eq!((inventory.items.len(), inventory.coins), (1, 10));

    gateway.watch_cell(3, 16);
    let shown = gateway.next_item(|item| published(item, ann.id, true)).await;
    assert_eq!(shown, None, "it stands still");
    gateway.walk(1, 7, [-1_000, 0]).await;
    // The change arrives as a delta, or in a keyframe that is due in the same tick.
    let walking = |item: &BackendItem| {
        let velocity = published(item, ann.id, false).or_else(|| published(item, ann.id, true)).flatten();
        velocity.filter(|velocity| *velocity == [-1_000, 0])
    };
    gateway.next_item(walking).await;
    let avatar = gateway.avatar(1, |avatar| avatar.sequence == 7 && avatar.position[0] < 100_000).await;
    assert_eq!(avatar.velocity, [-1_000, 0]);

    gateway.session_event(1, SessionChange::LinkDead);
    gateway.session_event(1, SessionChange::Resumed);
    gateway.avatar(1, |avatar| avatar.velocity == [0, 0]).await;
    cluster.world.wait_for_presence(|present| present.get(&ann.id).is_some_and(|it| it.cell_x == 3)).await;
}

/// The velocity of an avatar in a published cell of that form.
fn published(item: &BackendItem, character: u64, keyframe: bool) -> Option<Option<[i16; 2]>> {
    let BackendItem::Publish { kind, message, .. } = item else { return None };
    if keyframe != (*kind == PublishKind::Keyframe) {
        return None;
    }
    let cell = Cell::decode(&message.payload).unwrap();
    let entry = cell.entries().find(|entry| entry.id == EntityId::avatar(character.into()));
    entry.map(|entry| entry.velocity)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handover_completes_when_transfer_reply_is_lost() {
    let mut cluster = Cluster::start().await;
    let (_west, _east) = (cluster.zone("zone-1").await, cluster.zone("zone-2").await);
    cluster.publish_sectors(1, 1, &["zone-1", "zone-2"]).await;
    let mut west = cluster.gateway("gateway-1", "zone-1").await;
    let ann = cluster.admit(1, "zone-1", BORDER - 3_000).await;
    west.bound(1, ann.epoch);
    west.ready(1).await;

    cluster.database.set_reply_mode(ReplyMode::LostOnce);
    west.walk(1, 1, EAST).await;
    assert_eq!(west.bind(1).await, ("zone-2".to_owned(), ann.epoch + 1));
    let now = cluster.database.character(1);
    assert_eq!((now.owner.as_str(), now.epoch, now.items.len()), ("zone-2", ann.epoch + 1, 1));

    let mut east = cluster.gateway("gateway-1", "zone-2").await;
    east.bound(1, now.epoch);
    assert_eq!(east.ready(1).await, now.epoch);
    let placed: Placed = east.event(1, opcode::PLACED).await;
    assert_eq!((placed.zone.as_str(), placed.epoch), ("zone-2", now.epoch));
    let avatar = east.avatar(1, |avatar| avatar.position[0] > BORDER + 3_000).await;
    assert_eq!((avatar.velocity, avatar.sequence), (EAST, 1), "it goes on walking");
    cluster
        .world
        .wait_for_presence(|present| present.get(&ann.id).is_some_and(|it| it.zone == "zone-2"))
        .await;

    // The old zone forwards requests that still reach it.
    west.request(1, opcode::TRADE_INVITE, 9, &payload::TradeInvite { entity_id: 1 }).await;
    assert_eq!(east.reply(1, 9).await.opcode, opcode::ERROR);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn target_takes_over_when_source_stalls_after_commit() {
    let mut cluster = Cluster::start().await;
    let (_west, _east) = (cluster.zone("zone-1").await, cluster.zone("zone-2").await);
    cluster.publish_sectors(1, 1, &["zone-1", "zone-2"]).await;
    let mut west = cluster.gateway("gateway-1", "zone-1").await;
    let mut east = cluster.gateway("gateway-1", "zone-2").await;
    let ann = cluster.admit(1, "zone-1", BORDER - 3_000).await;
    west.bound(1, ann.epoch);
    west.ready(1).await;

    cluster.database.set_reply_mode(ReplyMode::Hang);
    west.walk(1, 1, EAST).await;
    assert_eq!(east.bind(1).await, ("zone-2".to_owned(), ann.epoch + 1));
    east.bound(1, ann.epoch + 1);
    assert_eq!(east.ready(1).await, ann.epoch + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn action_with_lost_reply_is_applied_once() {
    let mut cluster = Cluster::start().await;
    let _zone = cluster.zone("zone-1").await;
    cluster.publish_sectors(1, 1, &["zone-1"]).await;
    let mut gateway = cluster.gateway("gateway-1", "zone-1").await;
    let ann = cluster.admit(1, "zone-1", 100_000).await;
    gateway.bound(1, ann.epoch);
    gateway.ready(1).await;
    // Items can be dropped only where the ground is known.
    let drop = payload::Drop { action_id: 1, item_id: 1_001 };
    cluster.database.set_reply_mode(ReplyMode::LostOnce);
    let mut request = 0;
    let committed: Committed = loop {
        request += 1;
        gateway.request(1, opcode::DROP, request, &drop).await;
        let reply = gateway.reply(1, request).await;
        if reply.opcode == opcode::DROP {
            break prost::Message::decode(&*reply.payload).unwrap();
        }
    };
    assert_eq!(committed.inventory.unwrap().items, []);
    gateway.request(1, opcode::DROP, 1_000, &drop).await;
    assert_eq!(gateway.reply(1, 1_000).await.opcode, opcode::DROP, "a repeat is answered");
    assert_eq!(cluster.database.applied(), 1);

    let entity_id = EntityId::ground_item(1_001.into()).0;
    let pick_up = payload::PickUp { action_id: 2, entity_id };
    gateway.request(1, opcode::PICK_UP, 1_001, &pick_up).await;
    let committed: Committed = prost::Message::decode(&*gateway.reply(1, 1_001).await.payload).unwrap();
    assert_eq!(committed.inventory.unwrap().items.len(), 1);
    // The same id for another request.
    let other = payload::Drop { action_id: 2, item_id: 1_001 };
    gateway.request(1, opcode::DROP, 1_002, &other).await;
    let error: payload::Error = prost::Message::decode(&*gateway.reply(1, 1_002).await.payload).unwrap();
    assert_eq!(error.code(), payload::ErrorCode::ActionConflict);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inventory_of_6000_stacks_is_delivered_in_pages() {
    let mut cluster = Cluster::start().await;
    let _zone = cluster.zone("zone-1").await;
    cluster.publish_sectors(1, 1, &["zone-1"]).await;
    let mut gateway = cluster.gateway("gateway-1", "zone-1").await;
    let position = Position { space: 1, x_mm: 100_000, y_mm: ROAD, ..Default::default() };
    cluster.database.claim(1, position, "zone-9", 1);
    cluster.database.add_stacks(1, 5_999);
    let ann = cluster.admit(1, "zone-1", 100_000).await;
    gateway.bound(1, ann.epoch);
    gateway.ready(1).await;

    let expected: Vec<u64> = ann.items.iter().map(|item| item.id).collect();
    assert_eq!(expected.len(), 6_000);
    let mut told = Vec::new();
    while told.len() < expected.len() {
        for page in gateway.next_item(inventory_pages).await {
            assert_eq!((page.first as usize, page.total as usize, page.coins), (told.len(), 6_000, 10));
            told.extend(page.items.iter().map(|item| item.id));
        }
    }
    assert_eq!(told, expected);

    let mut asked: Vec<u64> = Vec::new();
    for request in 1.. {
        let get = payload::GetInventory { first: asked.len() as u32 };
        gateway.request(1, opcode::GET_INVENTORY, request, &get).await;
        let page: Inventory = prost::Message::decode(&*gateway.reply(1, request).await.payload).unwrap();
        asked.extend(page.items.iter().map(|item| item.id));
        if asked.len() >= page.total as usize {
            break;
        }
    }
    assert_eq!(asked, expected);
}

/// The pages of an inventory in one batch of messages.
fn inventory_pages(item: &BackendItem) -> Option<Vec<Inventory>> {
    let BackendItem::Send { messages, .. } = item else { return None };
    let pages = messages.iter().filter(|message| message.opcode == opcode::INVENTORY_CHANGED);
    let pages: Vec<Inventory> =
        pages.map(|message| prost::Message::decode(&*message.payload).unwrap()).collect();
    (!pages.is_empty()).then_some(pages)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ground_of_several_pages_is_loaded() {
    let mut cluster = Cluster::start().await;
    let ids: Vec<u64> = (2_001..=2_005).collect();
    for &id in &ids {
        cluster
            .database
            .add_ground_item(id, Position { space: 1, x_mm: 100_000, y_mm: ROAD, ..Default::default() });
    }
    let _zone = cluster.zone("zone-1").await;
    cluster.publish_sectors(1, 1, &["zone-1"]).await;
    let mut gateway = cluster.gateway("gateway-1", "zone-1").await;
    gateway.watch_cell(3, 16);
    let items = gateway
        .next_item(|item| {
            let BackendItem::Publish { kind: PublishKind::Keyframe, message, .. } = item else { return None };
            let cell = Cell::decode(&message.payload).unwrap();
            let items: Vec<u64> = cell.entries().filter_map(|entry| Some(entry.id.as_item()?.0)).collect();
            (items.len() >= ids.len()).then_some(items)
        })
        .await;
    assert_eq!(items, ids);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn zone_without_ground_is_not_ready_until_retry_succeeds() {
    let cluster = Cluster::start().await;
    cluster.database.set_ground_fails(true);
    let zone = cluster.zone("zone-1").await;
    cluster.publish_sectors(1, 1, &["zone-1"]).await;
    let mut console = cluster.observer("zone-1").await;
    let mut map = console.observe(ObserveRequest { interval_ms: 100 }).await.unwrap().into_inner();
    // Each snapshot of the stream paces one look at the readiness.
    let failing = async {
        loop {
            let snapshot = map.message().await.unwrap().unwrap();
            assert!(snapshot.entities.is_empty(), "no creature lives on unknown ground");
            if !zone.daemon().is_ready() {
                break;
            }
        }
    };
    timeout(TIMEOUT, failing).await.expect("the zone is not ready");
    let reason = zone.daemon().not_ready_reason();
    assert!(reason.contains("ground"), "{reason}");
    cluster.database.set_ground_fails(false);
    let loaded = async {
        while map.message().await.unwrap().unwrap().entities.is_empty() || !zone.daemon().is_ready() {}
    };
    timeout(TIMEOUT, loaded).await.expect("the zone is ready, and creatures live");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn avatar_owned_by_another_zone_is_dropped() {
    let cluster = Cluster::start().await;
    let _zone = cluster.zone("zone-1").await;
    cluster.publish_sectors(1, 1, &["zone-1"]).await;
    let ann = cluster.admit(1, "zone-1", 100_000).await;
    cluster.world.wait_for_presence(|present| present.contains_key(&ann.id)).await;
    let position = ann.position.unwrap();
    cluster.database.claim(1, position, "zone-9", 1);
    cluster.world.wait_for_presence(|present| !present.contains_key(&ann.id)).await;
    assert_eq!(cluster.database.character(1).owner, "zone-9");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partition_of_earlier_term_is_refused() {
    let cluster = Cluster::start().await;
    let _zone = cluster.zone("zone-1").await;
    cluster.publish_sectors(2, 1, &["zone-1"]).await;
    let mut console = cluster.observer("zone-1").await;
    let mut map = console.observe(ObserveRequest { interval_ms: 100 }).await.unwrap().into_inner();
    while map.message().await.unwrap().unwrap().sectors.is_empty() {}
    cluster.world.publish(shardkeep_rpc::world::Partition { term: 1, epoch: 99, ..Default::default() });
    cluster.publish_sectors(2, 2, &["zone-1"]).await;
    for _ in 0..5 {
        assert_eq!(map.message().await.unwrap().unwrap().sectors.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn evict_saves_and_is_idempotent() {
    let mut cluster = Cluster::start().await;
    let _zone = cluster.zone("zone-1").await;
    cluster.publish_sectors(1, 1, &["zone-1"]).await;
    let mut gateway = cluster.gateway("gateway-1", "zone-1").await;
    cluster.admit(1, "zone-1", 100_000).await;
    let ann = cluster.admit(1, "zone-1", 100_000).await;
    gateway.bound(1, ann.epoch);
    gateway.walk(1, 1, EAST).await;
    gateway.avatar(1, |avatar| avatar.position[0] > 101_000).await;
    let mut client = cluster.client("zone-1").await;
    let evict = |epoch| EvictRequest { character: ann.id, epoch, reason: "test".into() };
    let stale = client.evict(evict(ann.epoch - 1)).await.unwrap_err();
    assert_eq!(stale.code(), Code::FailedPrecondition);
    client.evict(evict(ann.epoch)).await.unwrap();
    client.evict(evict(ann.epoch)).await.unwrap();
    let saved = cluster.database.character(1);
    assert_eq!(saved.owner, "");
    assert!(saved.position.unwrap().x_mm > 101_000);
    cluster.world.wait_for_presence(|present| !present.contains_key(&ann.id)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drained_zone_saves_remaining_avatars_and_stops() {
    let cluster = Cluster::start().await;
    let zone = cluster.zone("zone-1").await;
    cluster.publish_sectors(1, 1, &["zone-1"]).await;
    cluster.admit(1, "zone-1", 100_000).await;
    zone.stop().await.unwrap();
    assert_eq!(cluster.database.character(1).owner, "");
}
