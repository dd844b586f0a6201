//! What a new session costs the gateway, from accept to the sealed `SessionReady`, beside a TLS 1.3 handshake in
//! HAProxy, which ends with encryption but not with a session.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{ClientConfig, RootCertStore, client::Resumption, pki_types::ServerName};
use shardkeep_auth::ticket::Ticket;
use tokio::{net::TcpStream, sync::Mutex, task::JoinSet, time::sleep};
use tokio_rustls::TlsConnector;

use crate::{
    host, peer,
    site::{self, Site},
    table::{Measure, Outcome, Row},
};

const CLIENTS: usize = 32;
const TIME: Duration = Duration::from_secs(5);
/// At most so many; fewer than a gateway holds.
const SESSIONS: usize = 6_000;
/// For what a server still does after its last client has left.
const AFTER: Duration = Duration::from_millis(500);

pub const ATTACH: Measure = Measure {
    name: "attach",
    what: "attaches per CPU second of the gateway, 32 clients, login excluded",
    reach: ">= 10 (TLS 1.3 full handshakes, ECDSA P-256)",
    run,
};

fn run() -> Result<Outcome> {
    site::runtime()?.block_on(measure())
}

async fn measure() -> Result<Outcome> {
    let ours = attaches().await?;
    let peer = handshakes().await?;
    let show = |rate: f64| format!("{rate:.0} /CPU s");
    Ok(Outcome::Rows(vec![Row::beside("", ours, peer, show, "HAProxy", "haproxy")]))
}

async fn attaches() -> Result<f64> {
    let site = Site::shared().await?;
    let gateway = site.cluster.announced("gateway-1")?;
    let tickets: Arc<Mutex<Vec<Ticket>>> = Arc::new(Mutex::new(site.tickets(&gateway, SESSIONS).await?));
    let pid = gateway.pid;
    per_cpu_second(pid, move || {
        let (tickets, gateway) = (tickets.clone(), gateway.clone());
        async move {
            let Some(ticket) = tickets.lock().await.pop() else { return Ok(false) };
            site.attach(&gateway, &ticket).await?;
            Ok(true)
        }
    })
    .await
}

async fn handshakes() -> Result<Option<f64>> {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(vec!["localhost".into()])?;
    let port = host::free_port()?;
    let pem = format!("{}{}", cert.pem(), signing_key.serialize_pem());
    let Some(peer) = peer::haproxy_tls(port, &pem)? else { return Ok(None) };
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone())?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    let connector = TlsConnector::from(Arc::new(config));
    let rate = per_cpu_second(peer.pid(), move || {
        let connector = connector.clone();
        async move {
            let stream = TcpStream::connect(("127.0.0.1", port)).await?;
            stream.set_nodelay(true)?;
            let name = ServerName::try_from("localhost").context("a name")?;
            connector.connect(name, stream).await.context("TLS handshake")?;
            Ok(true)
        }
    })
    .await?;
    Ok(Some(rate))
}

/// How many times `once` succeeds for each CPU second of the process; it says whether there is more to do.
async fn per_cpu_second<F: Future<Output = Result<bool>> + Send>(
    pid: u32,
    once: impl Fn() -> F + Clone + Send + Sync + 'static,
) -> Result<f64> {
    let (done, end) = (Arc::new(AtomicU64::new(0)), Instant::now() + TIME);
    let cpu = host::cpu_of(pid)?;
    let mut clients: JoinSet<Result<()>> = JoinSet::new();
    for _ in 0..CLIENTS {
        let (once, done) = (once.clone(), done.clone());
        clients.spawn(async move {
            while Instant::now() < end && Box::pin(once()).await? {
                done.fetch_add(1, Relaxed);
            }
            Ok(())
        });
    }
    while let Some(client) = clients.join_next().await {
        client??;
    }
    sleep(AFTER).await;
    let (done, cpu) = (done.load(Relaxed), host::cpu_of(pid)? - cpu);
    ensure!(done > 0 && !cpu.is_zero(), "nothing was done");
    Ok(done as f64 / cpu.as_secs_f64())
}
