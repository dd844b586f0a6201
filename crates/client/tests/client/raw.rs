//! The tools of tests that need a client without manners.

use shardkeep_client::{
    Config,
    raw::{self, Connection},
};
use shardkeep_wire::{
    Message, opcode,
    payload::Ping,
    preface::{Preface, Service, deployment_tag},
};

use super::{PATIENCE, server::Gateway, soon};

async fn connect(gateway: &Gateway) -> Connection {
    let preface = Preface::new(Service::Gateway, deployment_tag("dev"));
    Connection::open(gateway.addresses[0], preface, PATIENCE).await.unwrap()
}

#[tokio::test]
async fn a_session_by_hand() {
    let mut gateway = Gateway::start(1).await;
    let config = Config::default();
    let mut connection = connect(&gateway).await;
    let established = soon(raw::attach(&mut connection, &config, &gateway.admit().ticket)).await.unwrap();

    let ping = Message::event(opcode::PING, &Ping { value: 9 });
    let record = connection.seal(std::slice::from_ref(&ping)).unwrap();
    soon(connection.send_bytes(&record)).await.unwrap();
    assert_eq!(gateway.expect(opcode::PING).await, ping);
    // The same record again does not open, and the server hangs up.
    soon(connection.send_bytes(&record)).await.unwrap();
    assert!(soon(connection.closes()).await);

    let mut again = connect(&gateway).await;
    let keys = raw::ResumeKeys::of(&established);
    let resumed = soon(raw::resume(&mut again, &config, established.session, &keys, 0)).await.unwrap();
    assert!(resumed.ready.continued);
}

#[tokio::test]
async fn bytes_as_they_are() {
    let gateway = Gateway::start(1).await;
    let mut connection = connect(&gateway).await;
    soon(connection.send_bytes(&raw::forge_record(60_000, b"short"))).await.unwrap();
    assert!(soon(connection.closes()).await);
}
