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

use super::{TEST_TIMEOUT, server::Gateway, with_timeout};

async fn connect(gateway: &Gateway) -> Connection {
    let preface = Preface::new(Service::Gateway, deployment_tag("dev"));
    Connection::open(gateway.addresses[0], preface, TEST_TIMEOUT).await.unwrap()
}

#[tokio::test]
async fn raw_connection_attaches_replays_and_resumes() {
    let mut gateway = Gateway::start(1).await;
    let config = Config::default();
    let mut connection = connect(&gateway).await;
    let established =
        with_timeout(raw::attach(&mut connection, &config, &gateway.issue_ticket().ticket)).await.unwrap();

    let ping = Message::event(opcode::PING, &Ping { value: 9 });
    let record = connection.seal(std::slice::from_ref(&ping)).unwrap();
    with_timeout(connection.send_bytes(&record)).await.unwrap();
    assert_eq!(gateway.expect(opcode::PING).await, ping);
    // The same record again does not open, and the server hangs up.
    with_timeout(connection.send_bytes(&record)).await.unwrap();
    assert!(with_timeout(connection.wait_for_close()).await);

    let mut again = connect(&gateway).await;
    let keys = raw::ResumeKeys::of(&established);
    let resumed =
        with_timeout(raw::resume(&mut again, &config, established.session, &keys, 0)).await.unwrap();
    assert!(resumed.ready.continued);
}

#[tokio::test]
async fn forged_record_length_closes_connection() {
    let gateway = Gateway::start(1).await;
    let mut connection = connect(&gateway).await;
    with_timeout(connection.send_bytes(&raw::forge_record(60_000, b"short"))).await.unwrap();
    assert!(with_timeout(connection.wait_for_close()).await);
}
