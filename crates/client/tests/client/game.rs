//! A player's picture of the world, and actions that happen once.

use bytes::BytesMut;
use shardkeep_client::{
    Config,
    game::{GameEvent, GameEvents, Player, View},
};
use shardkeep_types::{CellId, CharacterId, EntityId, ItemId, SpaceId};
use shardkeep_wire::{
    Message,
    movement::{self, Appearance, Avatar, EntityKind, Entry, Form, Move, cell_head, encode_cell},
    opcode,
    payload::{ChatMessage, Committed, Entered, Error, ErrorCode, Inventory, PickUp},
};

use super::{
    TEST_TIMEOUT,
    server::{Gateway, GatewayCommand},
    with_timeout,
};

const CELL: CellId = CellId { space: SpaceId(1), x: 15, y: 16 };
const ITEM: ItemId = ItemId(9);

fn keyframe() -> Message {
    let mut payload = BytesMut::new();
    let bob = Appearance { kind: EntityKind::Avatar, template: 0, name: "Bob" };
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
async fn entered() -> (Gateway, Player, GameEvents) {
    let mut gateway = Gateway::start(1).await;
    let (player, game_events) =
        with_timeout(Player::attach(&Config::default(), gateway.issue_ticket())).await.unwrap();
    let serving = async {
        let enter = gateway.expect(opcode::ENTER).await;
        let entity_id = EntityId::avatar(CharacterId(1)).0;
        gateway.send(reply(&enter, &Entered { character_id: 1, entity_id, space: 1, ..Entered::default() }));
        let ask = gateway.expect(opcode::GET_INVENTORY).await;
        gateway.send(reply(&ask, &Inventory { last_action: 41, ..Inventory::default() }));
    };
    let (entered, ()) = with_timeout(async { tokio::join!(player.enter(1), serving) }).await;
    entered.unwrap();
    (gateway, player, game_events)
}

#[tokio::test]
async fn view_follows_server_messages() {
    let (gateway, player, mut game_events) = entered().await;
    let heard = ChatMessage { text: "hi".into(), from: "Bob".into(), ..ChatMessage::default() };
    gateway.command(GatewayCommand::Send(vec![
        keyframe(),
        avatar(480_000, 512_000),
        Message::event(opcode::CHAT_MESSAGE, &heard),
    ]));
    let bob = with_timeout(player.wait_until(TEST_TIMEOUT, |view| view.find_by_name("Bob").cloned()))
        .await
        .unwrap();
    assert_eq!((bob.position.x_mm, bob.position.y_mm), (480_500, 512_500));
    let here = with_timeout(player.wait_until(TEST_TIMEOUT, View::position)).await.unwrap();
    assert_eq!(here.cell(), CELL);
    assert_eq!(with_timeout(game_events.next()).await, Some(GameEvent::ChatMessage(heard)));
}

#[tokio::test]
async fn action_retry_reuses_its_id() {
    let (mut gateway, player, _game_events) = entered().await;
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
        with_timeout(async { tokio::join!(player.pick_up(EntityId::ground_item(ITEM)), serving) }).await;
    assert_eq!(inventory.unwrap().coins, 5);
    assert_eq!(player.with_view(|view| view.inventory.as_ref().map(|inventory| inventory.coins)), Some(5));
    assert_eq!(player.next_action(), 43);
}

#[tokio::test]
async fn move_to_steers_by_server_positions() {
    let (mut gateway, player, _game_events) = entered().await;
    gateway.command(GatewayCommand::Send(vec![keyframe(), avatar(480_000, 512_000)]));
    let serving = async {
        let first = Move::decode(&gateway.expect(opcode::MOVE).await.payload).unwrap();
        assert_eq!((first.velocity, first.facing), ([6_000, 0], 0));
        gateway.send(avatar(490_000, 513_000));
        let last = loop {
            let move_request = Move::decode(&gateway.expect(opcode::MOVE).await.payload).unwrap();
            if move_request.velocity == [0, 0] {
                break move_request;
            }
            assert!(move_request.velocity[1] <= 0);
            gateway.send(avatar(489_900, 512_000));
        };
        assert!(last.sequence > first.sequence);
    };
    let (arrived, ()) =
        with_timeout(async { tokio::join!(player.move_to(490_000, 512_000, TEST_TIMEOUT), serving) }).await;
    assert_eq!(arrived.unwrap().x_mm, 489_900);
}
