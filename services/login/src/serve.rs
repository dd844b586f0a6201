//! From accept to close: bounds on connections, deadlines, and the loop that shows the world list.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use shardkeep_daemon::Daemon;
use shardkeep_wire::{
    Message, Side, WireError,
    opcode::{self, Phase},
    payload::{Ping, SelectWorld, WorldList},
    proxy::{self, ProxyError},
    record::Writer,
};
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    time::{sleep_until, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

use crate::{
    LoginError,
    bounds::Place,
    connection::Connection,
    door::Door,
    error::Fault,
    logon::{Logon, New},
    metrics,
    select::WorldSelect,
    worlds::Worlds,
};

/// Protocol section 4.
const PREFACE_WITHIN: Duration = Duration::from_secs(5);
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(15);
/// Puzzles that one connection is given.
const PUZZLES: usize = 4;
/// Share of the connections in use above which a client is hung up on while it solves its puzzle.
const SCARCE: f64 = 0.5;
/// Protocol section 12.
const PING_AFTER: Duration = Duration::from_secs(10);
const SILENT_AFTER: Duration = Duration::from_secs(30);
/// After the accept itself fails, for example for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Part of the grace time that players have to select a world when the daemon drains.
const DRAIN_SHARE: u32 = 2;

/// Accepts players until the daemon drains, and then lets those who are here finish.
pub(crate) async fn serve(listener: TcpListener, door: Arc<Door>, daemon: &Daemon, grace: Duration) {
    let (draining, stopped) = (daemon.draining(), daemon.stopped());
    let players = TaskTracker::new();
    while let Some(accepted) = draining.run_until_cancelled(listener.accept()).await {
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Whom a balancer connects for is learnt in the task; all others are known, and refused, here.
        let proxied = door.config.trusted_balancers.contains(peer.ip());
        let place = if proxied { door.bounds.enter(peer.ip()) } else { door.bounds.admit(peer.ip()) };
        let place = match place {
            Ok(place) => place,
            Err(bound) => {
                refuse(&stream, bound);
                continue;
            }
        };
        let (door, stopped) = (door.clone(), stopped.clone());
        let drain = Drain { begun: draining.clone(), lasts: grace / DRAIN_SHARE };
        players.spawn(async move {
            let evicted = place.evicted();
            let visit = async {
                if proxied {
                    Box::pin(behind_balancer(stream, peer, place, &door, drain)).await;
                } else {
                    Box::pin(player(stream, peer, place, &door, drain)).await;
                }
            };
            let visit = evicted.run_until_cancelled(visit);
            stopped.run_until_cancelled(visit).await;
        });
    }
    drop(listener);
    players.close();
    players.wait().await;
}

/// A connection from a trusted balancer: the client behind it is who counts.
async fn behind_balancer(
    mut stream: TcpStream,
    balancer: SocketAddr,
    place: Place,
    door: &Door,
    drain: Drain,
) {
    let header = tokio::time::timeout(PREFACE_WITHIN, proxy_header(&mut stream)).await;
    let peer = match header.unwrap_or_else(|_| Err(ProxyError::Late.into())) {
        Ok(client) => client.unwrap_or(balancer),
        Err(error) => {
            metrics::ended(error.label(), error.fault().as_str());
            // A balancer's health check may well connect and go.
            debug!(%balancer, %error, "no client behind the balancer");
            return;
        }
    };
    match door.bounds.claim(place, peer.ip()) {
        Ok(place) => Box::pin(player(stream, peer, place, door, drain)).await,
        Err(bound) => refuse(&stream, bound),
    }
}

/// Whom the balancer connects for; `None`: itself.
async fn proxy_header(stream: &mut TcpStream) -> Result<Option<SocketAddr>, LoginError> {
    let mut fixed = [0; proxy::FIXED];
    let (signature, lengths) = fixed.split_at_mut(proxy::SIGNATURE.len());
    stream.read_exact(signature).await?;
    if signature != proxy::SIGNATURE {
        return Err(ProxyError::Foreign.into());
    }
    stream.read_exact(lengths).await?;
    let begin = proxy::Begin::parse(&fixed)?;
    let mut rest = [0; proxy::MAX_REST];
    let rest = &mut rest[..begin.rest()];
    stream.read_exact(rest).await?;
    Ok(begin.source(&fixed, rest)?)
}

/// Tells the client to come back, if that takes no waiting.
fn refuse(stream: &TcpStream, bound: &'static str) {
    metrics::refused(bound);
    if let Some(answer) = LoginError::Busy(bound).answer() {
        let message = Message::error_event(&answer);
        let mut out = BytesMut::new();
        let mut writer = Writer::begin(&mut out, Side::Server);
        if writer.push(&message).is_ok() {
            writer.plain();
            // Best effort, by intention.
            let _ = stream.try_write(&out);
        }
    }
}

/// When this daemon leaves: those in the handshake finish it, and all have a while to select a world.
#[derive(Clone)]
struct Drain {
    begun: CancellationToken,
    lasts: Duration,
}

impl Drain {
    async fn over(&self) {
        self.begun.cancelled().await;
        tokio::time::sleep(self.lasts).await;
    }
}

/// Why a connection ended, and the request that the last word answers.
struct End {
    error: LoginError,
    request: Option<u32>,
}

impl<E: Into<LoginError>> From<E> for End {
    fn from(error: E) -> Self {
        Self { error: error.into(), request: None }
    }
}

fn answering(request: &Message) -> impl FnOnce(LoginError) -> End + '_ {
    move |error| End { error, request: request.head.request() }
}

