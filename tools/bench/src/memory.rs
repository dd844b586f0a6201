//! Memory of an idle session in the gateway. The peer is an idle connection through HAProxy.

use std::time::Duration;

use anyhow::Result;
use tempfile::TempDir;
use tokio::time::sleep;

use crate::{
    fixture::{self, Fixture},
    gateway::Gateway,
    host,
    load::{connections, echo_server},
    peer,
    table::{Benchmark, Outcome, Row},
};

/// Before the first look: what a process needs once for any number is not counted.
const WARM_UP_SESSIONS: usize = 500;
const SESSIONS: usize = 5_000;
const SETTLE: Duration = Duration::from_millis(500);

pub const MEMORY: Benchmark = Benchmark {
    name: "memory",
    label: "gateway's resident memory per idle session, 5,000 sessions after the first 500",
    target: "<= 4 KiB, then less than HAProxy",
    run,
};

fn run() -> Result<Outcome> {
    fixture::runtime()?.block_on(measure())
}

async fn measure() -> Result<Outcome> {
    let ours = sessions().await?;
    let peer = haproxy_connections().await?;
    let show = |kib: f64| format!("{kib:.1} KiB");
    Ok(Outcome::Rows(vec![Row::compared("", ours, peer, show, "HAProxy", "haproxy")]))
}

async fn sessions() -> Result<f64> {
    let fixture = Fixture::shared().await?;
    let folder = TempDir::new()?;
    let started = Gateway::start(fixture, folder.path(), "gateway-memory", 9).await?;
    let gateway = &started.announcement;
    let mut held = Vec::new();
    let mut before = 0;
    for count in [WARM_UP_SESSIONS, SESSIONS] {
        let tickets = fixture.tickets(gateway, count).await?;
        before = host::resident_kib(gateway.pid)?;
        for ticket in tickets {
            held.push(fixture.attach(gateway, &ticket).await?);
        }
        sleep(SETTLE).await;
    }
    let after = host::resident_kib(gateway.pid)?;
    Ok(after.saturating_sub(before) as f64 / SESSIONS as f64)
}

async fn haproxy_connections() -> Result<Option<f64>> {
    let port = host::free_port()?;
    let Some(peer) = peer::haproxy(port, echo_server().await?)? else { return Ok(None) };
    let mut held = Vec::new();
    let mut before = 0;
    for count in [WARM_UP_SESSIONS, SESSIONS] {
        before = host::resident_kib(peer.pid())?;
        held.extend(connections(port, count).await?);
        sleep(SETTLE).await;
    }
    let after = host::resident_kib(peer.pid())?;
    Ok(Some(after.saturating_sub(before) as f64 / SESSIONS as f64))
}
