//! Logging in.

use shardkeep_client::{
    ClientError, Config,
    login::LoginConnection,
    session::{Session, events},
};
use shardkeep_wire::payload::ErrorCode;

use super::{
    server::{self, Gateway, PuzzleMode},
    with_timeout,
};

async fn login_connection(gateway: &Gateway) -> LoginConnection {
    let address = server::login(gateway, gateway.addresses[0]).await;
    LoginConnection::open(&Config::default(), address).await.unwrap()
}

#[tokio::test]
async fn login_select_and_attach_succeed() {
    let gateway = Gateway::start(1).await;
    let mut select =
        with_timeout(login_connection(&gateway).await.log_in("  Alice ", "secret")).await.unwrap();
    assert_eq!(select.account(), 7);
    assert_eq!(select.worlds().len(), 2);

    let refused = with_timeout(select.select(9)).await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::NotFound));
    assert_eq!(select.worlds().len(), 3);
    let first = with_timeout(select.select(1)).await.unwrap();
    let second = with_timeout(select.select(1)).await.unwrap();
    assert_eq!((first.ticket.index, second.ticket.index), (0, 1));

    let (sink, _events) = events(16);
    let session = with_timeout(Session::attach(&Config::default(), second, sink)).await.unwrap();
    assert_eq!(session.id(), server::SESSION);
    assert_eq!(session.gateway(), gateway.addresses[0].to_string());
}

#[tokio::test]
async fn login_solves_puzzle_on_open_or_closed_connection() {
    let gateway = Gateway::start(1).await;
    for puzzle_mode in [PuzzleMode::KeepsOpen, PuzzleMode::Disconnects] {
        let address = server::login_with_puzzle(&gateway, gateway.addresses[0], puzzle_mode).await;
        let login_connection = LoginConnection::open(&Config::default(), address).await.unwrap();
        assert_eq!(with_timeout(login_connection.log_in("alice", "secret")).await.unwrap().account(), 7);
    }
}

#[tokio::test]
async fn wrong_password_and_unknown_account_are_denied_alike() {
    let gateway = Gateway::start(1).await;
    for (account, password) in [("alice", "wrong"), ("nobody", "secret")] {
        let denied =
            with_timeout(login_connection(&gateway).await.log_in(account, password)).await.unwrap_err();
        assert_eq!(denied.code(), Some(ErrorCode::Denied));
    }
    let nothing = with_timeout(login_connection(&gateway).await.log_in("a", "secret")).await.unwrap_err();
    assert!(matches!(nothing, ClientError::Name(_)));
}
