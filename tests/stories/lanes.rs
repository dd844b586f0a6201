//! Each lane: a session from the login to the logout, and the answers to malformed input.

use anyhow::{Context as _, Result, ensure};
use shardkeep_client::{
    SessionEnd,
    lanes::Lane,
    login,
    raw::{Connection, forge_record},
    wire::{
        Message, opcode,
        payload::{ErrorCode, GetInventory, Inventory, ListCharacters},
        preface::Service,
    },
};
use shardkeep_stories::{Actor, TIMEOUT, ZONE, config_on, connection_end, shared};
use tokio::time::timeout;

#[tokio::test]
async fn session_resumes_and_changes_keys_on_tcp() -> Result<()> {
    play(Lane::Tcp).await
}

#[tokio::test]
async fn session_resumes_and_changes_keys_on_quic() -> Result<()> {
    play(Lane::Quic).await
}

#[tokio::test]
async fn session_resumes_and_changes_keys_on_ws() -> Result<()> {
    play(Lane::Ws).await
}

#[tokio::test]
async fn session_resumes_and_changes_keys_on_wss() -> Result<()> {
    play(Lane::Wss).await
}

async fn play(lane: Lane) -> Result<()> {
    let cluster = shared().await?;
    let actor = Actor::enter_on(cluster, lane.as_str(), lane).await?;
    let session = actor.player.session();
    actor.walk_to(500, 508).await?;
    actor.player.say("hello").await?;
    session.drop_connection().await?;
    let before: Inventory = session.call(opcode::GET_INVENTORY, &GetInventory::default(), TIMEOUT).await?;
    session.update_key().await?;
    let after: Inventory = session.call(opcode::GET_INVENTORY, &GetInventory::default(), TIMEOUT).await?;
    ensure!(before == after);
    let counts = session.counts();
    ensure!(session.lane() == lane, "the session is on {}", session.lane());
    ensure!(counts.losses == 1 && counts.resumes == 1 && counts.key_updates == 1, "{counts:?}");
    ensure!((counts.datagrams > 0) == (lane == Lane::Quic), "{counts:?}");
    let end = timeout(TIMEOUT, session.logout()).await?;
    ensure!(
        matches!(&end, SessionEnd::Refused(refusal) if refusal.code == ErrorCode::LoggedOut),
        "it ended with {end:?}"
    );
    Ok(())
}

#[tokio::test]
async fn malformed_input_is_refused_on_tcp() -> Result<()> {
    send_malformed_input(Lane::Tcp).await
}

#[tokio::test]
async fn malformed_input_is_refused_on_quic() -> Result<()> {
    send_malformed_input(Lane::Quic).await
}

#[tokio::test]
async fn malformed_input_is_refused_on_ws() -> Result<()> {
    send_malformed_input(Lane::Ws).await
}

#[tokio::test]
async fn malformed_input_is_refused_on_wss() -> Result<()> {
    send_malformed_input(Lane::Wss).await
}

/// Each server answers with the same error, whatever the lane.
async fn send_malformed_input(lane: Lane) -> Result<()> {
    let cluster = shared().await?;
    let record = |body: &[u8]| forge_record(u16::try_from(body.len()).unwrap_or(u16::MAX), body);
    let early = Message::request(opcode::LIST_CHARACTERS, 1, &ListCharacters {}).to_bytes();
    let attacks = [
        ("half a message", record(&early[..2]), Some(ErrorCode::Malformed)),
        ("an endless record", forge_record(u16::MAX, &[]), Some(ErrorCode::TooLarge)),
        ("an empty record", forge_record(0, &[]), Some(ErrorCode::Malformed)),
    ];
    let prefaces: [(&[u8], _); 2] =
        [(b"SSH-2.0-OpenSSH", None), (b"SKEP\x02\0\x01\0\0\0\0\0", Some(ErrorCode::UnsupportedVersion))];
    let gateway = cluster.announcement("gateway-1")?.client.parse()?;
    let config = config_on(cluster, lane)?;
    let login = *login::find(&config, ZONE).await?.first().context("no login server")?;
    for (service, address) in [(Service::Login, login), (Service::Gateway, gateway)] {
        for (case, bytes, answer) in &attacks {
            let mut connection = Connection::open_on(&config, lane, address, service).await?;
            connection.send_bytes(bytes).await?;
            let last = connection_end(&mut connection).await?;
            ensure!(last == *answer, "{case} was answered with {last:?} by {service:?} on {lane}");
        }
        for (preface, answer) in prefaces {
            let mut connection = Connection::open_on(&config, lane, address, service).await?;
            connection.discard_preface();
            connection.send_bytes(preface).await?;
            let last = connection_end(&mut connection).await?;
            ensure!(last == answer, "{preface:?} was answered with {last:?} by {service:?} on {lane}");
        }
    }
    Ok(())
}
