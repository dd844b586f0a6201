//! The cost of a round trip for the gateway: unseal, check, route to a backend over its link, and back. The peers are relays
//! that neither inspect nor seal.

use std::time::Duration;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use shardkeep_client::session::Session;
use shardkeep_cluster::{Node, certs};
use shardkeep_daemon::{ClusterConfig, Daemon, DaemonConfig, Running, Service, Settings, Validate, launch};
use shardkeep_link::{BackendSpec, LinkEvent, LinkHub, Route, ServerMessage};
use shardkeep_testkit::{Announcement, wait_until};
use shardkeep_types::{BackendKind, DaemonKind, WorldId};
use tonic::service::Routes;

use crate::{
    fixture::{self, Fixture},
    host,
    load::{Cost, PlainClient, REQUEST, SealedClient, connections, drive, echo_server},
    peer::{self, Peer},
    table::{Benchmark, Outcome, Row},
};

const CONNECTIONS: usize = 200;
/// 25 requests per second and connection, more than a player sends; or no pause at all.
const INTERVALS: [(&str, Option<Duration>); 2] =
    [("5,000 /s in all", Some(Duration::from_millis(40))), ("as fast as they go", None)];
const ECHO_OPCODE: u16 = 0x8100;

pub const RELAY: Benchmark = Benchmark {
    name: "relay",
    label: "gateway's CPU per round trip, 64 bytes, 200 connections, sealed and routed",
    target: "<= 1.0 (relay of the bytes, unsealed)",
    run,
};

fn run() -> Result<Outcome> {
    fixture::runtime()?.block_on(measure())
}

async fn measure() -> Result<Outcome> {
    let fixture = Fixture::shared().await?;
    let gateway = fixture.cluster.announcement("gateway-1")?;
    let backend = start_backend(fixture).await?;
    let ours = through_the_gateway(fixture, &gateway).await?;
    backend.stop().await?;
    let port = host::free_port()?;
    let haproxy = through_peer(peer::haproxy(port, echo_server().await?)?, port).await?;
    let port = host::free_port()?;
    let nginx = through_peer(peer::nginx(port, echo_server().await?)?, port).await?;

    let mut rows = Vec::new();
    for (index, (case, _)) in INTERVALS.iter().enumerate() {
        let micros = |costs: &Option<Vec<Cost>>| {
            costs
                .as_ref()
                .and_then(|costs| costs.get(index))
                .map(|cost| cost.cpu_per_trip.as_secs_f64() * 1e6)
        };
        let ours = ours[index].cpu_per_trip.as_secs_f64() * 1e6;
        let show = |micros: f64| format!("{micros:.1} us");
        rows.push(Row::compared(case, ours, micros(&haproxy), show, "HAProxy", "haproxy"));
        rows.push(Row::compared(case, ours, micros(&nginx), show, "nginx", "nginx libnginx-mod-stream"));
    }
    Ok(Outcome::Rows(rows))
}

async fn through_the_gateway(fixture: &Fixture, gateway: &Announcement) -> Result<Vec<Cost>> {
    let mut players = Vec::new();
    for ticket in fixture.tickets(gateway, CONNECTIONS).await? {
        let (connection, established) = fixture.attach(gateway, &ticket).await?;
        let session = Session::start(fixture.config.clone(), connection, established, |_| {});
        players.push(SealedClient { session, opcode: ECHO_OPCODE });
    }
    wait_for_route(&players[0].session).await?;
    let mut costs = Vec::new();
    for (case, interval) in INTERVALS {
        let (cost, returned) = drive(players, interval, gateway.pid).await?;
        eprintln!("  gateway, {case}: {:.0} round trips/s", cost.trips_per_second);
        players = returned;
        costs.push(cost);
    }
    for player in players {
        player.session.logout().await;
    }
    Ok(costs)
}

/// The gateway dials a new backend as soon as the registry names it.
async fn wait_for_route(session: &Session) -> Result<()> {
    wait_until("the backend is routed to", async || {
        let payload = bytes::Bytes::from_static(&REQUEST);
        Ok(session.call_raw(ECHO_OPCODE, payload, Duration::from_secs(5)).await.ok().map(drop))
    })
    .await
}

async fn through_peer(peer: Option<Peer>, port: u16) -> Result<Option<Vec<Cost>>> {
    let Some(peer) = peer else { return Ok(None) };
    let mut clients: Vec<PlainClient> =
        connections(port, CONNECTIONS).await?.into_iter().map(PlainClient).collect();
    let mut costs = Vec::new();
    for (case, interval) in INTERVALS {
        let (cost, returned) = drive(clients, interval, peer.pid()).await?;
        eprintln!("  peer, {case}: {:.0} round trips/s", cost.trips_per_second);
        clients = returned;
        costs.push(cost);
    }
    Ok(Some(costs))
}

async fn start_backend(fixture: &Fixture) -> Result<Running> {
    let name = "echo";
    let files = certs::issue(&fixture.cluster.data_dir().join("tls"), DaemonKind::Backend, name, WorldId(0))?;
    let settings = Settings {
        daemon: DaemonConfig { name: name.into(), ..DaemonConfig::default() },
        cluster: ClusterConfig {
            registries: vec![fixture.cluster.announcement("registry-1")?.grpc],
            ca: files.ca,
            cert: files.cert,
            key: files.key,
            ..ClusterConfig::default()
        },
        service: EchoConfig {},
        ..Settings::default()
    };
    let mut running = launch::<Echo>(settings).await?;
    running.ready().await?;
    Ok(running)
}

/// A backend as a studio writes one: it answers every request with its payload.
struct Echo;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct EchoConfig {}

impl Validate for EchoConfig {}

impl Service for Echo {
    const KIND: DaemonKind = DaemonKind::Backend;
    type Config = EchoConfig;

    async fn run(settings: Settings<EchoConfig>, daemon: Daemon) -> Result<()> {
        let node = Node::join(&settings, &daemon, Self::KIND).await?;
        let spec = BackendSpec {
            kind: BackendKind::FIRST_CUSTOM,
            world: WorldId(0),
            routes: vec![Route {
                first: ECHO_OPCODE,
                last: ECHO_OPCODE,
                max_payload: 64,
                rate: 1_000_000,
                burst: 1_000_000,
            }],
            auto_bind: true,
        };
        let (hub, mut events) = LinkHub::new(&node, spec);
        node.serve(Routes::new(hub.service()));
        let draining = daemon.draining();
        while let Some(Some(event)) = draining.run_until_cancelled(events.recv()).await {
            if let LinkEvent::Deliver { gateway, session, messages, .. } = event {
                let replies =
                    messages.into_iter().map(|it| ServerMessage::reply(it.opcode, it.request, it.payload));
                hub.send(&gateway, &[session], replies.collect());
            }
        }
        Ok(())
    }
}
