//! From accept to close: bounds on connections, deadlines, and the loop that shows the world list.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use shardkeep_auth::Binding;
use shardkeep_daemon::Daemon;
use shardkeep_lanes::{Arrival, Lane, Listener, Upgrade};
use shardkeep_wire::{
    Message, Side, WireError,
    opcode::{self, Phase},
    payload::{Ping, SelectWorld},
    preface::Service,
    proxy::ProxyError,
    record::Writer,
};
use tokio::time::{sleep_until, timeout, timeout_at};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

use crate::{
    LoginError,
    bounds::Place,
    connection::Connection,
    door::Door,
    error::Fault,
    logon::{self, Checked, Logon, New},
    metrics, register, requests,
    select::WorldSelect,
    update,
    worlds::{self, Worlds},
};

/// Protocol section 4.
const PREFACE_WITHIN: Duration = Duration::from_secs(5);
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(15);
/// Codes tried on one connection.
const CODES: usize = 3;
/// See [`evenly`].
const STEP: Duration = Duration::from_millis(5);
/// Puzzles that one connection is given.
const PUZZLES: usize = 4;
/// Share of the connections in use above which a client is hung up on while it solves its puzzle.
const SCARCE: f64 = 0.5;
/// Protocol section 12.
const PING_AFTER: Duration = Duration::from_secs(10);
pub(crate) const SILENT_AFTER: Duration = Duration::from_secs(30);
/// After the accept itself fails, for example for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Part of the grace time that players have to select a world when the daemon drains.
const DRAIN_SHARE: u32 = 2;

