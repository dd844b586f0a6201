//! Tests of the gRPC service over a real socket: perceptions in, intents out.

use std::time::Duration;

use shardkeep_ai::{BusyTime, Config, ThinkService};
use shardkeep_rpc::{
    ai::{self, ai_client::AiClient, intent::Action},
    tonic::{
        Code,
        transport::{Channel, Server},
    },
};
use shardkeep_types::{CharacterId, EntityId};
use tokio::{net::TcpListener, sync::mpsc, time::timeout};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::sync::CancellationToken;

const TIMEOUT: Duration = Duration::from_secs(20);
const WOLF: u32 = 3;

async fn serve(config: Config, draining: &CancellationToken) -> AiClient<Channel> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let service = ThinkService::new(config, BusyTime::default(), draining.clone()).into_server();
    let server = Server::builder().add_service(service);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    AiClient::new(Channel::from_shared(address).unwrap().connect().await.unwrap())
}

/// A field with a wall at x = 32 m that is open at its upper end.
fn grid() -> Option<ai::WalkGrid> {
    let mut blocked = vec![0u8; 64 * 64 / 8];
    for y in 0..60 {
        blocked[(y * 64 + 32) / 8] |= 1;
    }
    Some(ai::WalkGrid { square_mm: 1000, width: 64, height: 64, blocked })
}

fn wolf(creature: u64, x_mm: i32, intruder_x_mm: i32) -> ai::Perception {
    let intruder = EntityId::avatar(CharacterId(1)).0;
    ai::Perception {
        creature,
        template: WOLF,
        x_mm,
        y_mm: 50_500,
        home_x_mm: 30_000,
        home_y_mm: 50_500,
        health_permille: 1000,
        attacker: 0,
        near: vec![ai::Neighbour { entity: intruder, x_mm: intruder_x_mm, y_mm: 50_500 }],
    }
}

fn batch(tick: u64, grid: Option<ai::WalkGrid>, creatures: Vec<ai::Perception>) -> ai::Perceptions {
    ai::Perceptions { zone: "zone-1".into(), tick, elapsed_ms: 250, creatures, grid }
}

#[tokio::test]
async fn wolves_chase_around_walls_and_strike() {
    let draining = CancellationToken::new();
    let mut client = serve(Config::default(), &draining).await;
    let (perceptions, outgoing) = mpsc::channel(4);
    perceptions.send(batch(1, grid(), vec![wolf(7, 28_500, 36_500), wolf(8, 35_500, 36_500)])).await.unwrap();
    let mut intents = client.think(ReceiverStream::new(outgoing)).await.unwrap().into_inner();

    let first = timeout(TIMEOUT, intents.message()).await.unwrap().unwrap().unwrap();
    assert_eq!(first.tick, 1);
    let chase = &first.intents[0];
    assert_eq!((chase.creature, chase.action(), chase.behaviour.as_str()), (7, Action::Move, "chase"));
    assert!(chase.y_mm > 59_000, "around the end of the wall: {chase:?}");
    let strike = &first.intents[1];
    assert_eq!((strike.creature, strike.action()), (8, Action::Attack));

    // The service remembers the grid, and a drain ends the stream without an error.
    perceptions.send(batch(2, None, vec![wolf(7, 28_500, 29_000)])).await.unwrap();
    let second = timeout(TIMEOUT, intents.message()).await.unwrap().unwrap().unwrap();
    assert_eq!(second.intents[0].action(), Action::Attack);
    draining.cancel();
    assert_eq!(timeout(TIMEOUT, intents.message()).await.unwrap().unwrap(), None);
}

#[tokio::test]
async fn invalid_batch_ends_stream_with_status() {
    let config = Config { max_creatures: 1, ..Config::default() };
    let mut client = serve(config, &CancellationToken::new()).await;
    let wrong = [
        (batch(1, None, vec![]), Code::FailedPrecondition),
        (batch(1, Some(ai::WalkGrid::default()), vec![]), Code::InvalidArgument),
        (batch(1, grid(), vec![wolf(1, 0, 0), wolf(2, 0, 0)]), Code::ResourceExhausted),
    ];
    for (batch, code) in wrong {
        let (perceptions, outgoing) = mpsc::channel(1);
        perceptions.send(batch).await.unwrap();
        let mut intents = client.think(ReceiverStream::new(outgoing)).await.unwrap().into_inner();
        let status = timeout(TIMEOUT, intents.message()).await.unwrap().unwrap_err();
        assert_eq!(status.code(), code, "{status}");
    }
}

#[tokio::test]
async fn batch_above_the_message_limit_ends_stream_with_status() {
    let mut client = serve(Config::default(), &CancellationToken::new()).await;
    let (perceptions, outgoing) = mpsc::channel(1);
    perceptions.send(batch(1, None, vec![wolf(7, 0, 0); 150_000])).await.unwrap();
    let mut intents = client.think(ReceiverStream::new(outgoing)).await.unwrap().into_inner();
    let status = timeout(TIMEOUT, intents.message()).await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "the zone logs this as an error");
}

#[tokio::test]
async fn streams_beyond_the_limit_are_refused() {
    let config = Config { max_streams: 1, ..Config::default() };
    let mut client = serve(config, &CancellationToken::new()).await;
    let (_perceptions, outgoing) = mpsc::channel(1);
    let _held = client.think(ReceiverStream::new(outgoing)).await.unwrap();
    let (_more, outgoing) = mpsc::channel(1);
    let status = client.think(ReceiverStream::new(outgoing)).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
}