async fn player(stream: TcpStream, peer: SocketAddr, mut place: Place, door: &Door, drain: Drain) {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%peer, %error, "set_nodelay");
    }
    let mut connection = Connection::new(stream, peer, Instant::now());
    let Err(End { error, request }) = converse(&mut connection, &mut place, door, &drain).await;
    let (label, fault) = (error.label(), error.fault());
    metrics::ended(label, fault.as_str());
    match fault {
        Fault::Us => tracing::error!(%peer, %error, "connection ended"),
        Fault::Peer => warn!(%peer, %error, "connection ended"),
        Fault::Client | Fault::Nobody => debug!(%peer, %error, "connection ended"),
    }
    connection.close(error.answer().as_ref(), request).await;
}

/// The whole conversation. It always ends with a reason.
async fn converse(
    connection: &mut Connection,
    place: &mut Place,
    door: &Door,
    drain: &Drain,
) -> Result<std::convert::Infallible, End> {
    let deadline = tokio::time::Instant::now() + HANDSHAKE_WITHIN;
    let greeted = timeout_at(deadline, logon(connection, door)).await;
    let logged_on = greeted.unwrap_or_else(|_| Err(LoginError::Timeout("finish the handshake").into()));
    metrics::login(logged_on.as_ref().map_or_else(|end| end.error.label(), |_| "ok"));
    if let Err(End { error: LoginError::Throttled { limit, .. }, .. }) = &logged_on {
        metrics::throttled(limit);
    }
    let select = logged_on?;
    place.keep();
    world_list(connection, door, select, drain).await
}

async fn logon(connection: &mut Connection, door: &Door) -> Result<WorldSelect, End> {
    let begun = Instant::now();
    let preface = tokio::time::timeout(PREFACE_WITHIN, connection.preface(&door.preface)).await;
    let preface = preface.unwrap_or(Err(LoginError::Timeout("send a preface")))?;
    let logon = Logon::new(&preface, connection.peer().ip(), begun, begun + HANDSHAKE_WITHIN);

    let hello = greeting(connection, door, &logon).await?;
    let challenge = connection.unless_gone(Box::pin(logon.hello(door, &hello))).await;
    let (logon, reply) = challenge.map_err(answering(&hello))?;
    connection.send(&reply).await?;

    connection.enter(Phase::LoginChallenged);
    let proof = connection.receive().await?;
    let verified = connection.unless_gone(Box::pin(logon.proof(door, &proof))).await;
    let (logon, reply, suite) = verified.map_err(answering(&proof))?;
    connection.send(&reply).await?;

    connection.enter(Phase::LoginVerified);
    let (client, server) = logon.keys();
    connection.seal(suite, client, server)?;
    let finished = connection.receive().await?;
    let (select, welcome) = logon.finished(door, &finished).await.map_err(answering(&finished))?;
    connection.send(&welcome).await?;
    connection.enter(Phase::LoginWelcome);
    Ok(select)
}

