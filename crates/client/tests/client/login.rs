//! Logging in.

use shardkeep_client::{
    ClientError, Config,
    login::Door,
    session::{Session, events},
};
use shardkeep_wire::payload::ErrorCode;

use super::{
    server::{self, Crowd, Gateway},
    soon,
};

async fn door(gateway: &Gateway) -> Door {
    let address = server::login(gateway, gateway.addresses[0]).await;
    Door::open(&Config::default(), address).await.unwrap()
}

#[tokio::test]
async fn the_whole_way_in() {
    let gateway = Gateway::start(1).await;
    let mut select = soon(door(&gateway).await.log_in("  Alice ", "secret")).await.unwrap();
    assert_eq!(select.account(), 7);
    assert_eq!(select.worlds().len(), 2);

    let refused = soon(select.select(9)).await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::NotFound));
    assert_eq!(select.worlds().len(), 3);
    let first = soon(select.select(1)).await.unwrap();
    let second = soon(select.select(1)).await.unwrap();
    assert_eq!((first.ticket.index, second.ticket.index), (0, 1));

    let (sink, _events) = events(16);
    let session = soon(Session::attach(&Config::default(), second, sink)).await.unwrap();
    assert_eq!(session.id(), server::SESSION);
    assert_eq!(session.gateway(), gateway.addresses[0].to_string());
}

#[tokio::test]
async fn a_crowded_server_is_worked_for() {
    let gateway = Gateway::start(1).await;
    for crowd in [Crowd::Waits, Crowd::HangsUp] {
        let address = server::crowded_login(&gateway, gateway.addresses[0], crowd).await;
        let door = Door::open(&Config::default(), address).await.unwrap();
        assert_eq!(soon(door.log_in("alice", "secret")).await.unwrap().account(), 7);
    }
}

#[tokio::test]
async fn wrong_passwords_and_names_are_denied_alike() {
    let gateway = Gateway::start(1).await;
    for (account, password) in [("alice", "wrong"), ("nobody", "secret")] {
        let denied = soon(door(&gateway).await.log_in(account, password)).await.unwrap_err();
        assert_eq!(denied.code(), Some(ErrorCode::Denied));
    }
    let nothing = soon(door(&gateway).await.log_in("a", "secret")).await.unwrap_err();
    assert!(matches!(nothing, ClientError::Name(_)));
}
