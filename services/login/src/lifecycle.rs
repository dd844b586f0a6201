//! What is said on one connection, in its order: preface, handshake, and then the world list until the client has what it
//! came for. It always ends with a reason.

use std::{
    convert::Infallible,
    time::{Duration, Instant},
};

use shardkeep_connection::{Connection, ConnectionError};
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
    context::LoginContext,
    handshake, logon, metrics, requests,
    select::WorldSelect,
    serve::ConnectionSlot,
    worlds::{self, Worlds},
};

/// Protocol section 4.
pub(crate) const PREFACE_TIMEOUT: Duration = Duration::from_secs(5);
/// Protocol section 12.
const PING_INTERVAL: Duration = Duration::from_secs(10);
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Section 7: how often the characters of an account are counted that has selected a world.
const RECOUNT_INTERVAL: Duration = Duration::from_secs(5);

/// When this daemon leaves: those in the handshake finish it, and all have a while to select a world.
#[derive(Clone)]
pub(crate) struct Drain {
    pub(crate) started: CancellationToken,
    pub(crate) time_limit: Duration,
}

impl Drain {
    async fn expired(&self) {
        self.started.cancelled().await;
        tokio::time::sleep(self.time_limit).await;
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

pub(crate) fn reply_to(request: &Message) -> impl FnOnce(LoginError) -> End + '_ {
    move |error| End { error, request: request.head.request() }
}

/// The whole conversation. It always ends with a reason. The place stays with the caller, who still has the connection to
/// close.
pub(crate) async fn serve_connection(
    connection: &mut Connection,
    context: &LoginContext,
    drain: &Drain,
    slot: &mut Option<ConnectionSlot>,
    upgrade: Option<&Upgrade>,
) -> Result<Infallible, End> {
    let started = Instant::now();
    let preface = timeout(PREFACE_TIMEOUT, connection.preface(&context.prefaces, upgrade)).await;
    let preface = preface.unwrap_or(Err(ConnectionError::Timeout("send a preface")));
    let (service, preface) = preface.inspect_err(|error| metrics::login(connection.lane(), error.label()))?;
    if service == Service::Update {
        // It takes a place of the update service instead.
        drop(slot.take());
        return Ok(shardkeep_update::serve(connection, &context.patches, &drain.started).await?);
    }
    let logged_on = Box::pin(handshake::run(connection, context, &preface, started)).await;
    let outcome = logged_on.as_ref().map_or_else(|end| end.error.label(), |_| "ok");
    metrics::login(connection.lane(), outcome);
    if let Err(End { error: LoginError::Throttled { limit, .. }, .. }) = &logged_on {
        metrics::throttled(limit);
    }
    let select = logged_on?;
    if let Some(slot) = slot {
        slot.mark_authenticated();
    }
    world_list(connection, context, select, drain).await
}

/// Shows the list and its changes, and answers selections, until the client has what it came for.
async fn world_list(
    connection: &mut Connection,
    context: &LoginContext,
    mut select: WorldSelect,
    drain: &Drain,
) -> Result<Infallible, End> {
    let mut worlds = context.worlds.clone();
    push_world_list(connection, &mut worlds, &select)?;
    let end = Instant::now() + context.config.connection_lifetime;
    let mut last_recount = Instant::now();
    let drained = drain.expired();
    tokio::pin!(drained);
    loop {
        while let Some(message) = connection.next(Instant::now())? {
            answer(connection, context, &mut select, &worlds, &message).await?;
        }
        connection.flush().await?;
        let now = Instant::now();
        if now >= connection.last_received() + IDLE_TIMEOUT {
            return Err(ConnectionError::Timeout("say anything").into());
        }
        if now >= end {
            return Err(ConnectionError::Timeout("select a world").into());
        }
        if now >= connection.last_sent() + PING_INTERVAL {
            connection.send(&Message::event(opcode::PING, &Ping { value: 0 })).await?;
        }
        if select.has_selected_world() && now >= last_recount + RECOUNT_INTERVAL {
            last_recount = now;
            if select.recount_characters(context).await {
                push_world_list(connection, &mut worlds, &select)?;
                continue;
            }
        }
        let mut wake =
            end.min(connection.last_sent() + PING_INTERVAL).min(connection.last_received() + IDLE_TIMEOUT);
        if select.has_selected_world() {
            wake = wake.min(last_recount + RECOUNT_INTERVAL);
        }
        tokio::select! {
            filled = connection.fill() => filled?,
            changed = worlds.changed() => {
                changed.map_err(|_| LoginError::Internal("the world list ended"))?;
                push_world_list(connection, &mut worlds, &select)?;
            }
            () = select.superseded() => return Err(select.end_superseded(context).await?.into()),
            () = sleep_until(wake.into()) => {}
            () = &mut drained => return Err(LoginError::Draining.into()),
        }
    }
}

fn push_world_list(
    connection: &mut Connection,
    worlds: &mut Worlds,
    select: &WorldSelect,
) -> Result<(), LoginError> {
    let list = worlds.borrow_and_update().clone();
    metrics::world_list_pushed();
    connection.queue(&Message::event(opcode::WORLD_LIST, &worlds::list_for(&list, select.viewer())))
}

async fn answer(
    connection: &mut Connection,
    context: &LoginContext,
    select: &mut WorldSelect,
    worlds: &Worlds,
    message: &Message,
) -> Result<(), End> {
    match reply(context, select, worlds, message).await {
        Ok(reply) => connection.queue(&reply)?,
        Err(error @ (LoginError::Displaced | LoginError::Banned { .. })) => {
            debug!(account = %select.account(), %error, "no longer welcome");
            return Err(reply_to(message)(error));
        }
        Err(error @ LoginError::Connection(_)) => return Err(error.into()),
        Err(error) => {
            debug!(account = %select.account(), %error, "refused");
            refuse_request(connection, message, &error)?;
        }
    }
    Ok(())
}

async fn reply(
    context: &LoginContext,
    select: &mut WorldSelect,
    worlds: &Worlds,
    message: &Message,
) -> Result<Message, LoginError> {
    if message.opcode != opcode::SELECT_WORLD {
        return Box::pin(requests::answer(context, select, message)).await;
    }
    let wanted: SelectWorld = message.decode().map_err(WireError::from)?;
    let list = worlds.borrow().clone();
    let offer = select.select(context, &list, wanted.world_id).await?;
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
