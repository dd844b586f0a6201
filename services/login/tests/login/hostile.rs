//! Clients that break the protocol lose their own connection, and nothing else is affected.

use shardkeep_wire::{
    Message, opcode,
    payload::{ErrorCode, Finished, Hello, Ping, Proof, SelectWorld},
};

use crate::{
    cluster::{Cluster, TEST_TIMEOUT},
    player::{Outcome, Player},
};

const VIOLATIONS: &str = "shardkeep_login_violations_total";
const ENDED: &str = "shardkeep_login_connections_ended_total";

fn code<T: std::fmt::Debug>(outcome: Outcome<T>) -> ErrorCode {
    outcome.unwrap_err().code
}

#[tokio::test]
async fn foreign_preface_is_not_answered() {
    let cluster = Cluster::start().await;
    let address = cluster.client_address();
    let right = Player::preface();
    let with = |at: usize, value: u8| {
        let mut bytes = right;
        bytes[at] = value;
        bytes
    };
    for foreign in [*b"SSH-2.0-Open", with(6, 2), with(7, 1), with(8, 0)] {
        assert!(Player::raw(address, &foreign).await.receive().await.is_none());
    }
    let mut player = Player::raw(address, &with(4, 9)).await;
    assert_eq!(player.last_error().await, Some(ErrorCode::UnsupportedVersion));
    for label in ["foreign", "service", "reserved", "deployment", "version"] {
        assert_eq!(cluster.metric(ENDED, &format!("why=\"{label}\"")).await, 1.0, "{label}");
    }
}

#[tokio::test]
async fn connection_slot_is_held_until_socket_is_closed() {
    let cluster = Cluster::start().await;
    let mut wrong = Player::preface();
    wrong[4] = 9;
    let one_is_held = async {
        loop {
            // The server sends an error and reads on for a moment before it closes.
            let mut player = Player::raw(cluster.client_address(), &wrong).await;
            assert_eq!(player.last_error().await, Some(ErrorCode::UnsupportedVersion));
            if cluster.metric("shardkeep_login_connections", "").await > 0.0 {
                break;
            }
        }
    };
    tokio::time::timeout(TEST_TIMEOUT, one_is_held).await.expect("it is counted meanwhile");
}

#[tokio::test]
async fn opcode_before_hello_is_refused_and_counted() {
    let cluster = Cluster::start().await;
    let mut player = cluster.connect().await;
    let select = SelectWorld { world_id: 1 };
    let proof = Proof { a: vec![1; 256], m1: vec![0; 32] };
    assert_eq!(code(player.ask(opcode::SELECT_WORLD, &select).await), ErrorCode::OutOfPhase);
    assert_eq!(code(player.ask(opcode::PROOF, &proof).await), ErrorCode::OutOfPhase);
    assert_eq!(code(player.ask(opcode::ATTACH, &proof).await), ErrorCode::OutOfPhase);
    assert_eq!(code(player.ask(0x7777, &proof).await), ErrorCode::OutOfPhase);
    assert_eq!(cluster.metric(VIOLATIONS, "opcode_out_of_phase").await, 3.0);
    assert_eq!(cluster.metric(VIOLATIONS, "opcode_unknown").await, 1.0);
}

#[tokio::test]
async fn second_hello_is_refused() {
    let cluster = Cluster::start().await;
    let mut player = cluster.connect().await;
    player.hello("alice").await.unwrap();
    let again = Hello { account: "alice".into(), ..Hello::default() };
    assert_eq!(code(player.ask(opcode::HELLO, &again).await), ErrorCode::OutOfPhase);
}

#[tokio::test]
async fn opcode_out_of_phase_after_login_does_not_end_the_connection() {
    let cluster = Cluster::start().await;
    cluster.account("alice", "right").await;
    let mut player = cluster.connect().await;
    player.log_in("alice", "right").await.unwrap();
    assert_eq!(code(player.ask(opcode::FINISHED, &Finished::default()).await), ErrorCode::OutOfPhase);
    assert_eq!(code(player.select(77).await), ErrorCode::NotFound);
}

#[tokio::test]
async fn too_many_strikes_close_the_connection() {
    let cluster = Cluster::start().await;
    let mut player = cluster.connect().await;
    for _ in 0..16 {
        player.send(opcode::SELECT_WORLD, &SelectWorld { world_id: 1 }).await;
    }
    assert_eq!(player.last_error().await, Some(ErrorCode::OutOfPhase));
    assert_eq!(cluster.metric(ENDED, "why=\"opcode_out_of_phase\"").await, 1.0);
}

