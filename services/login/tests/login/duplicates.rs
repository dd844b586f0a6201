//! Two players with one account, when the settings refuse the second login.

use shardkeep_rpc::{accounts::LogOutRequest, gateway::SessionInfo};
use shardkeep_testkit::{Postgres, wait_until};
use shardkeep_wire::payload::ErrorCode;

use crate::{
    cluster::Cluster,
    player::{Outcome, Player},
};

/// Retries until the account is free again.
async fn log_in_when_free(cluster: &Cluster, account: &str) -> Player {
    let logged_in = wait_until("the account is free", async || {
        let mut player = cluster.connect().await;
        match player.log_in(account, "right").await {
            Ok(_) => Ok(Some(player)),
            Err(refused) => {
                assert_eq!(refused.code, ErrorCode::AlreadyLoggedIn);
                Ok(None)
            }
        }
    });
    logged_in.await.unwrap()
}

async fn try_once(cluster: &Cluster, account: &str) -> (Player, Outcome<()>) {
    let mut player = cluster.connect().await;
    let outcome = player.log_in(account, "right").await.map(drop);
    (player, outcome)
}

#[tokio::test]
async fn second_login_is_refused_at_every_replica() {
    let server = Postgres::start().await;
    let store = format!("login.store={}", server.url());
    let settings = [store.as_str(), "login.duplicate_logins=refuse", "login.login_lease=60s"];
    let (one, other) = tokio::join!(Cluster::start_with(&settings), Cluster::start_with(&settings));
    one.account("alice", "right").await;

    // Of several logins at once at both replicas, one succeeds.
    let racing = (0..6).map(|number| try_once(if number % 2 == 0 { &one } else { &other }, "alice"));
    let outcomes = futures::future::join_all(racing).await;
    let refused: Vec<_> = outcomes.iter().filter_map(|(_, outcome)| outcome.as_ref().err()).collect();
    assert_eq!(refused.len(), 5);
    for refused in refused {
        assert_eq!(refused.code, ErrorCode::AlreadyLoggedIn);
        assert!(!refused.retry_after.is_zero());
    }
    let wrong = other.connect().await.log_in("alice", "wrong").await.unwrap_err();
    assert_eq!(wrong.code, ErrorCode::Denied, "only who knows the password learns of it");

    // When the player disconnects, the next one can log in at the other replica.
    drop(outcomes);
    let inside = log_in_when_free(&other, "alice").await;
    assert_eq!(try_once(&one, "alice").await.1.unwrap_err().code, ErrorCode::AlreadyLoggedIn);
    // An operator frees the account.
    one.accounts().log_out_everywhere(LogOutRequest { name: "alice".into() }).await.unwrap();
    try_once(&one, "alice").await.1.unwrap();
    drop(inside);
}

#[tokio::test]
async fn live_session_blocks_login_and_crashed_one_does_not() {
    let mut cluster = Cluster::start_with(&["login.duplicate_logins=refuse", "login.login_lease=2s"]).await;
    let account = cluster.account("alice", "right").await;
    drop(log_in_when_free(&cluster, "alice").await);
    let generation = cluster.show("alice").await.generation;
    let session = |link_dead| SessionInfo { account, generation, link_dead, ..SessionInfo::default() };
    let refused = async |sessions: &[SessionInfo], tickets: &[u64]| {
        cluster.gateway.hold(sessions, tickets);
        // The release of the previous connection's lease may still be under way.
        loop {
            let generation = cluster.show("alice").await.generation;
            match try_once(&cluster, "alice").await.1 {
                Ok(()) => return false,
                Err(refused) if refused.retry_after.as_secs() == 10 => {
                    assert_eq!(cluster.show("alice").await.generation, generation, "nobody was displaced");
                    return true;
                }
                Err(refused) => assert_eq!(refused.code, ErrorCode::AlreadyLoggedIn),
            }
        }
    };
    assert!(refused(&[session(false)], &[]).await, "a session whose player is there");
    assert!(refused(&[], &[generation]).await, "a ticket on its way");
    assert!(!refused(&[session(true)], &[generation - 1]).await, "a session without its player");

    // A login process that dies keeps the account busy only until its lease expires.
    cluster.gateway.hold(&[], &[]);
    let _inside = log_in_when_free(&cluster, "alice").await;
    cluster.restart().await;
    log_in_when_free(&cluster, "alice").await;
}
