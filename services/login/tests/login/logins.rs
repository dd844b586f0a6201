//! Right, wrong and unknown credentials; one session per account; throttling; both stores.

use shardkeep_rpc::accounts::Revocation;
use shardkeep_testkit::{FakeBilling, PLAY_TIME_LEFT_MS, Postgres};
use shardkeep_wire::payload::ErrorCode;

use crate::{cluster::Cluster, revocations::Follower};

const EXPONENTIATIONS: &str = "shardkeep_login_exponentiations_total";
const LOGINS: &str = "shardkeep_login_logins_total";

async fn check_passwords(cluster: &mut Cluster) {
    let id = cluster.account("Alice", "correct horse").await;
    let welcome = cluster.connect().await.log_in("alice", "correct horse").await.unwrap();
    assert_eq!(welcome.account_id, id);
    assert_eq!(welcome.play_time_left_ms, None);
    // Case and spaces around the name do not matter.
    cluster.connect().await.log_in("  ALICE ", "correct horse").await.unwrap();

    for (account, password) in [("alice", "wrong"), ("bob", "correct horse")] {
        let mut player = cluster.connect().await;
        let refused = player.log_in(account, password).await.unwrap_err();
        assert_eq!((refused.code, refused.detail.as_str()), (ErrorCode::Denied, "wrong account or password"));
        assert_eq!(player.last_error().await, None, "and the connection is closed");
    }
    for nonsense in ["", "al", "al ice", "älice"] {
        let refused = cluster.connect().await.hello(nonsense).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::Malformed, "{nonsense:?}");
    }
    assert_eq!(cluster.metric(LOGINS, "outcome=\"ok\"").await, 2.0);
    assert_eq!(cluster.metric(LOGINS, "outcome=\"denied\"").await, 2.0);

    // Accounts and the challenges of accounts that do not exist survive a crash.
    let salt = cluster.connect().await.hello("bob").await.unwrap().salt;
    cluster.restart().await;
    assert_eq!(cluster.connect().await.hello("BOB").await.unwrap().salt, salt);
    cluster.connect().await.log_in("alice", "correct horse").await.unwrap();
}

#[tokio::test]
async fn passwords_are_checked_on_sqlite() {
    check_passwords(&mut Cluster::start().await).await;
}

#[tokio::test]
async fn passwords_are_checked_on_postgres() {
    let server = Postgres::start().await;
    let store = format!("login.store={}", server.url());
    check_passwords(&mut Cluster::start_with(&[&store]).await).await;
}

#[tokio::test]
async fn replicas_on_one_store_share_accounts() {
    let server = Postgres::start().await;
    let store = format!("login.store={}", server.url());
    let settings = [store.as_str()];
    let (one, other) = tokio::join!(Cluster::start_with(&settings), Cluster::start_with(&settings));
    one.account("alice", "right").await;
    one.connect().await.log_in("alice", "right").await.unwrap();
    other.connect().await.log_in("alice", "right").await.unwrap();
    assert_eq!(one.show("alice").await.generation, 3);
    let salt = one.connect().await.hello("nobody").await.unwrap().salt;
    assert_eq!(other.connect().await.hello("nobody").await.unwrap().salt, salt);
}

#[tokio::test]
async fn unknown_account_is_indistinguishable_from_known_one() {
    let cluster = Cluster::start().await;
    cluster.account("alice", "right").await;
    let mut costs = Vec::new();
    let mut lengths = Vec::new();
    for account in ["alice", "nobody"] {
        let before = cluster.metric(EXPONENTIATIONS, "").await;
        let mut player = cluster.connect().await;
        let challenge = player.hello(account).await.unwrap();
        lengths.push((challenge.group, challenge.salt.len(), challenge.random.len(), challenge.suite));
        let answer = player.answer(account, "wrong", &challenge);
        assert_eq!(player.prove(&challenge, answer).await.err().unwrap().code, ErrorCode::Denied);
        costs.push(cluster.metric(EXPONENTIATIONS, "").await - before);
    }
    assert_eq!(costs, [3.0, 3.0]);
    assert_eq!(lengths[0], lengths[1]);
}

#[tokio::test]
async fn login_asks_billing_only_for_prepaid_accounts() {
    let mut cluster = Cluster::start().await;
    let (free, prepaid) = (cluster.account("free", "right").await, cluster.account("prepaid", "right").await);
    let billing = FakeBilling::with_prepaid(vec![prepaid]);
    cluster.billing(billing.clone()).await;
    while cluster.metric("shardkeep_login_prepaid_accounts", "").await < 1.0 {
        tokio::task::yield_now().await;
    }
    let welcome = async |name| cluster.connect().await.log_in(name, "right").await.unwrap();
    assert_eq!(welcome("free").await.play_time_left_ms, None);
    assert_eq!(welcome("prepaid").await.play_time_left_ms, Some(PLAY_TIME_LEFT_MS));
    assert_eq!(*billing.asked.borrow(), [prepaid]);
    assert_ne!(free, prepaid);
}

