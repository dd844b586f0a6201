//! From accept to close: bounds on connections, deadlines, and the loop that shows the world list.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use shardkeep_auth::Binding;
use shardkeep_daemon::Daemon;
use shardkeep_lanes::{Arrival, Listener, Upgrade};
use shardkeep_wire::{
    Message, Side, WireError,
    opcode::{self, Phase},
    payload::{Ping, SelectWorld},
    preface::Service,
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
    limits::Origin,
    logon::{self, Checked, Logon},
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
        let place = match door.bounds.admit(Origin::of(arrival.peer().ip())) {
            Ok(place) => place,
            Err(bound) => {
                metrics::refused(bound);
                refuse(arrival, bound);
                continue;
            }
        };
        let (door, stopped, upgrade) = (door.clone(), stopped.clone(), upgrade.clone());
        let drain = Drain { begun: draining.clone(), lasts: grace / DRAIN_SHARE };
        players.spawn(async move {
            stopped.run_until_cancelled(player(arrival, &door, drain, place, upgrade.as_deref())).await;
        });
    }
    drop(listener);
    players.close();
    players.wait().await;
}

/// Tells the client to come back, if that takes no waiting.
fn refuse(arrival: Arrival, bound: &'static str) {
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

async fn player(arrival: Arrival, door: &Door, drain: Drain, place: Place, upgrade: Option<&Upgrade>) {
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
    place: Place,
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
    let logon = Logon::new(preface, connection.peer().ip(), begun);

    let mut hello = connection.receive().await?;
    while hello.opcode == opcode::REGISTER {
        let reply =
            register::answer(door, logon.origin(), preface, &hello).await.map_err(answering(&hello))?;
        connection.send(&reply).await?;
        hello = connection.receive().await?;
    }
    let (logon, reply) = logon.hello(door, &hello).await.map_err(answering(&hello))?;
    connection.send(&reply).await?;

    connection.enter(Phase::LoginChallenged);
    let proof = connection.receive().await?;
    let (logon, reply, suite) = logon.proof(door, &proof).await.map_err(answering(&proof))?;
    connection.send(&reply).await?;

    connection.enter(Phase::LoginVerified);
    let (client, server) = logon.keys();
    connection.seal(suite, client, server)?;
    let finished = connection.receive().await?;
    let checked = logon.finished(&finished).map_err(answering(&finished))?;
    Ok((checked, finished))
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
