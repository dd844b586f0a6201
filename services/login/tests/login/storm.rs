//! Many clients at once, and clients behind a load balancer.

use std::net::SocketAddr;

use shardkeep_auth::{hybrid::Offer, srp::Group};
use shardkeep_testkit::Postgres;
use shardkeep_types::Secret;
use shardkeep_wire::{opcode, payload::ErrorCode, proxy};

use crate::{
    cluster::{Cluster, account_in},
    player::{Player, solved},
    registration::{region, registration},
};

const EXPONENTIATIONS: &str = "shardkeep_login_exponentiations_total";
const PUZZLES: &str = "shardkeep_login_puzzles_total";
const KEY_SHARES: &str = "shardkeep_login_key_shares_total";
const ENDED: &str = "shardkeep_login_connections_ended_total";
/// Every client gets a puzzle, and puzzles are easy.
const ALWAYS: [&str; 3] =
    ["login.puzzle.mode=always", "login.puzzle.least_bits=6", "login.puzzle.most_bits=6"];

#[tokio::test]
async fn puzzle_is_required_before_any_exponentiation() {
    let cluster = Cluster::start_with(&ALWAYS).await;
    cluster.account("alice", "right").await;
    let mut player = cluster.connect().await;
    let hello = player.hello_payload("alice");
    let puzzle = player.send_hello(&hello).await.unwrap();
    assert_eq!(puzzle.opcode, opcode::PUZZLE);
    assert_eq!(cluster.metric(EXPONENTIATIONS, "").await, 0.0);
    let answer = solved(&hello, &puzzle);

    // The answer is not valid for another account, or a second time.
    let others = solved(&player.hello_payload("bob"), &puzzle);
    assert_eq!(player.send_hello(&others).await.unwrap().opcode, opcode::PUZZLE);
    assert_eq!(player.send_hello(&answer).await.unwrap().opcode, opcode::HELLO);
    let mut again = cluster.connect().await;
    assert_eq!(again.send_hello(&answer).await.unwrap().opcode, opcode::PUZZLE);
    for (outcome, count) in [("asked", 1.0), ("foreign", 1.0), ("solved", 1.0), ("used", 1.0)] {
        assert_eq!(cluster.metric(PUZZLES, &format!("\"{outcome}\"")).await, count, "{outcome}");
    }
    // A client that solves puzzles logs in. A client that only requests puzzles is disconnected.
    cluster.connect().await.log_in("alice", "right").await.unwrap();
    let mut greedy = cluster.connect().await;
    for _ in 0..4 {
        assert_eq!(greedy.send_hello(&hello).await.unwrap().opcode, opcode::PUZZLE);
    }
    assert_eq!(greedy.last_error().await, None);
    assert_eq!(cluster.metric(ENDED, "why=\"puzzle_required\"").await, 1.0);
}

#[tokio::test]
async fn registration_requires_a_puzzle() {
    let settings = [ALWAYS[0], ALWAYS[1], ALWAYS[2], "login.registration=open"];
    let cluster = Cluster::start_with(&settings).await;
    let key = region(&cluster).await;
    let registration = registration(&key, "alice", "right", "").0;
    let payload = prost::Message::encode_to_vec(&registration);
    let mut player = cluster.connect().await;
    let puzzle = player.request_raw(opcode::REGISTER, &payload).await.unwrap();
    assert_eq!(puzzle.opcode, opcode::PUZZLE);
    // The puzzle is bound to these bytes.
    let other = [&payload[..], &payload[..2]].concat();
    assert_eq!(
        player.request_raw(opcode::REGISTER, &solved(&other, &puzzle)).await.unwrap().opcode,
        opcode::PUZZLE
    );
    let answer = player.request_raw(opcode::REGISTER, &solved(&payload, &puzzle)).await.unwrap();
    assert_eq!(answer.opcode, opcode::REGISTER);
    player.log_in("alice", "right").await.unwrap();
}

#[tokio::test]
async fn puzzle_answer_is_valid_on_another_connection() {
    let cluster = Cluster::start_with(&[ALWAYS[0], ALWAYS[1], ALWAYS[2], "login.max_connections=2"]).await;
    cluster.account("alice", "right").await;
    let _idle = cluster.connect().await;
    let mut player = cluster.connect().await;
    let hello = player.hello_payload("alice");
    let puzzle = player.send_hello(&hello).await.unwrap();
    assert_eq!(player.last_error().await, None, "connections are scarce: it hangs up meanwhile");
    drop(player);
    let answer = solved(&hello, &puzzle);
    let challenge = loop {
        // The slot of the previous connection may become free a moment later.
        let mut player = cluster.connect().await;
        match player.send_hello(&answer).await {
            Ok(challenge) => break challenge,
            Err(refused) => assert_eq!(refused.code, ErrorCode::Unavailable),
        }
    };
    assert_eq!(challenge.opcode, opcode::HELLO);
}