#[tokio::test]
async fn last_login_displaces_earlier_ones() {
    let mut cluster = Cluster::start().await;
    cluster.billing(FakeBilling::default()).await;
    let id = cluster.account("alice", "right").await;
    let mut gateway = Follower::new(&cluster).await;
    cluster.connect().await.log_in("alice", "right").await.unwrap();
    // An account begins with generation 1.
    let expected = Revocation {
        account: id,
        below_generation: 2,
        code: ErrorCode::Displaced as u32,
        detail: "logged in elsewhere".into(),
    };
    assert_eq!(gateway.received(id).await, expected);
    cluster.connect().await.log_in("alice", "right").await.unwrap();
    assert_eq!(gateway.received(id).await.below_generation, 3);

    // Each of several logins at once gets a different generation.
    let logins = (0..5).map(|_| async {
        let mut player = cluster.connect().await;
        player.log_in("alice", "right").await.unwrap()
    });
    let welcomes = futures::future::join_all(logins).await;
    while gateway.received(id).await.below_generation < 8 {}
    assert!(welcomes.iter().any(|welcome| welcome.play_time_left_ms == Some(PLAY_TIME_LEFT_MS)));
}

#[tokio::test]
async fn password_guessing_is_throttled_per_account() {
    let cluster = Cluster::start_with(&[
        "login.limits.failures={burst=3,every=\"1h\"}",
        "login.limits.failures_of_account={burst=4,every=\"1h\"}",
    ])
    .await;
    cluster.account("alice", "right").await;
    cluster.account("bob", "right").await;
    for account in ["alice", "nobody"] {
        for _ in 0..3 {
            let refused = cluster.connect().await.log_in(account, "wrong").await.unwrap_err();
            assert_eq!(refused.code, ErrorCode::Denied);
        }
        let refused = cluster.connect().await.log_in(account, "right").await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::Throttled);
        assert!(refused.retry_after.as_secs() > 3_000);
    }
    // The address can log in to another account as often as before.
    for _ in 0..6 {
        cluster.connect().await.log_in("bob", "right").await.unwrap();
    }
    assert_eq!(cluster.metric("shardkeep_login_throttled_total", "limit=\"failures\"").await, 2.0);
}

#[tokio::test]
async fn login_storm_is_refused_with_retry_after() {
    let cluster = Cluster::start_with(&[
        "login.crypto_threads=1",
        "login.crypto_queue=1",
        "login.crypto_jobs_per_account=100",
        "login.puzzle.mode=never",
        "login.limits.attempts={burst=100000,every=\"1ms\"}",
    ])
    .await;
    cluster.account("alice", "right").await;
    // The requests come faster than the exponentiations, so some logins are refused; a retry soon succeeds.
    let logins = (0..24).map(|_| async {
        let mut refusals = 0;
        loop {
            match cluster.connect().await.log_in("alice", "right").await {
                Ok(_) => return refusals,
                Err(refused) => {
                    assert_eq!(refused.code, ErrorCode::Unavailable);
                    assert!(!refused.retry_after.is_zero());
                    refusals += 1;
                }
            }
        }
    });
    let refusals = futures::future::join_all(logins).await.into_iter().sum::<u32>();
    assert!(refusals > 0);
    assert_eq!(cluster.metric(LOGINS, "outcome=\"busy\"").await, f64::from(refusals));
    assert_eq!(cluster.metric(LOGINS, "outcome=\"throttled\"").await, 0.0);
}

#[tokio::test]
async fn login_recovers_when_store_returns() {
    let server = Postgres::dedicated().await;
    let store = format!("login.store={}", server.url());
    let cluster = Cluster::start_with(&[&store]).await;
    cluster.account("alice", "right").await;
    server.kill();
    let refused = cluster.connect().await.log_in("alice", "right").await.unwrap_err();
    let expected = (ErrorCode::Unavailable, "this is impossible now; try again");
    assert_eq!((refused.code, refused.detail.as_str()), expected);
    server.restart();
    cluster.connect().await.log_in("alice", "right").await.unwrap();
}

#[tokio::test]
async fn old_clients_are_told_to_update() {
    let cluster = Cluster::start_with(&["login.min_client_version=2000000"]).await;
    cluster.account("alice", "right").await;
    let mut player = cluster.connect().await;
    player.version = 1_999_999;
    assert_eq!(player.hello("alice").await.unwrap_err().code, ErrorCode::UpdateRequired);
    let mut player = cluster.connect().await;
    player.version = 2_000_000;
    player.log_in("alice", "right").await.unwrap();
}

#[tokio::test]
async fn secrets_are_not_logged() {
    let cluster = Cluster::start().await;
    cluster.account("alice", "correct horse").await;
    let mut player = cluster.connect().await;
    player.log_in("alice", "correct horse").await.unwrap();
    cluster.connect().await.log_in("alice", "wrong horse").await.unwrap_err();
    // A password in the field of the account name.
    cluster.connect().await.log_in("wrong-horse", "x").await.unwrap_err();

    let created = crate::cluster::new_account("alice", "correct horse");
    let ticket = player.chain.as_mut().unwrap().take();
    let log = cluster.log().to_lowercase();
    assert!(log.contains("\"event\":\"login\""), "events are there");
    assert!(!log.contains("horse"));
    for secret in [&created.verifier[..16], &created.salt[..], &ticket.key.expose()[..16]] {
        let spellings = [hex::encode(secret), format!("{secret:?}"), format!("{secret:02x?}")];
        for spelling in spellings {
            assert!(!log.contains(spelling.trim_matches(['[', ']'])), "{spelling}");
        }
    }
}
