//! A connection that carries a session: reads and judges the client's messages, and writes what is due. Everything that is
//! due at once is sealed into as few records as possible and written at once.

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use metrics::{counter, gauge};
use parking_lot::MutexGuard;
use shardkeep_link::ClientView;
use shardkeep_types::{Epoch, GroupKey, SessionId};
use shardkeep_wire::{
    Message, opcode,
    payload::{Error, KeyUpdate},
};
use tokio::time::{Sleep, sleep_until, timeout};
use tracing::debug;

use super::{
    datagrams::Datagrams,
    handshake::Established,
    wire::{AfterRecord, CLOSE_TIMEOUT, SealedStream, close_code},
};
use crate::{
    app::App,
    domain::{
        costs::{COSTS, CostSample},
        session::{Deliver, Ending, Session, State},
    },
    error::ConnectionError,
    metrics::{FAULTS, KEY_UPDATES, LANES},
};
use shardkeep_wire::payload::ErrorCode;

/// Sealed bytes beyond which nothing more is sealed until the socket takes some. Unsealed state can still be superseded.
const SEAL_AHEAD: usize = 64 << 10;
/// The server sends a ping when it has sent nothing for this long.
const PING_AFTER: Duration = Duration::from_secs(10);
/// A connection gives back memory when neither side has sent anything for this long.
const QUIET_AFTER: Duration = Duration::from_secs(2);

/// Why a connection is over.
enum CloseReason {
    /// Another connection carries the session now.
    Replaced,
    Ended(Ending),
    Draining,
    /// The client closed it, it broke, or it was silent for too long.
    Lost,
    Fault(ConnectionError),
}

impl<E: Into<ConnectionError>> From<E> for CloseReason {
    fn from(error: E) -> Self {
        match error.into() {
            ConnectionError::Io(_) => Self::Lost,
            error => Self::Fault(error),
        }
    }
}

/// Carries the session until the connection or the session is over.
///
/// The future lives as long as the connection, and there are many of them, so it holds as little as possible.
pub(super) async fn serve(mut established: Box<Established>) {
    established.wire.rest();
    gauge!(LANES, "lane" => established.wire.lane().as_str()).increment(1.0);
    let reason = SessionLoop::new(&mut established).carry().await;
    gauge!(LANES, "lane" => established.wire.lane().as_str()).decrement(1.0);
    if let Some(closing) = end_connection(*established, reason) {
        closing.await;
    }
}

/// The connection is over: leaves the session, and returns what tells the client why, if it is to be told.
fn end_connection(
    Established { wire, attached }: Established,
    reason: CloseReason,
) -> Option<Pin<Box<impl Future<Output = ()>>>> {
    debug!(session = %attached.session().id(), reason = reason.label(), "connection over");
    if matches!(reason, CloseReason::Lost) {
        return None;
    }
    Some(Box::pin(close(wire, closing_error(reason))))
}

fn closing_error(reason: CloseReason) -> Option<Error> {
    match reason {
        CloseReason::Ended(Ending::Over { code, detail }) => Some(Error::of(code, detail)),
        CloseReason::Draining => {
            Some(Error::of(ErrorCode::Draining, "this gateway is leaving; resume elsewhere"))
        }
        CloseReason::Fault(error) => {
            counter!(FAULTS, "label" => error.label()).increment(1);
            error.answer()
        }
        CloseReason::Ended(_) | CloseReason::Replaced | CloseReason::Lost => None,
    }
}

async fn close(mut wire: SealedStream, error: Option<Error>) {
    let code = close_code(error.as_ref().map(Error::code));
    if let Some(error) = error {
        let message = Message::error_event(&error).to_bytes();
        let _ = timeout(CLOSE_TIMEOUT, wire.send(&message)).await;
    }
    wire.close(code).await;
}

impl CloseReason {
    fn label(&self) -> &'static str {
        match self {
            Self::Replaced => "replaced",
            Self::Ended(ending) => ending.label(),
            Self::Draining => "leaving",
            Self::Lost => "lost",
            Self::Fault(error) => error.label(),
        }
    }
}

/// Resets the timer only to an earlier time. A later deadline is found when the timer fires, so that a busy connection
/// does not touch the runtime's timers.
fn reset_if_earlier(timer: Pin<&mut Sleep>, due: Instant) {
    if timer.is_elapsed() || tokio::time::Instant::from(due) < timer.deadline() {
        timer.reset(due.into());
    }
}

struct SessionLoop<'a> {
    app: &'a App,
    session: &'a Arc<Session>,
    connection: u64,
    wire: &'a mut SealedStream,
    timers: Timers,
}

/// The way to backends for a session's messages. Used under the session's lock, so that messages keep their order.
struct Backends<'a> {
    app: &'a App,
    session: SessionId,
}

impl Deliver for Backends<'_> {
    fn deliver(&self, instance: &str, epoch: Epoch, message: ClientView<'_>) -> bool {
        self.app.links().get(instance).is_some_and(|link| link.deliver_one(self.session, epoch, message))
    }
}

