//! The whole way from the password to the world and back, on every lane; and what servers say there to strangers.

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
use shardkeep_testkit::Cluster;
use tokio::time::timeout;

#[tokio::test]
async fn session_works_on_every_lane() -> Result<()> {
    let cluster = shared().await?;
    let [tcp, quic, ws, wss] =
        Lane::ALL.map(|lane| async move { play(cluster, lane).await.with_context(|| format!("on {lane}")) });
    tokio::try_join!(tcp, quic, ws, wss)?;
    Ok(())
}

async fn play(cluster: &Cluster, lane: Lane) -> Result<()> {
    let actor = Actor::enter_on(cluster, lane.as_str(), lane).await?;
    let session = actor.player.session();
    actor.walk_to(500, 508).await?;
    actor.player.say("I came another way").await?;
    session.drop_connection().await?;
    let before: Inventory = session.call(opcode::GET_INVENTORY, &GetInventory {}, TIMEOUT).await?;
    session.update_key().await?;
    let after: Inventory = session.call(opcode::GET_INVENTORY, &GetInventory {}, TIMEOUT).await?;
    ensure!(before == after);
    let counts = session.counts();
    ensure!(session.lane() == lane, "it ended up on {}", session.lane());
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
async fn malformed_input_gets_the_same_error_on_every_lane() -> Result<()> {
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
    for lane in Lane::ALL {
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
    }
    Ok(())
}