/// Accepts players until the daemon drains, and then lets those who are here finish.
pub(crate) async fn serve(listener: Listener, door: Arc<Door>, daemon: &Daemon, grace: Duration) {
    let (draining, stopped) = (daemon.draining(), daemon.stopped());
    let players = TaskTracker::new();
    let upgrade = listener.upgrade();
    while let Some(accepted) = draining.run_until_cancelled(listener.accept()).await {
        let arrival = match accepted {
            Ok(arrival) => arrival,
            Err(error) => {
                warn!(%error, "accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        metrics::retries(listener.retries());
        // Whom a balancer connects for is learnt in the task; all others are known, and refused, here.
        let peer = arrival.peer().ip();
        let proxied = arrival.lane() == Lane::Tcp && door.config.trusted_balancers.contains(peer);
        let place = if proxied { door.bounds.enter(peer) } else { door.bounds.admit(peer) };
        let place = match place {
            Ok(place) => place,
            Err(bound) => {
                refuse(arrival, bound);
                continue;
            }
        };
        let (door, stopped, upgrade) = (door.clone(), stopped.clone(), upgrade.clone());
        let drain = Drain { begun: draining.clone(), lasts: grace / DRAIN_SHARE };
        players.spawn(async move {
            let evicted = place.evicted();
            let visit = async {
                if proxied {
                    Box::pin(behind_balancer(arrival, place, &door, drain, upgrade.as_deref())).await;
                } else {
                    Box::pin(player(arrival, place, &door, drain, upgrade.as_deref())).await;
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
    mut arrival: Arrival,
    place: Place,
    door: &Door,
    drain: Drain,
    upgrade: Option<&Upgrade>,
) {
    let balancer = arrival.peer();
    let revealed = timeout(PREFACE_WITHIN, arrival.reveal()).await;
    let revealed: Result<(), LoginError> = revealed.unwrap_or_else(|_| Err(ProxyError::Late.into()));
    if let Err(error) = revealed {
        metrics::ended(error.label(), error.fault().as_str());
        // A balancer's health check may well connect and go.
        return debug!(%balancer, %error, "no client behind the balancer");
    }
    match door.bounds.claim(place, arrival.peer().ip()) {
        Ok(place) => Box::pin(player(arrival, place, door, drain, upgrade)).await,
        Err(bound) => refuse(arrival, bound),
    }
}

/// Tells the client to come back, if that takes no waiting.
fn refuse(arrival: Arrival, bound: &'static str) {
    metrics::refused(bound);
    if let Some(answer) = LoginError::Busy(bound).answer() {
        let message = Message::error_event(&answer);
        let mut out = BytesMut::new();
        let mut writer = Writer::begin(&mut out, Side::Server);
        if writer.push(&message).is_ok() {
            writer.plain();
            arrival.refuse(&out);
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

async fn player(arrival: Arrival, place: Place, door: &Door, drain: Drain, upgrade: Option<&Upgrade>) {
    let peer = arrival.peer();
    let opened = timeout(PREFACE_WITHIN, arrival.open()).await;
    let stream = match opened.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(stream) => stream,
        // Of QUIC: it did not get as far as a connection.
        Err(error) => {
            metrics::ended("lane", Fault::Client.as_str());
            return debug!(%peer, %error, "no connection");
        }
    };
    let mut connection = Connection::new(stream, peer, Instant::now());
    let Err(End { error, request }) = converse(&mut connection, door, &drain, place, upgrade).await;
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
    door: &Door,
    drain: &Drain,
    mut place: Place,
    upgrade: Option<&Upgrade>,
) -> Result<std::convert::Infallible, End> {
    let begun = Instant::now();
    let preface = timeout(PREFACE_WITHIN, connection.preface(&door.preface, upgrade)).await;
    let preface = preface.unwrap_or(Err(LoginError::Timeout("send a preface")));
    let (service, preface) = preface.inspect_err(|error| metrics::login(connection.lane(), error.label()))?;
    if service == Service::Update {
        // It takes a place of the update service instead.
        drop(place);
        return Ok(update::serve(connection, &door.patches, &drain.begun).await?);
    }
    let logged_on = Box::pin(enter(connection, door, &preface, begun)).await;
    let outcome = logged_on.as_ref().map_or_else(|end| end.error.label(), |_| "ok");
    metrics::login(connection.lane(), outcome);
    if let Err(End { error: LoginError::Throttled { limit, .. }, .. }) = &logged_on {
        metrics::throttled(limit);
    }
    let select = logged_on?;
    place.keep();
    world_list(connection, door, select, drain).await
}

/// From the first message to the welcome.
async fn enter(
    connection: &mut Connection,
    door: &Door,
    preface: &Binding,
    begun: Instant,
) -> Result<WorldSelect, End> {
    let deadline = (begun + HANDSHAKE_WITHIN).into();
    let greeted = timeout_at(deadline, logon(connection, door, preface, begun)).await;
    let (checked, finished) =
        greeted.unwrap_or_else(|_| Err(LoginError::Timeout("finish the handshake").into()))?;
    let last = if checked.needs_code() {
        let looking = timeout(door.config.code_within, code(connection, door, &checked, &finished));
        looking.await.unwrap_or_else(|_| Err(LoginError::Timeout("give a code").into()))?
    } else {
        finished
    };
    let (select, welcome) = checked.enter(door, &last).await.map_err(answering(&last))?;
    connection.send(&welcome).await?;
    connection.enter(Phase::LoginWelcome);
    Ok(select)
}

/// Asks for a code until it is right; the message that the welcome answers.
async fn code(
    connection: &mut Connection,
    door: &Door,
    checked: &Logon<Checked>,
    asked: &Message,
) -> Result<Message, End> {
    refuse_request(connection, asked, &LoginError::CodeNeeded)?;
    connection.enter(Phase::LoginCode);
    let mut tries = 1;
    loop {
        let given = connection.receive().await?;
        match checked.code(door, &given).await {
            Ok(()) => return Ok(given),
            Err(error @ LoginError::WrongCode) if tries < CODES => {
                refuse_request(connection, &given, &error)?;
            }
            Err(error) => return Err(answering(&given)(error)),
        }
        tries += 1;
    }
}

/// Answers with an error; the connection goes on.
fn refuse_request(
    connection: &mut Connection,
    request: &Message,
    error: &LoginError,
) -> Result<(), LoginError> {
    match error.answer() {
        Some(answer) => {
            let number = request.head.request().unwrap_or_default();
            connection.queue(&Message::error_reply(number, &answer))
        }
        None => Ok(()),
    }
}

/// Everything that does not wait for a person.
async fn logon(
    connection: &mut Connection,
    door: &Door,
    preface: &Binding,
    begun: Instant,
) -> Result<(Logon<Checked>, Message), End> {
    let logon = Logon::new(preface, connection.peer().ip(), begun, begun + HANDSHAKE_WITHIN);

    let hello = greeting(connection, door, preface, &logon).await?;
    let challenge = connection.unless_gone(Box::pin(evenly(logon.hello(door, &hello)))).await;
    let (logon, reply) = challenge.map_err(answering(&hello))?;
    connection.send(&reply).await?;

    connection.enter(Phase::LoginChallenged);
    let proof = connection.receive().await?;
    let verified = connection.unless_gone(Box::pin(evenly(logon.proof(door, &proof)))).await;
    let (logon, reply, suite) = verified.map_err(answering(&proof))?;
    connection.send(&reply).await?;

    connection.enter(Phase::LoginVerified);
    let (client, server) = logon.keys();
    connection.seal(suite, client, server)?;
    let finished = connection.receive().await?;
    let checked = logon.finished(&finished).map_err(answering(&finished))?;
    Ok((checked, finished))
}

/// Ends a step of the handshake at a whole multiple of [`STEP`] after its beginning, however it ends: what is read and
/// reckoned for an account that exists takes some microseconds more, which many attempts would show.
async fn evenly<T>(step: impl Future<Output = T>) -> T {
    let begun = tokio::time::Instant::now();
    let done = step.await;
    let steps = begun.elapsed().as_micros() / STEP.as_micros() + 1;
    sleep_until(begun + STEP * u32::try_from(steps).unwrap_or(u32::MAX)).await;
    done
}

/// The `Hello` that may pass: under load, one that brings the answer to a puzzle. Who has nothing else to offer than
/// wrong answers is not listened to for long, and when connections are scarce not even until the first: a solved
/// puzzle is as good on another connection. A client may register before it greets.
async fn greeting(
    connection: &mut Connection,
    door: &Door,
    preface: &Binding,
    logon: &Logon<New>,
) -> Result<Message, End> {
    let mut puzzles = 0;
    while puzzles < PUZZLES {
        let hello = connection.receive().await?;
        if hello.opcode == opcode::REGISTER {
            let reply = register::answer(door, logon.origin(), preface, &hello).await;
            connection.send(&reply.map_err(answering(&hello))?).await?;
            continue;
        }
        let Some(puzzle) = logon.puzzle(door, &hello).map_err(answering(&hello))? else { return Ok(hello) };
        connection.send(&puzzle).await?;
        puzzles += 1;
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
    push(connection, &mut worlds, &select)?;
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
                push(connection, &mut worlds, &select)?;
            }
            () = sleep_until(wake.into()) => {}
            () = &mut drained => return Err(LoginError::Draining.into()),
        }
    }
}

fn push(connection: &mut Connection, worlds: &mut Worlds, select: &WorldSelect) -> Result<(), LoginError> {
    let list = worlds.borrow_and_update().clone();
    metrics::world_list_pushed();
    connection.queue(&Message::event(opcode::WORLD_LIST, &worlds::seen_by(&list, select.viewer())))
}

async fn answer(
    connection: &mut Connection,
    door: &Door,
    select: &mut WorldSelect,
    worlds: &Worlds,
    message: &Message,
) -> Result<(), End> {
    match reply(door, select, worlds, message).await {
        Ok(reply) => connection.queue(&reply)?,
        Err(error @ (LoginError::Displaced | LoginError::Banned { .. })) => {
            debug!(account = %select.account(), %error, "no longer welcome");
            return Err(answering(message)(error));
        }
        Err(error @ LoginError::Wire(_)) => return Err(error.into()),
        Err(error) => {
            debug!(account = %select.account(), %error, "refused");
            refuse_request(connection, message, &error)?;
        }
    }
    Ok(())
}

async fn reply(
    door: &Door,
    select: &mut WorldSelect,
    worlds: &Worlds,
    message: &Message,
) -> Result<Message, LoginError> {
    if message.opcode != opcode::SELECT_WORLD {
        return Box::pin(requests::answer(door, select, message)).await;
    }
    let wanted: SelectWorld = message.decode().map_err(WireError::from)?;
    let list = worlds.borrow().clone();
    let offer = select.select(door, &list, wanted.world_id).await?;
    logon::answer(message, &offer)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_quick_step_takes_as_long_as_a_slower_one() {
        let begun = Instant::now();
        assert_eq!(evenly(async { 7 }).await, 7);
        assert!(begun.elapsed() >= STEP);
    }
}
