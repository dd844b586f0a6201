//! The cost of a new session for the gateway, from accept to the sealed `SessionReady`. The peers are full and resumed TLS
//! 1.3 handshakes of HAProxy, which do not set up a session, and a plain accept.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{ClientConfig, HandshakeKind, RootCertStore, client::Resumption, pki_types::ServerName};
use shardkeep_auth::ticket::Ticket;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, ReadBuf},
    net::TcpStream,
    sync::Mutex,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    fixture::{self, Fixture},
    host,
    load::{REQUEST, per_cpu_second},
    peer,
    table::{Benchmark, Outcome, Row},
};

const CLIENTS: usize = 32;
/// At most so many; fewer than a gateway holds.
const SESSIONS: usize = 6_000;

pub const ATTACH: Benchmark = Benchmark {
    name: "attach",
    label: "attaches per CPU second of the gateway, 32 clients, login excluded",
    target: ">= 10 (TLS 1.3, full, ECDSA P-256), >= 2 (resumed), >= 0.5 (accept)",
    run,
};

fn run() -> Result<Outcome> {
    fixture::runtime()?.block_on(measure())
}

async fn measure() -> Result<Outcome> {
    let ours = attaches().await?;
    let show = |rate: f64| format!("{rate:.0} /CPU s");
    let compared = |case, peer, name| Row::compared(case, ours, peer, show, name, "haproxy");
    Ok(Outcome::Rows(vec![
        compared("TLS 1.3, full", handshakes(false).await?, "HAProxy"),
        compared("TLS 1.3, resumed", handshakes(true).await?, "HAProxy"),
        compared("accept and close", Some(bare_server(0).await?), "bare"),
        compared("accept, two answers, close", Some(bare_server(2).await?), "bare"),
    ]))
}

async fn attaches() -> Result<f64> {
    let fixture = Fixture::shared().await?;
    let gateway = fixture.cluster.announcement("gateway-1")?;
    let tickets: Arc<Mutex<Vec<Ticket>>> = Arc::new(Mutex::new(fixture.tickets(&gateway, SESSIONS).await?));
    let pid = gateway.pid;
    per_cpu_second(&[pid], CLIENTS, move |_| {
        let (tickets, gateway) = (tickets.clone(), gateway.clone());
        async move {
            let Some(ticket) = tickets.lock().await.pop() else { return Ok(false) };
            fixture.attach(&gateway, &ticket).await?;
            Ok(true)
        }
    })
    .await
}

/// Handshakes per CPU second of HAProxy. For resumed ones each client has a session store and gets a new ticket each time.
async fn handshakes(resumed: bool) -> Result<Option<f64>> {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(vec!["localhost".into()])?;
    let port = host::free_port()?;
    let pem = format!("{}{}", cert.pem(), signing_key.serialize_pem());
    let Some(peer) = peer::haproxy_tls(port, &pem, resumed)? else { return Ok(None) };
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone())?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut connectors = Vec::new();
    for _ in 0..CLIENTS {
        let mut config = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        if !resumed {
            config.resumption = Resumption::disabled();
        }
        let connector = TlsConnector::from(Arc::new(config));
        if resumed {
            // The first one is a full handshake, and brings tickets.
            handshake(&connector, port, resumed).await?;
        }
        connectors.push(connector);
    }
    let expected = if resumed { HandshakeKind::Resumed } else { HandshakeKind::Full };
    let rate = per_cpu_second(&[peer.pid()], CLIENTS, move |client| {
        let connector = connectors[client].clone();
        async move {
            let kind = handshake(&connector, port, resumed).await?;
            ensure!(kind == expected, "a handshake was {kind:?}");
            Ok(true)
        }
    })
    .await?;
    Ok(Some(rate))
}

async fn handshake(connector: &TlsConnector, port: u16, tickets: bool) -> Result<HandshakeKind> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from("localhost").context("a name")?;
    let mut stream = connector.connect(name, stream).await.context("TLS handshake")?;
    if tickets {
        poll_fn(|context| take_ticket(&mut stream, context)).await?;
    }
    stream.get_ref().1.handshake_kind().context("no handshake")
}

/// Reads until the server has sent a ticket; it sends nothing else.
fn take_ticket(stream: &mut TlsStream<TcpStream>, context: &mut Context<'_>) -> Poll<Result<()>> {
    let mut nothing = [0];
    let read = Pin::new(&mut *stream).poll_read(context, &mut ReadBuf::new(&mut nothing));
    match read {
        _ if stream.get_ref().1.tls13_tickets_received() > 0 => Poll::Ready(Ok(())),
        Poll::Pending => Poll::Pending,
        Poll::Ready(ended) => Poll::Ready(Err(anyhow!("HAProxy sent no ticket: {ended:?}"))),
    }
}

/// Connections per CPU second of a process that accepts them, sends `answers` answers on each, and does nothing else. An
/// attach needs two answers: the server's proof, and `SessionReady`.
async fn bare_server(answers: usize) -> Result<f64> {
    let port = host::free_port()?;
    let peer = peer::bare_server(port, answers)?;
    per_cpu_second(&[peer.pid()], CLIENTS, move |_| async move {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        if answers == 0 {
            ensure!(stream.read(&mut [0]).await? == 0, "it speaks");
        }
        stream.set_nodelay(true)?;
        for _ in 0..answers {
            stream.write_all(&REQUEST).await?;
            stream.read_exact(&mut REQUEST.clone()).await?;
        }
        Ok(true)
    })
    .await
}