#[tokio::test]
async fn bad_records_end_the_connection() {
    let cluster = Cluster::start().await;
    cluster.account("alice", "right").await;
    let cases: [(&[u8], Option<ErrorCode>); 4] = [
        (&[0, 0], Some(ErrorCode::Malformed)),
        (&[0xff, 0xff, 1], Some(ErrorCode::TooLarge)),
        // Reserved bits in the flags; a record that ends inside a message.
        (&[4, 0, 0xfc, 0, 1, 0], Some(ErrorCode::Malformed)),
        (&[5, 0, 0, 0, 1, 1, 9], Some(ErrorCode::Malformed)),
    ];
    for (bytes, expected) in cases {
        let mut player = cluster.connect().await;
        player.send_bytes(bytes).await;
        assert_eq!(player.last_error().await, expected, "{bytes:?}");
    }
    // An oversize payload in a record of allowed size.
    let mut player = cluster.connect().await;
    let hello = Hello { account: "a".repeat(1_700), ..Hello::default() };
    assert_eq!(code(player.ask(opcode::HELLO, &hello).await), ErrorCode::TooLarge);
    // A payload that is not protobuf.
    let mut player = cluster.connect().await;
    player
        .send_message(&Message::new(opcode::HELLO, shardkeep_wire::Head::Request(1), vec![0xff; 9].into()))
        .await;
    assert_eq!(code(player.reply(1).await), ErrorCode::Malformed);
}

#[tokio::test]
async fn altered_sealed_records_end_the_connection_without_an_answer() {
    let cluster = Cluster::start().await;
    cluster.account("alice", "right").await;
    let mut player = cluster.connect().await;
    player.log_in("alice", "right").await.unwrap();
    player.send_forged(&Message::event(opcode::PING, &Ping { value: 1 })).await;
    assert_eq!(player.last_error().await, None);
    assert_eq!(cluster.metric(ENDED, "why=\"seal_forged\"").await, 1.0);

    // Plain messages after the proof do not open as sealed records.
    let mut player = cluster.connect().await;
    let challenge = player.hello("alice").await.unwrap();
    let answer = player.answer("alice", "right", &challenge);
    player.prove(&challenge, answer).await.unwrap();
    player.send_bytes(&[4, 0, 2, 4, 0, 0]).await;
    assert_eq!(player.last_error().await, None);
    assert_eq!(cluster.metric(ENDED, "why=\"seal_forged\"").await, 2.0);
}

#[tokio::test]
async fn altered_transcript_fails_at_finished() {
    let cluster = Cluster::start().await;
    cluster.account("alice", "right").await;
    let mut player = cluster.connect().await;
    let challenge = player.hello("alice").await.unwrap();
    let answer = player.answer("alice", "right", &challenge);
    player.prove(&challenge, answer).await.unwrap();
    // Another transcript gives another MAC. The test sends a wrong MAC.
    let wrong = Finished { finished: vec![0; 32] };
    assert_eq!(code(player.ask(opcode::FINISHED, &wrong).await), ErrorCode::Malformed);
    let shown = cluster.show("alice").await;
    assert_eq!((shown.generation, shown.last_login_ms), (1, 0), "nobody was displaced by it");
}

#[tokio::test]
async fn degenerate_public_numbers_are_refused() {
    let cluster = Cluster::start().await;
    cluster.account("alice", "right").await;
    for a in [vec![], vec![0], vec![0; 256], vec![1; 257]] {
        let mut player = cluster.connect().await;
        player.hello("alice").await.unwrap();
        let proof = Proof { a, m1: vec![0; 32] };
        assert_eq!(code(player.ask(opcode::PROOF, &proof).await), ErrorCode::Malformed);
    }
}

#[tokio::test]
async fn ping_is_answered_after_key_update() {
    let cluster = Cluster::start().await;
    cluster.account("alice", "right").await;
    let mut player = cluster.connect().await;
    player.suites = vec![77, 2];
    player.log_in("alice", "right").await.unwrap();
    player.update_key().await;
    player.send_message(&Message::event(opcode::PING, &Ping { value: 42 })).await;
    let pong = loop {
        let message = player.receive().await.unwrap();
        if message.opcode == opcode::PONG {
            break message.decode::<Ping>().unwrap();
        }
    };
    assert_eq!(pong.value, 42);
}

#[tokio::test]
async fn connections_are_bounded() {
    let cluster = Cluster::start_with(&["login.max_connections=2"]).await;
    let first = cluster.connect().await;
    let mut second = cluster.connect().await;
    second.hello("alice").await.unwrap();
    let mut third = cluster.connect().await;
    assert_eq!(third.last_error().await, Some(ErrorCode::Unavailable));
    drop((first, second));
    loop {
        let mut player = cluster.connect().await;
        if player.hello("alice").await.is_ok() {
            break;
        }
    }
}

#[tokio::test]
async fn silent_connection_times_out() {
    let cluster = Cluster::start().await;
    let mut silent = Player::raw(cluster.client_address(), &Player::preface()[..7]).await;
    assert_eq!(silent.last_error().await, Some(ErrorCode::TooSlow));
    assert_eq!(cluster.metric(ENDED, "why=\"timeout\"").await, 1.0);
}