/// The `Hello` that may pass: under load, one that brings the answer to a puzzle. Who has nothing else to offer than
/// wrong answers is not listened to for long, and when connections are scarce not even until the first: a solved
/// puzzle is as good on another connection.
async fn greeting(connection: &mut Connection, door: &Door, logon: &Logon<New>) -> Result<Message, End> {
    for _ in 0..PUZZLES {
        let hello = connection.receive().await?;
        let Some(puzzle) = logon.puzzle(door, &hello).map_err(answering(&hello))? else { return Ok(hello) };
        connection.send(&puzzle).await?;
        if door.bounds.load() > SCARCE {
            break;
        }
    }
    Err(LoginError::Puzzled.into())
}

/// Shows the list and its changes, and answers selections, until the client has what it came for.
async fn world_list(
    connection: &mut Connection,
    door: &Door,
    mut select: WorldSelect,
    drain: &Drain,
) -> Result<std::convert::Infallible, End> {
    let mut worlds = door.worlds.clone();
    push(connection, &mut worlds)?;
    let end = Instant::now() + door.config.connection_lives;
    let drained = drain.over();
    tokio::pin!(drained);
    loop {
        while let Some(message) = connection.next(Instant::now())? {
            answer(connection, door, &mut select, &worlds, &message).await?;
        }
        connection.flush().await?;
        let now = Instant::now();
        if now >= connection.heard() + SILENT_AFTER {
            return Err(LoginError::Timeout("say anything").into());
        }
        if now >= end {
            return Err(LoginError::Timeout("select a world").into());
        }
        if now >= connection.said() + PING_AFTER {
            connection.send(&Message::event(opcode::PING, &Ping { value: 0 })).await?;
        }
        let wake = end.min(connection.said() + PING_AFTER).min(connection.heard() + SILENT_AFTER);
        tokio::select! {
            filled = connection.fill() => filled?,
            changed = worlds.changed() => {
                changed.map_err(|_| LoginError::Internal("the world list ended"))?;
                push(connection, &mut worlds)?;
            }
            () = sleep_until(wake.into()) => {}
            () = &mut drained => return Err(LoginError::Draining.into()),
        }
    }
}

fn push(connection: &mut Connection, worlds: &mut Worlds) -> Result<(), LoginError> {
    let list: Arc<WorldList> = worlds.borrow_and_update().clone();
    metrics::world_list_pushed();
    connection.queue(&Message::event(opcode::WORLD_LIST, list.as_ref()))
}

async fn answer(
    connection: &mut Connection,
    door: &Door,
    select: &mut WorldSelect,
    worlds: &Worlds,
    message: &Message,
) -> Result<(), End> {
    let wanted: SelectWorld = message.decode().map_err(WireError::from).map_err(LoginError::from)?;
    let list = worlds.borrow().clone();
    let request = message.head.request().unwrap_or_default();
    match select.select(door, &list, wanted.world_id).await {
        Ok(offer) => connection.queue(&Message::reply(opcode::SELECT_WORLD, request, &offer))?,
        Err(error @ (LoginError::Displaced | LoginError::Banned { .. })) => {
            debug!(account = %select.account(), %error, "no longer welcome");
            return Err(answering(message)(error));
        }
        Err(error) => {
            debug!(account = %select.account(), %error, "no offer");
            if let Some(answer) = error.answer() {
                connection.queue(&Message::error_reply(request, &answer))?;
            }
        }
    }
    Ok(())
}

impl Fault {
    fn as_str(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Client => "client",
            Self::Peer => "peer",
            Self::Us => "us",
        }
    }
}
