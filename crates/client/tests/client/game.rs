//! A player's picture of the world, and actions that happen once.

use bytes::BytesMut;
use shardkeep_client::{
    Config,
    game::{Happening, Happenings, Player, View},
};
use shardkeep_types::{CellId, CharacterId, EntityId, ItemId, MapId};
use shardkeep_wire::{
    Message,
    movement::{self, Appears, Avatar, EntityKind, Entry, Form, Move, cell_head, encode_cell},
    opcode,
    payload::{Committed, Entered, Error, ErrorCode, Heard, Inventory, PickUp},
};

use super::{
    PATIENCE,
    server::{Do, Gateway},
    soon,
};

const CELL: CellId = CellId { map: MapId(1), x: 15, y: 16 };
const ITEM: ItemId = ItemId(9);

fn keyframe() -> Message {
    let mut payload = BytesMut::new();
    let bob = Appears { kind: EntityKind::Avatar, template: 0, name: "Bob" };
    let bob = Entry {
        appears: Some(bob),
        offset: Some([500, 500]),
        ..Entry::new(EntityId::avatar(CharacterId(2)))
    };
    encode_cell(&mut payload, Form::Keyframe, 1, CELL, [bob].into_iter());
    Message::new(opcode::CELL, cell_head(CELL.number(), false), payload.freeze())
}

fn avatar(x: i32, y: i32) -> Message {
    let mut payload = BytesMut::new();
    Avatar { position: [x, y], health: 90, max_health: 100, ..Avatar::default() }.encode(&mut payload);
    Message::new(opcode::AVATAR, movement::OWN, payload.freeze())
}

fn reply(to: &Message, payload: &impl prost::Message) -> Message {
    Message::reply(to.opcode, to.head.request().unwrap(), payload)
}

/// A player in the world, its last action being 41.
async fn entered() -> (Gateway, Player, Happenings) {
    let mut gateway = Gateway::start(1).await;
    let (player, happenings) = soon(Player::attach(&Config::default(), gateway.admit())).await.unwrap();
    let serving = async {
        let enter = gateway.expect(opcode::ENTER).await;
        let entity_id = EntityId::avatar(CharacterId(1)).0;
        gateway.send(reply(&enter, &Entered { character_id: 1, entity_id, ..Entered::default() }));
        let ask = gateway.expect(opcode::GET_INVENTORY).await;
        gateway.send(reply(&ask, &Inventory { last_action: 41, ..Inventory::default() }));
    };
    let (entered, ()) = soon(async { tokio::join!(player.enter(1), serving) }).await;
    entered.unwrap();
    (gateway, player, happenings)
}

#[tokio::test]
async fn the_picture_follows_what_the_server_says() {
    let (gateway, player, mut happenings) = entered().await;
    let heard = Heard { text: "hi".into(), from: "Bob".into(), ..Heard::default() };
    gateway.order(Do::Send(vec![
        keyframe(),
        avatar(480_000, 512_000),
        Message::event(opcode::HEARD, &heard),
    ]));
    let bob = soon(player.until(PATIENCE, |view| view.named("Bob").cloned())).await.unwrap();
    assert_eq!((bob.position.x_mm, bob.position.y_mm), (480_500, 512_500));
    let here = soon(player.until(PATIENCE, View::position)).await.unwrap();
    assert_eq!(here.cell(), CELL);
    assert_eq!(soon(happenings.next()).await, Some(Happening::Heard(heard)));
}

#[tokio::test]
async fn an_action_is_repeated_with_its_own_id() {
    let (mut gateway, player, _happenings) = entered().await;
    let serving = async {
        let first = gateway.expect(opcode::PICK_UP).await;
        let busy = Error::of(ErrorCode::Unavailable, "the database is away");
        gateway.send(Message::error_reply(first.head.request().unwrap(), &busy));
        let again = gateway.expect(opcode::PICK_UP).await;
        let action: PickUp = again.decode().unwrap();
        assert_eq!((first.decode(), action.action_id), (Ok(action), 42));
        let inventory = Inventory { coins: 5, last_action: 42, ..Inventory::default() };
        gateway.send(reply(&again, &Committed { action_id: 42, inventory: Some(inventory) }));
    };
    let (inventory, ()) =
        soon(async { tokio::join!(player.pick_up(EntityId::ground_item(ITEM)), serving) }).await;
    assert_eq!(inventory.unwrap().coins, 5);
    assert_eq!(player.look(|view| view.inventory.as_ref().map(|inventory| inventory.coins)), Some(5));
    assert_eq!(player.next_action(), 43);
}

#[tokio::test]
async fn walking_steers_by_what_the_server_says() {
    let (mut gateway, player, _happenings) = entered().await;
    gateway.order(Do::Send(vec![keyframe(), avatar(480_000, 512_000)]));
    let serving = async {
        let first = Move::decode(&gateway.expect(opcode::MOVE).await.payload).unwrap();
        assert_eq!((first.velocity, first.facing), ([6_000, 0], 0));
        gateway.send(avatar(490_000, 513_000));
        let last = loop {
            let wish = Move::decode(&gateway.expect(opcode::MOVE).await.payload).unwrap();
            if wish.velocity == [0, 0] {
                break wish;
            }
            assert!(wish.velocity[1] <= 0);
            gateway.send(avatar(489_900, 512_000));
        };
        assert!(last.sequence > first.sequence);
    };
    let (arrived, ()) =
        soon(async { tokio::join!(player.move_to(490_000, 512_000, PATIENCE), serving) }).await;
    assert_eq!(arrived.unwrap().x_mm, 489_900);
}