/// The result of sealing.
struct FillOutcome {
    /// Nothing is left to be sealed.
    all: bool,
    /// Groups whose keyframe the client needs now.
    stale: Vec<GroupKey>,
    /// When the session has something to do although nothing wakes the connection.
    deadline: Option<Instant>,
}

/// Why a waiting connection continues.
enum WakeReason {
    Readable(io::Result<()>),
    Writable,
    Notified,
    TimerElapsed,
}

impl<'a> SessionLoop<'a> {
    fn new(Established { wire, attached }: &'a mut Established) -> Self {
        let (app, session, connection) = (attached.app(), attached.session(), attached.connection());
        Self { app, session, connection, wire, timers: Timers::new(app) }
    }

    async fn carry(mut self) -> CloseReason {
        let mut timer = pin!(sleep_until(self.timers.next(None).into()));
        // The handshake may have read more records already.
        let mut wake_reason = WakeReason::Notified;
        loop {
            match self.drive(&wake_reason) {
                Ok(due) => reset_if_earlier(timer.as_mut(), due),
                Err(reason) => return reason,
            }
            wake_reason = poll_fn(|cx| self.poll_wake(timer.as_mut(), cx)).await;
        }
    }

    /// Polls everything that the connection waits for, without a future for each.
    fn poll_wake(&self, timer: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Poll<WakeReason> {
        if self.session.waker().poll(self.connection, cx).is_ready() {
            return Poll::Ready(WakeReason::Notified);
        }
        if let Poll::Ready(ready) = self.wire.poll_readable(cx) {
            return Poll::Ready(WakeReason::Readable(ready));
        }
        if self.wire.unwritten() > 0 && self.wire.poll_writable(cx).is_ready() {
            return Poll::Ready(WakeReason::Writable);
        }
        timer.poll(cx).map(|()| WakeReason::TimerElapsed)
    }

    /// Reads and writes what there is; returns when to continue if nothing wakes the connection.
    fn drive(&mut self, wake_reason: &WakeReason) -> Result<Instant, CloseReason> {
        let now = Instant::now();
        match wake_reason {
            WakeReason::Readable(Err(_)) => return Err(CloseReason::Lost),
            WakeReason::TimerElapsed => self.on_timer(now)?,
            // Read before writing, so that output cannot starve input.
            WakeReason::Readable(Ok(())) | WakeReason::Writable | WakeReason::Notified => {
                self.read_records(now)?;
            }
        }
        let deadline = self.write_due(now)?;
        // Before the wait: a gateway that closes later wakes the connection.
        if self.app.is_closing() {
            return Err(CloseReason::Draining);
        }
        if self.wire.unwritten() > 0 {
            // The connection is woken when the socket takes more.
            return Ok(self.timers.idle_deadline());
        }
        let due = self.timers.next(deadline);
        let due_repeat = self.wire.datagrams().and_then(|(datagrams, _)| datagrams.deadline());
        Ok(due_repeat.map_or(due, |at| at.min(due)))
    }

    /// The timer has fired.
    fn on_timer(&mut self, now: Instant) -> Result<(), CloseReason> {
        if self.timers.idle_expired(now) {
            return Err(CloseReason::Lost);
        }
        {
            let mut state = self.session.lock();
            if state.has_due_input(now) && state.is_attached_to(self.connection) {
                let backends = Backends { app: self.app, session: self.session.id() };
                self.app.routes().with(|ranges| state.deliver_delayed(ranges, now, &backends));
            }
        }
        if self.timers.becomes_quiet(now) {
            self.wire.rest();
            self.session.lock().rest();
        }
        Ok(())
    }

    /// Reads the client's records.
    fn read_records(&mut self, now: Instant) -> Result<(), CloseReason> {
        let Self { app, session, connection, wire, timers } = self;
        let open = wire.read(|record| {
            timers.received(now);
            receive_record(app, session, *connection, record, now)
        })?;
        if open { Ok(()) } else { Err(CloseReason::Lost) }
    }

    /// Seals and writes what is due, as far as the socket takes it. Returns when an acknowledgement is due.
    fn write_due(&mut self, now: Instant) -> Result<Option<Instant>, CloseReason> {
        self.wire.borrow_buffer();
        let sent = self.seal_and_write(now);
        self.wire.release_buffer();
        sent
    }

    fn seal_and_write(&mut self, now: Instant) -> Result<Option<Instant>, CloseReason> {
        self.wire.write()?;
        loop {
            if self.wire.unwritten() > 0 {
                // The socket wakes the connection. Until then the session's queue bounds and supersedes.
                return match self.state()?.ended() {
                    Some(ending) => Err(CloseReason::Ended(ending.clone())),
                    None => Ok(None),
                };
            }
            let mut sample = COSTS.sample();
            let filled = self.fill(now, sample.as_mut())?;
            self.wire.write()?;
            sample.into_iter().for_each(|sample| COSTS.charge(sample));
            if !filled.stale.is_empty() {
                self.app.with_groups(|groups| ((), groups.resend(self.session, filled.stale)));
            } else if filled.all && self.wire.unwritten() == 0 {
                return Ok(filled.deadline);
            }
        }
    }

    /// The session's state, if this connection still carries it. Later notifications wake the connection again.
    fn state(&self) -> Result<MutexGuard<'a, State>, CloseReason> {
        let session = self.session;
        let state = session.lock();
        if !state.is_attached_to(self.connection) {
            return Err(CloseReason::Replaced);
        }
        session.waker().clear();
        Ok(state)
    }

