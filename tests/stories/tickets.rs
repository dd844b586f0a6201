//! A ticket serves once, for who holds its key, until a newer one takes its place.

use anyhow::{Context as _, Result, ensure};
use shardkeep_client::{
    Config,
    login::{Boarding, WorldSelect},
    raw,
    wire::payload::ErrorCode,
};
use shardkeep_stories::{Bare, PASSWORD, SOON, WORLD, config, fresh_name, log_in, shared};
use shardkeep_testkit::Cluster;
use shardkeep_types::{Secret, TicketId};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};

#[tokio::test]
async fn used_revoked_and_invented_tickets_are_refused() -> Result<()> {
    let cluster = shared().await?;
    let (config, mut worlds) = ticket_holder(cluster).await?;

    let used = worlds.select(WORLD).await?;
    let _session = Bare::board(&config, &used).await?;
    refused(&config, &used).await.context("used")?;

    let revoked = worlds.select(WORLD).await?;
    let mut valid = worlds.select(WORLD).await?;
    refused(&config, &revoked).await.context("revoked")?;

    let (id, key) = (valid.ticket.id, valid.ticket.key.clone());
    valid.ticket.id = TicketId([7; 16]);
    refused(&config, &valid).await.context("with an invented name")?;
    valid.ticket.id = id;
    valid.ticket.key = Secret::new([7; 32]);
    refused(&config, &valid).await.context("with an invented key")?;
    valid.ticket.key = key;
    Bare::board(&config, &valid).await.context("the true one, after all that")?;
    Ok(())
}

#[tokio::test]
async fn a_replayed_attach_takes_nothing_from_the_client() -> Result<()> {
    let cluster = shared().await?;
    let (config, mut worlds) = ticket_holder(cluster).await?;
    let boarding = worlds.select(WORLD).await?;
    let recorded = record_attach(&config, &boarding).await?;

    let mut guesser = replay(&boarding, &recorded).await?;
    let mut lurker = replay(&boarding, &recorded).await?;
    // Neither can confirm: what they say next opens under no key.
    guesser.write_all(&[16, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]).await?;
    turned_away(guesser).await.context("who guesses")?;
    Bare::board(&config, &boarding).await.context("the client whose ticket it is")?;
    lurker.write_all(&recorded[12..]).await?;
    turned_away(lurker).await.context("who waits")
}

async fn ticket_holder(cluster: &Cluster) -> Result<(Config, WorldSelect)> {
    let name = fresh_name("holder");
    cluster.account(&name, PASSWORD).await?;
    Ok((config(cluster)?, log_in(cluster, &name, PASSWORD).await?))
}

async fn refused(config: &Config, boarding: &Boarding) -> Result<()> {
    match Bare::board(config, boarding).await {
        Ok(_) => anyhow::bail!("let in"),
        Err(error) => ensure!(error.code() == Some(ErrorCode::TicketInvalid), "{error}"),
    }
    Ok(())
}

/// Says what the client said, on a connection of its own; the gateway cannot know yet that it is another.
async fn replay(boarding: &Boarding, recorded: &[u8]) -> Result<TcpStream> {
    let mut attacker = TcpStream::connect(&boarding.gateway).await?;
    attacker.write_all(recorded).await?;
    let mut answer = [0; 64];
    timeout(SOON, attacker.read_exact(&mut answer)).await.context("an answer to the attacker")??;
    Ok(attacker)
}

async fn turned_away(mut attacker: TcpStream) -> Result<()> {
    timeout(SOON, attacker.read_to_end(&mut Vec::new())).await.context("the connection stays open")??;
    Ok(())
}

/// What a client says first, caught by somebody who poses as its gateway.
async fn record_attach(config: &Config, boarding: &Boarding) -> Result<Vec<u8>> {
    let trap = TcpListener::bind("127.0.0.1:0").await?;
    let mut caught = Bare::connect(config, &trap.local_addr()?.to_string()).await?;
    let (mut socket, _) = trap.accept().await?;
    let mut bytes = vec![0; 12 + 2];
    let listening = async {
        socket.read_exact(&mut bytes).await?;
        let length = usize::from(u16::from_le_bytes([bytes[12], bytes[13]]));
        bytes.resize(14 + length, 0);
        socket.read_exact(&mut bytes[14..]).await?;
        anyhow::Ok(bytes)
    };
    tokio::select! {
        bytes = listening => bytes,
        _ = raw::attach(&mut caught, config, &boarding.ticket) => anyhow::bail!("attached to nobody"),
    }
}
