//! Malformed and forbidden messages get the error of the protocol or close their connection. An honest player is not
//! disturbed.

use anyhow::{Context as _, Result, ensure};
use shardkeep_client::{
    raw::forge_record,
    wire::{
        Head, Message, Side, opcode,
        payload::{CreateCharacter, ErrorCode, GetInventory, ListCharacters},
    },
};
use shardkeep_stories::{Actor, PASSWORD, RawSession, config, connection_end, shared, unique_name};
use shardkeep_testkit::Cluster;

#[tokio::test]
async fn malformed_input_before_login_is_refused() -> Result<()> {
    let cluster = shared().await?;
    let honest = Actor::enter(cluster, "honest").await?;
    let config = config(cluster)?;
    let too_early = Message::request(opcode::LIST_CHARACTERS, 1, &ListCharacters {}).to_bytes();
    let unknown = Message::request(0x7777, 1, &ListCharacters {}).to_bytes();
    let record = |body: &[u8]| forge_record(u16::try_from(body.len()).unwrap_or(u16::MAX), body);
    let attacks = [
        ("an opcode out of phase", record(&too_early), Some(ErrorCode::OutOfPhase)),
        ("an unknown opcode", record(&unknown), Some(ErrorCode::OutOfPhase)),
        ("half a message", record(&too_early[..2]), Some(ErrorCode::Malformed)),
        ("an endless record", forge_record(u16::MAX, &[]), Some(ErrorCode::TooLarge)),
        ("an empty record", forge_record(0, &[]), Some(ErrorCode::Malformed)),
        // The gateway waits for the rest until the handshake times out.
        ("half a record", forge_record(100, &[0; 10]), None),
    ];
    for (case, bytes, answer) in attacks {
        let mut connection = RawSession::connect(&config, &honest.player.session().gateway()).await?;
        connection.send_bytes(&bytes).await?;
        let last = connection_end(&mut connection).await.context(case)?;
        ensure!(last == answer, "{case} was answered with {last:?}");
    }
    let prefaces: [(&[u8], _); 2] = [
        (b"GET / HTTP/1.1\r\n\r\n", None),
        (b"SKEP\x02\0\x02\0\0\0\0\0", Some(ErrorCode::UnsupportedVersion)),
    ];
    for (preface, answer) in prefaces {
        let mut connection = RawSession::connect(&config, &honest.player.session().gateway()).await?;
        connection.discard_preface();
        connection.send_bytes(preface).await?;
        ensure!(connection_end(&mut connection).await? == answer, "preface {preface:?}");
    }
    assert_undisturbed(&honest).await
}

#[tokio::test]
async fn forbidden_request_is_refused_then_closes_session() -> Result<()> {
    let cluster = shared().await?;
    let mut client = guest(cluster).await?;
    ensure!(client.refusal(0x7777, &ListCharacters {}).await? == ErrorCode::OutOfPhase);
    ensure!(client.refusal(opcode::HELLO, &ListCharacters {}).await? == ErrorCode::OutOfPhase);
    ensure!(
        client.refusal(opcode::GET_INVENTORY, &GetInventory::default()).await? == ErrorCode::Refused,
        "not in the world"
    );
    let long = CreateCharacter { name: "x".repeat(300) };
    ensure!(client.refusal(opcode::CREATE_CHARACTER, &long).await? == ErrorCode::TooLarge);
    client.call(opcode::LIST_CHARACTERS, &ListCharacters {}).await.context("all that costs no session")?;

    for _ in 0..16 {
        // The last ones may find the connection closed.
        let _ = client.say(0x7777, &ListCharacters {}).await;
    }
    ensure!(
        connection_end(&mut client.connection).await? == Some(ErrorCode::OutOfPhase),
        "one strike too many"
    );
    Ok(())
}

#[tokio::test]
async fn flooding_client_loses_only_its_own_connection() -> Result<()> {
    let cluster = shared().await?;
    let honest = Actor::enter(cluster, "honest").await?;
    let mut flooder = guest(cluster).await?;
    for _ in 0..60 {
        let _ = flooder.say(opcode::LIST_CHARACTERS, &ListCharacters {}).await;
    }
    ensure!(connection_end(&mut flooder.connection).await? == Some(ErrorCode::TooFast));
    assert_undisturbed(&honest).await
}

#[tokio::test]
async fn altered_record_closes_connection_without_answer() -> Result<()> {
    let cluster = shared().await?;
    let honest = Actor::enter(cluster, "honest").await?;
    type Alteration = fn(&mut Vec<u8>);
    let alterations: [(&str, Alteration); 4] = [
        ("a flipped bit", |record| record[10] ^= 1),
        ("a flipped bit in the length", |record| {
            record[0] ^= 1;
            record.push(0);
        }),
        ("a record cut short", |record| {
            record.truncate(record.len() - 5);
            record[0] -= 5;
        }),
        ("a record sent twice", |record| record.extend_from_within(..)),
    ];
    for (case, alter) in alterations {
        let mut attacker = guest(cluster).await?;
        let request = Message::new(opcode::LIST_CHARACTERS, Head::Request(1), vec![0x08; 20].into());
        let mut record = attacker.connection.seal(&[request])?.to_vec();
        alter(&mut record);
        attacker.connection.send_bytes(&record).await?;
        let last = connection_end(&mut attacker.connection).await.context(case)?;
        ensure!(last.is_none(), "{case} was answered with {last:?}");
    }
    let mut attacker = guest(cluster).await?;
    let endless = u16::try_from(Side::Client.max_plaintext() + 17)?;
    attacker.connection.send_bytes(&forge_record(endless, &[])).await?;
    ensure!(connection_end(&mut attacker.connection).await? == Some(ErrorCode::TooLarge));
    assert_undisturbed(&honest).await
}

/// A session of a new account, not in the world.
async fn guest(cluster: &Cluster) -> Result<RawSession> {
    let name = unique_name("guest");
    cluster.account(&name, PASSWORD).await?;
    RawSession::attach(cluster, &name).await
}

async fn assert_undisturbed(honest: &Actor) -> Result<()> {
    honest.player.say("what a quiet day").await?;
    let counts = honest.player.session().counts();
    ensure!(counts.losses == 0, "the honest player lost its connection: {counts:?}");
    Ok(())
}