    /// Moves what is due into sealed records.
    fn fill(
        &mut self,
        now: Instant,
        mut sample: Option<&mut CostSample>,
    ) -> Result<FillOutcome, CloseReason> {
        let mut state = self.state()?;
        state.queue_transport(now, self.timers.ping_due(now));
        if let Some((datagrams, stream)) = self.wire.datagrams() {
            if state.divert_lossy(Datagrams::carry, |message| datagrams.send(stream, message, now)) {
                self.timers.sent(now);
            }
            if let Some(last) = datagrams.due_repeat(now) {
                state.control(last);
            }
        }
        while state.has_output() && self.wire.unwritten() < SEAL_AHEAD {
            if !self.wire.append(|record| state.fill(record, sample.as_deref_mut()))? {
                break;
            }
            self.timers.sent(now);
            if self.wire.key_update_due() {
                self.update_key(now)?;
            }
        }
        if self.timers.key_due(now) {
            self.update_key(now)?;
        }
        if let Some(ending) = state.ended() {
            return Err(CloseReason::Ended(ending.clone()));
        }
        Ok(FillOutcome {
            all: self.wire.unwritten() < SEAL_AHEAD,
            stale: state.take_stale(now),
            deadline: state.deadline(),
        })
    }

    fn update_key(&mut self, now: Instant) -> Result<(), CloseReason> {
        let message = Message::event(opcode::KEY_UPDATE, &KeyUpdate {});
        self.wire.append(|record| {
            // A new record always has room.
            let _ = record.push(&message);
        })?;
        self.wire.server_key_updated()?;
        if let Some((datagrams, _)) = self.wire.datagrams() {
            datagrams.update_key();
        }
        counter!(KEY_UPDATES, "side" => "server").increment(1);
        self.timers.key_since = now;
        Ok(())
    }
}

/// Handles one record of the client.
fn receive_record(
    app: &App,
    session: &Arc<Session>,
    connection: u64,
    record: &[u8],
    now: Instant,
) -> Result<AfterRecord, CloseReason> {
    let outputs = {
        let mut state = session.lock();
        if !state.is_attached_to(connection) {
            return Err(CloseReason::Replaced);
        }
        let backends = Backends { app, session: session.id() };
        app.routes()
            .with(|ranges| state.receive(record, ranges, now, &backends))
            .map_err(ConnectionError::from)?
    };
    outputs.sample.into_iter().for_each(|sample| COSTS.charge(sample));
    if outputs.logout {
        app.end(session, Ending::new(ErrorCode::LoggedOut, "as asked"));
    }
    if outputs.key_update {
        counter!(KEY_UPDATES, "side" => "client").increment(1);
        return Ok(AfterRecord::UpdateKey);
    }
    Ok(AfterRecord::Continue)
}

/// When each side did something last.
struct Timers {
    idle: Duration,
    key_update: Duration,
    received: Instant,
    sent: Instant,
    key_since: Instant,
    quiet: bool,
}

impl Timers {
    /// Starts quiet: a client that has just attached often waits in a queue.
    fn new(app: &App) -> Self {
        let now = Instant::now();
        let (idle, key_update) = (app.config().idle, app.config().key_update);
        Self { idle, key_update, received: now, sent: now, key_since: now, quiet: true }
    }

    fn received(&mut self, now: Instant) {
        (self.received, self.quiet) = (now, false);
    }

    fn sent(&mut self, now: Instant) {
        (self.sent, self.quiet) = (now, false);
    }

    fn idle_expired(&self, now: Instant) -> bool {
        now >= self.idle_deadline()
    }

    /// When the client has been silent for too long.
    fn idle_deadline(&self) -> Instant {
        self.received + self.idle
    }

    /// True once each time that both sides have become silent.
    fn becomes_quiet(&mut self, now: Instant) -> bool {
        let becomes = !self.quiet && now >= self.quiet_at();
        self.quiet |= becomes;
        becomes
    }

    fn quiet_at(&self) -> Instant {
        self.received.max(self.sent) + QUIET_AFTER
    }

    fn ping_due(&self, now: Instant) -> bool {
        now >= self.sent + PING_AFTER
    }

    fn key_due(&self, now: Instant) -> bool {
        now >= self.key_since + self.key_update
    }

    /// When something is due if nothing wakes the connection.
    fn next(&self, acknowledge: Option<Instant>) -> Instant {
        let quiet = (!self.quiet).then(|| self.quiet_at());
        let (ping, key) = (self.sent + PING_AFTER, self.key_since + self.key_update);
        [acknowledge, quiet].into_iter().flatten().fold(self.idle_deadline().min(ping).min(key), Instant::min)
    }
}
