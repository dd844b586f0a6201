//! A ticket admits one session of the client that holds its key, until a newer ticket replaces it.

use anyhow::{Context as _, Result, ensure};
use shardkeep_client::{
    Config,
    login::{GatewayTicket, WorldSelect},
    raw,
    wire::payload::ErrorCode,
};
use shardkeep_stories::{PASSWORD, RawSession, TIMEOUT, WORLD, config, log_in, shared, unique_name};
use shardkeep_testkit::Cluster;
use shardkeep_types::{Secret, TicketId};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};

#[tokio::test]
async fn used_ticket_is_refused() -> Result<()> {
    let (config, mut worlds) = ticket_holder(shared().await?).await?;
    let used = worlds.select(WORLD).await?;
    let _session = RawSession::attach_with_ticket(&config, &used).await?;
    assert_refused(&config, &used).await
}

#[tokio::test]
async fn ticket_replaced_by_newer_one_is_refused() -> Result<()> {
    let (config, mut worlds) = ticket_holder(shared().await?).await?;
    let revoked = worlds.select(WORLD).await?;
    let newer = worlds.select(WORLD).await?;
    assert_refused(&config, &revoked).await?;
    RawSession::attach_with_ticket(&config, &newer).await?;
    Ok(())
}

#[tokio::test]
async fn forged_ticket_is_refused_and_true_one_stays_valid() -> Result<()> {
    let (config, mut worlds) = ticket_holder(shared().await?).await?;
    let mut ticket = worlds.select(WORLD).await?;
    let (id, key) = (ticket.ticket.id, ticket.ticket.key.clone());
    ticket.ticket.id = TicketId([7; 16]);
    assert_refused(&config, &ticket).await.context("with another id")?;
    ticket.ticket.id = id;
    ticket.ticket.key = Secret::new([7; 32]);
    assert_refused(&config, &ticket).await.context("with another key")?;
    ticket.ticket.key = key;
    RawSession::attach_with_ticket(&config, &ticket).await?;
    Ok(())
}

#[tokio::test]
async fn replayed_attach_does_not_consume_ticket() -> Result<()> {
    let cluster = shared().await?;
    let (config, mut worlds) = ticket_holder(cluster).await?;
    let gateway_ticket = worlds.select(WORLD).await?;
    let recorded = record_attach(&config, &gateway_ticket).await?;

    let mut guessing = replay(&gateway_ticket, &recorded).await?;
    let mut waiting = replay(&gateway_ticket, &recorded).await?;
    // Neither has the key, so the gateway cannot open the next record of either.
    guessing.write_all(&[16, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]).await?;
    assert_closed(guessing).await.context("the client that guesses")?;
    RawSession::attach_with_ticket(&config, &gateway_ticket)
        .await
        .context("the client that holds the ticket")?;
    waiting.write_all(&recorded[12..]).await?;
    assert_closed(waiting).await.context("the client that waits")
}

async fn ticket_holder(cluster: &Cluster) -> Result<(Config, WorldSelect)> {
    let name = unique_name("holder");
    cluster.account(&name, PASSWORD).await?;
    Ok((config(cluster)?, log_in(cluster, &name, PASSWORD).await?))
}

async fn assert_refused(config: &Config, gateway_ticket: &GatewayTicket) -> Result<()> {
    match RawSession::attach_with_ticket(config, gateway_ticket).await {
        Ok(_) => anyhow::bail!("the gateway accepts the ticket"),
        Err(error) => ensure!(error.code() == Some(ErrorCode::TicketInvalid), "{error}"),
    }
    Ok(())
}

/// Sends the recorded bytes on a new connection. The gateway cannot know yet that another client sends them.
async fn replay(gateway_ticket: &GatewayTicket, recorded: &[u8]) -> Result<TcpStream> {
    let mut attacker = TcpStream::connect(&gateway_ticket.gateway).await?;
    attacker.write_all(recorded).await?;
    let mut answer = [0; 64];
    timeout(TIMEOUT, attacker.read_exact(&mut answer)).await.context("an answer to the attacker")??;
    Ok(attacker)
}

async fn assert_closed(mut attacker: TcpStream) -> Result<()> {
    timeout(TIMEOUT, attacker.read_to_end(&mut Vec::new())).await.context("the connection stays open")??;
    Ok(())
}

/// Records the first bytes of a client by posing as its gateway.
async fn record_attach(config: &Config, gateway_ticket: &GatewayTicket) -> Result<Vec<u8>> {
    let fake_gateway = TcpListener::bind("127.0.0.1:0").await?;
    let mut client = RawSession::connect(config, &fake_gateway.local_addr()?.to_string()).await?;
    let (mut socket, _) = fake_gateway.accept().await?;
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
        _ = raw::attach(&mut client, config, &gateway_ticket.ticket) => anyhow::bail!("attached to nobody"),
    }
}
