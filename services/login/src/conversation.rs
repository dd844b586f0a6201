//! What is said on one connection, in its order: preface, handshake, and then the world list until the client has what it
//! came for. It always ends with a reason.

use std::{
    convert::Infallible,
    time::{Duration, Instant},
};

use shardkeep_lanes::Upgrade;
use shardkeep_wire::{
    Message, WireError, opcode,
    payload::{Ping, SelectWorld},
    preface::Service,
};
use tokio::time::{sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::{
    LoginError,
    connection::Connection,
    door::Door,
    handshake, logon, metrics, requests,
    select::WorldSelect,
    serve::Held,
    update,
    worlds::{self, Worlds},
};

/// Protocol section 4.
pub(crate) const PREFACE_WITHIN: Duration = Duration::from_secs(5);
/// Protocol section 12.
const PING_AFTER: Duration = Duration::from_secs(10);
pub(crate) const SILENT_AFTER: Duration = Duration::from_secs(30);
/// Section 7: how often the characters of an account are counted that has selected a world.
const RECOUNT_AFTER: Duration = Duration::from_secs(5);

/// When this daemon leaves: those in the handshake finish it, and all have a while to select a world.
#[derive(Clone)]
pub(crate) struct Drain {
    pub(crate) begun: CancellationToken,
    pub(crate) lasts: Duration,
}

impl Drain {
    async fn over(&self) {
        self.begun.cancelled().await;
        tokio::time::sleep(self.lasts).await;
    }
}

/// Why a connection ended, and the request that the last word answers.
pub(crate) struct End {
    pub(crate) error: LoginError,
    pub(crate) request: Option<u32>,
}

impl<E: Into<LoginError>> From<E> for End {
    fn from(error: E) -> Self {
        Self { error: error.into(), request: None }
    }
}

pub(crate) fn answering(request: &Message) -> impl FnOnce(LoginError) -> End + '_ {
    move |error| End { error, request: request.head.request() }
}

/// The whole conversation. It always ends with a reason. The place stays with the caller, who still has the connection to
/// close.
pub(crate) async fn converse(
    connection: &mut Connection,
    door: &Door,
    drain: &Drain,
    place: &mut Option<Held>,
    upgrade: Option<&Upgrade>,
) -> Result<Infallible, End> {
    let begun = Instant::now();
    let preface = timeout(PREFACE_WITHIN, connection.preface(&door.preface, upgrade)).await;
    let preface = preface.unwrap_or(Err(LoginError::Timeout("send a preface")));
    let (service, preface) = preface.inspect_err(|error| metrics::login(connection.lane(), error.label()))?;
    if service == Service::Update {
        // It takes a place of the update service instead.
        drop(place.take());
        return Ok(update::serve(connection, &door.patches, &drain.begun).await?);
    }
    let logged_on = Box::pin(handshake::run(connection, door, &preface, begun)).await;
    let outcome = logged_on.as_ref().map_or_else(|end| end.error.label(), |_| "ok");
    metrics::login(connection.lane(), outcome);
    if let Err(End { error: LoginError::Throttled { limit, .. }, .. }) = &logged_on {
        metrics::throttled(limit);
    }
    let select = logged_on?;
    if let Some(place) = place {
        place.keep();
    }
    world_list(connection, door, select, drain).await
}

/// Shows the list and its changes, and answers selections, until the client has what it came for.
async fn world_list(
    connection: &mut Connection,
    door: &Door,
    mut select: WorldSelect,
    drain: &Drain,
) -> Result<Infallible, End> {
    let mut worlds = door.worlds.clone();
    push(connection, &mut worlds, &select)?;
    let end = Instant::now() + door.config.connection_lives;
    let mut counted = Instant::now();
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
        if select.plays() && now >= counted + RECOUNT_AFTER {
            counted = now;
            if select.recount(door).await {
                push(connection, &mut worlds, &select)?;
                continue;
            }
        }
        let mut wake = end.min(connection.said() + PING_AFTER).min(connection.heard() + SILENT_AFTER);
        if select.plays() {
            wake = wake.min(counted + RECOUNT_AFTER);
        }
        tokio::select! {
            filled = connection.fill() => filled?,
            changed = worlds.changed() => {
                changed.map_err(|_| LoginError::Internal("the world list ended"))?;
                push(connection, &mut worlds, &select)?;
            }
            () = select.outlived() => return Err(select.passed(door).await?.into()),
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

/// Answers with an error; the connection goes on.
pub(crate) fn refuse_request(
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