#[tokio::test]
async fn puzzle_answer_is_valid_at_another_replica() {
    let server = Postgres::start().await;
    let store = format!("login.store={}", server.url());
    let settings = [ALWAYS[0], ALWAYS[1], ALWAYS[2], &store];
    let (one, other) = tokio::join!(Cluster::start_with(&settings), Cluster::start_with(&settings));
    let mut player = one.connect().await;
    let hello = player.hello_payload("alice");
    let puzzle = player.send_hello(&hello).await.unwrap();
    let answer = solved(&hello, &puzzle);
    assert_eq!(other.connect().await.send_hello(&answer).await.unwrap().opcode, opcode::HELLO);
}

#[tokio::test]
async fn key_shares_are_allowed_required_or_off() {
    for (setting, with, without) in
        [("allow", Ok(true), Ok(false)), ("off", Ok(false), Ok(false)), ("require", Ok(true), Err(()))]
    {
        let cluster = Cluster::start_with(&[&format!("login.hybrid={setting}")]).await;
        cluster.account("alice", "right").await;
        for (offers, expected) in [(true, with), (false, without)] {
            let mut player = cluster.connect().await;
            player.offer = offers.then(|| Offer::new(&Secret::new([9; 32])).unwrap());
            let used = cluster.metric(KEY_SHARES, "yes").await;
            let end = player.log_in("alice", "right").await;
            match expected {
                Ok(uses) => {
                    end.unwrap();
                    let now = cluster.metric(KEY_SHARES, "yes").await;
                    assert_eq!(now - used, f64::from(u8::from(uses)), "{setting} {offers}");
                }
                Err(()) => assert_eq!(end.unwrap_err().code, ErrorCode::Refused),
            }
        }
    }
}

#[tokio::test]
async fn account_logs_in_with_its_own_srp_group() {
    let cluster = Cluster::start().await;
    for (group, name) in [(Group::Bits3072, "carol"), (Group::Bits4096, "dave")] {
        cluster.accounts().create(account_in(group, name, "right")).await.unwrap();
        let mut player = cluster.connect().await;
        assert_eq!(player.hello(name).await.unwrap().group, group.bits());
        cluster.connect().await.log_in(name, "right").await.unwrap();
        let wrong = cluster.connect().await.log_in(name, "wrong").await.unwrap_err();
        assert_eq!(wrong.code, ErrorCode::Denied);
        let mut player = cluster.connect().await;
        player.groups = vec![2048];
        assert_eq!(player.hello(name).await.unwrap_err().code, ErrorCode::Refused);
    }
}

#[tokio::test]
async fn unknown_account_gets_a_group_of_known_accounts() {
    let mut cluster = Cluster::start().await;
    cluster.accounts().create(account_in(Group::Bits3072, "carol", "right")).await.unwrap();
    // Accounts are counted when the process starts.
    cluster.restart().await;
    loop {
        let challenge = cluster.connect().await.hello("nobody").await.unwrap();
        if challenge.group == 3072 {
            assert_eq!(challenge.salt.len(), 16);
            break;
        }
    }
    let denied = cluster.connect().await.log_in("nobody", "right").await.unwrap_err();
    assert_eq!(denied.code, ErrorCode::Denied);
}

fn client() -> SocketAddr {
    "203.0.113.9:4711".parse().unwrap()
}

/// A connection from a load balancer.
async fn through_balancer(cluster: &Cluster, header: &[u8]) -> Player {
    let opening = [header, &Player::preface()].concat();
    Player::raw(cluster.client_address(), &opening).await
}

#[tokio::test]
async fn trusted_balancer_announces_client_address() {
    let cluster = Cluster::start_with(&[
        "login.trusted_balancers=[\"127.0.0.0/8\"]",
        "login.max_connections_per_address=1",
    ])
    .await;
    cluster.account("alice", "right").await;
    let header = proxy::encode(client(), "198.51.100.1:7100".parse().unwrap());
    let mut player = through_balancer(&cluster, &header).await;
    player.log_in("alice", "right").await.unwrap();
    assert!(cluster.log().contains("203.0.113.9"), "the real address is in the log");
    // The bounds apply to the client, not to the balancer.
    let mut second = through_balancer(&cluster, &header).await;
    assert_eq!(second.last_error().await, Some(ErrorCode::Unavailable));
    let other = proxy::encode("[2001:db8::1]:1".parse().unwrap(), "[2001:db8::2]:2".parse().unwrap());
    through_balancer(&cluster, &other).await.log_in("alice", "right").await.unwrap();
    // A health check, and a connection of the balancer itself.
    through_balancer(&cluster, &proxy::encode_local()).await.log_in("alice", "right").await.unwrap();

    // A balancer must send the header.
    assert_eq!(cluster.connect().await.last_error().await, None);
    assert_eq!(cluster.metric(ENDED, "why=\"proxy_missing\"").await, 1.0);
}

#[tokio::test]
async fn proxy_header_from_untrusted_peer_is_refused() {
    let cluster = Cluster::start().await;
    let header = proxy::encode(client(), "198.51.100.1:7100".parse().unwrap());
    assert_eq!(through_balancer(&cluster, &header).await.last_error().await, None);
    assert_eq!(cluster.metric(ENDED, "why=\"foreign\"").await, 1.0);
}
