//! What no honest client sends is answered as the protocol says or ends its own connection, and the honest player
//! beside it notices nothing.

use anyhow::{Context as _, Result, ensure};
use shardkeep_client::{
    raw::forge_record,
    wire::{
        Head, Message, Side, opcode,
        payload::{CreateCharacter, ErrorCode, GetInventory, ListCharacters},
    },
};
use shardkeep_stories::{Actor, Bare, PASSWORD, config, ends, fresh_name, shared};
use shardkeep_testkit::Cluster;

#[tokio::test]
async fn strangers_are_turned_away() -> Result<()> {
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
        // Waits for the rest until the time of the handshake is over.
        ("half a record", forge_record(100, &[0; 10]), None),
    ];
    for (what, bytes, answer) in attacks {
        let mut connection = Bare::connect(&config, &honest.player.session().gateway()).await?;
        connection.send_bytes(&bytes).await?;
        let last = ends(&mut connection).await.context(what)?;
        ensure!(last == answer, "{what} was answered with {last:?}");
    }
    let foreign: [(&[u8], _); 2] = [
        (b"GET / HTTP/1.1\r\n\r\n", None),
        (b"SKEP\x02\0\x02\0\0\0\0\0", Some(ErrorCode::UnsupportedVersion)),
    ];
    for (preface, answer) in foreign {
        let mut connection = Bare::connect(&config, &honest.player.session().gateway()).await?;
        connection.without_preface();
        connection.send_bytes(preface).await?;
        ensure!(ends(&mut connection).await? == answer, "preface {preface:?}");
    }
    undisturbed(&honest).await
}

#[tokio::test]
async fn a_session_is_told_what_it_must_not_say() -> Result<()> {
    let cluster = shared().await?;
    let mut rude = guest(cluster).await?;
    ensure!(rude.refusal(0x7777, &ListCharacters {}).await? == ErrorCode::OutOfPhase);
    ensure!(rude.refusal(opcode::HELLO, &ListCharacters {}).await? == ErrorCode::OutOfPhase);
    ensure!(
        rude.refusal(opcode::GET_INVENTORY, &GetInventory {}).await? == ErrorCode::Refused,
        "not in the world"
    );
    let long = CreateCharacter { name: "x".repeat(300) };
    ensure!(rude.refusal(opcode::CREATE_CHARACTER, &long).await? == ErrorCode::TooLarge);
    rude.ask(opcode::LIST_CHARACTERS, &ListCharacters {}).await.context("all that costs no session")?;

    for _ in 0..16 {
        // The last ones may find the connection closed.
        let _ = rude.say(0x7777, &ListCharacters {}).await;
    }
    ensure!(ends(&mut rude.connection).await? == Some(ErrorCode::OutOfPhase), "one strike too many");
    Ok(())
}

#[tokio::test]
async fn a_flood_ends_its_own_connection_only() -> Result<()> {
    let cluster = shared().await?;
    let honest = Actor::enter(cluster, "honest").await?;
    let mut flood = guest(cluster).await?;
    for _ in 0..60 {
        let _ = flood.say(opcode::LIST_CHARACTERS, &ListCharacters {}).await;
    }
    ensure!(ends(&mut flood.connection).await? == Some(ErrorCode::TooFast));
    undisturbed(&honest).await
}

#[tokio::test]
async fn bent_records_end_the_connection_without_an_answer() -> Result<()> {
    let cluster = shared().await?;
    let honest = Actor::enter(cluster, "honest").await?;
    type Bend = fn(&mut Vec<u8>);
    let bends: [(&str, Bend); 4] = [
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
    for (what, bend) in bends {
        let mut liar = guest(cluster).await?;
        let request = Message::new(opcode::LIST_CHARACTERS, Head::Request(1), vec![0x08; 20].into());
        let mut record = liar.connection.seal(&[request])?.to_vec();
        bend(&mut record);
        liar.connection.send_bytes(&record).await?;
        let last = ends(&mut liar.connection).await.context(what)?;
        ensure!(last.is_none(), "{what} was answered with {last:?}");
    }
    let mut liar = guest(cluster).await?;
    let endless = u16::try_from(Side::Client.max_plaintext() + 17)?;
    liar.connection.send_bytes(&forge_record(endless, &[])).await?;
    ensure!(ends(&mut liar.connection).await? == Some(ErrorCode::TooLarge));
    undisturbed(&honest).await
}

/// An account of its own in a session, not in the world.
async fn guest(cluster: &Cluster) -> Result<Bare> {
    let name = fresh_name("guest");
    cluster.account(&name, PASSWORD).await?;
    Bare::attach(cluster, &name).await
}

async fn undisturbed(honest: &Actor) -> Result<()> {
    honest.player.say("what a quiet day").await?;
    let counts = honest.player.session().counts();
    ensure!(counts.losses == 0, "the honest player lost its connection: {counts:?}");
    Ok(())
}
