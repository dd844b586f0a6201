//! A connection that carries a session: reads and judges what the client says, writes what is due. Everything due
//! at once is sealed into as few records as it fits in and written once.

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
    payload::{Ack, Error, KeyUpdate, Ping},
};
use tokio::time::{Sleep, sleep_until, timeout};
use tracing::debug;

use super::{
    Datagrams,
    handshake::Established,
    wire::{AfterRecord, SealedStream},
};
use crate::{
    core::{AttachedSession, Core},
    costs::{COSTS, CostSample},
    error::ConnectionError,
    metrics::{FAULTS, KEY_UPDATES, LANES},
    session::{Deliver, Ending, Inner, Session},
};
use shardkeep_wire::payload::ErrorCode;

/// Sealed bytes beyond which the socket is waited for before more is sealed; what waits can still be superseded.
const SEAL_AHEAD: usize = 64 << 10;
/// The server pings a connection on which it has said nothing for so long.
const PING_AFTER: Duration = Duration::from_secs(10);
/// A connection on which neither side has said anything for so long needs little memory until one does.
const QUIET_AFTER: Duration = Duration::from_secs(2);
/// A client that is told why its connection closes has so long to take it.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a connection is over.
enum CloseReason {
    /// The session is carried by another connection now.
    Replaced,
    Ended(Ending),
    Draining,
    /// Hung up, broken or silent.
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
/// The future lives as long as the session is played, so what it holds is kept small: what is needed later is not in it,
/// and nothing is in it twice.
pub(super) async fn serve(mut established: Box<Established>) {
    established.wire.rest();
    gauge!(LANES, "lane" => established.wire.lane().as_str()).increment(1.0);
    let reason = SessionLoop::new(&mut established).carry().await;
    gauge!(LANES, "lane" => established.wire.lane().as_str()).decrement(1.0);
    if let Some(closing) = end_connection(*established, reason) {
        let _ = timeout(CLOSE_TIMEOUT, closing).await;
    }
}

/// The connection is over: the session is left, and the client told why, if it is to hear that.
fn end_connection(
    Established { wire, attached }: Established,
    reason: CloseReason,
) -> Option<Pin<Box<impl Future<Output = ()>>>> {
    debug!(session = %attached.session.id, reason = reason.label(), "connection over");
    let error = closing_error(reason)?;
    Some(Box::pin(send_closing_error(wire, error)))
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

async fn send_closing_error(mut wire: SealedStream, error: Error) {
    let _ = wire.send(&Message::error_event(&error).to_bytes()).await;
    wire.close().await;
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

/// Moves the timer forward only: what is due later than it stands at is seen when it has rung. So a busy connection
/// leaves the runtime's timers alone.
fn reset_if_earlier(timer: Pin<&mut Sleep>, due: Instant) {
    if timer.is_elapsed() || tokio::time::Instant::from(due) < timer.deadline() {
        timer.reset(due.into());
    }
}

struct SessionLoop<'a> {
    core: &'a Core,
    session: &'a Arc<Session>,
    connection: u64,
    wire: &'a mut SealedStream,
    timers: Timers,
}

/// The way to backends for what a session's client says. Used under the session's lock, so that nothing overtakes it.
struct Backends<'a> {
    core: &'a Core,
    session: SessionId,
}

impl Deliver for Backends<'_> {
    fn deliver(&self, instance: &str, epoch: Epoch, message: ClientView<'_>) -> bool {
        self.core.links.get(instance).is_some_and(|link| link.deliver_one(self.session, epoch, message))
    }
}

/// What sealing has left.
struct FillOutcome {
    /// Nothing waits to be sealed.
    all: bool,
    /// Groups whose keyframe the client needs now.
    stale: Vec<GroupKey>,
    /// When an acknowledgement is due.
    acknowledge: Option<Instant>,
}

/// What happened while the connection waited.
enum WakeReason {
    Readable(io::Result<()>),
    Writable,
    Notified,
    TimerElapsed,
}

impl<'a> SessionLoop<'a> {
    fn new(Established { wire, attached }: &'a mut Established) -> Self {
        let AttachedSession { core, session, connection } = attached;
        Self { core, session, connection: *connection, wire, timers: Timers::new(core) }
    }

    async fn carry(mut self) -> CloseReason {
        let mut timer = pin!(sleep_until(self.timers.next(None).into()));
        // There may be records that the handshake has read already.
        let mut wake_reason = WakeReason::Notified;
        loop {
            match self.drive(&wake_reason) {
                Ok(due) => reset_if_earlier(timer.as_mut(), due),
                Err(reason) => return reason,
            }
            wake_reason = poll_fn(|cx| self.poll_wake(timer.as_mut(), cx)).await;
        }
    }

    /// Waits without a future for each thing that it waits for.
    fn poll_wake(&self, timer: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Poll<WakeReason> {
        if self.session.waker.poll(self.connection, cx).is_ready() {
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

    /// Does what there is to do; returns when something is due though nobody calls.
    fn drive(&mut self, wake_reason: &WakeReason) -> Result<Instant, CloseReason> {
        let now = Instant::now();
        match wake_reason {
            WakeReason::Readable(Err(_)) => return Err(CloseReason::Lost),
            WakeReason::TimerElapsed => self.on_timer(now)?,
            // Whatever woke it: what the client has said goes first, so that nobody can talk it down. That costs
            // nothing if it has said nothing.
            WakeReason::Readable(Ok(())) | WakeReason::Writable | WakeReason::Notified => {
                self.read_records(now)?
            }
        }
        let acknowledge = self.write_due(now)?;
        // Before the wait: who leaves later calls.
        if self.core.is_closing() {
            return Err(CloseReason::Draining);
        }
        if self.wire.unwritten() > 0 {
            // Nothing can be said before the socket takes more, and that wakes.
            return Ok(self.timers.idle_deadline());
        }
        let due = self.timers.next(acknowledge);
        let due_repeat = self.wire.datagrams().and_then(|(datagrams, _)| datagrams.deadline());
        Ok(due_repeat.map_or(due, |at| at.min(due)))
    }

    /// The timer has rung.
    fn on_timer(&mut self, now: Instant) -> Result<(), CloseReason> {
        if self.timers.idle_expired(now) {
            return Err(CloseReason::Lost);
        }
        if self.timers.becomes_quiet(now) {
            self.wire.rest();
            self.session.lock().rest();
        }
        Ok(())
    }

    /// Takes in what the client has said.
    fn read_records(&mut self, now: Instant) -> Result<(), CloseReason> {
        let Self { core, session, connection, wire, timers } = self;
        let open = wire.read(|record| {
            timers.received(now);
            receive_record(core, session, *connection, record, now)
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
                // Woken again by the socket. Until then the session's own queue bounds and supersedes.
                return match &self.inner()?.ended {
                    Some(ending) => Err(CloseReason::Ended(ending.clone())),
                    None => Ok(None),
                };
            }
            let mut sample = COSTS.sample();
            let filled = self.fill(now, sample.as_mut())?;
            self.wire.write()?;
            sample.into_iter().for_each(|sample| COSTS.charge(sample));
            if !filled.stale.is_empty() {
                self.core.with_groups(|groups| ((), groups.resend(self.session, filled.stale)));
            } else if filled.all && self.wire.unwritten() == 0 {
                return Ok(filled.acknowledge);
            }
        }
    }

    /// The session, if this connection still carries it. What is called from now on wakes the connection again.
    fn inner(&self) -> Result<MutexGuard<'a, Inner>, CloseReason> {
        let session = self.session;
        let inner = session.lock();
        if !inner.is_attached_to(self.connection) {
            return Err(CloseReason::Replaced);
        }
        session.waker.clear();
        Ok(inner)
    }

    /// Moves what is due into sealed records.
    fn fill(
        &mut self,
        now: Instant,
        mut sample: Option<&mut CostSample>,
    ) -> Result<FillOutcome, CloseReason> {
        let mut inner = self.inner()?;
        if inner.inbox.should_send_ack(now, !inner.out.is_empty()) {
            let received = inner.inbox.acknowledge();
            inner.out.control(Message::event(opcode::ACK, &Ack { received }).to_bytes());
        }
        if self.timers.ping_due(now) && inner.out.is_empty() {
            inner.out.control(Message::event(opcode::PING, &Ping { value: 0 }).to_bytes());
        }
        if let Some((datagrams, stream)) = self.wire.datagrams() {
            if inner.out.divert_lossy(Datagrams::carry, |message| datagrams.send(stream, message, now)) {
                self.timers.sent(now);
            }
            if let Some(last) = datagrams.due_repeat(now) {
                inner.out.control(last);
            }
        }
        while !inner.out.is_empty() && self.wire.unwritten() < SEAL_AHEAD {
            if !self.wire.append(|record| inner.out.fill(record, sample.as_deref_mut()))? {
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
        if let Some(ending) = &inner.ended {
            return Err(CloseReason::Ended(ending.clone()));
        }
        Ok(FillOutcome {
            all: self.wire.unwritten() < SEAL_AHEAD,
            stale: inner.out.take_stale(),
            acknowledge: inner.inbox.deadline(),
        })
    }

    fn update_key(&mut self, now: Instant) -> Result<(), CloseReason> {
        let message = Message::event(opcode::KEY_UPDATE, &KeyUpdate {});
        self.wire.append(|record| {
            // A record of its own always has room.
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

/// Takes in one record of the client's.
fn receive_record(
    core: &Core,
    session: &Arc<Session>,
    connection: u64,
    record: &[u8],
    now: Instant,
) -> Result<AfterRecord, CloseReason> {
    let outputs = {
        let mut inner = session.lock();
        if !inner.is_attached_to(connection) {
            return Err(CloseReason::Replaced);
        }
        let backends = Backends { core, session: session.id };
        let ranges = core.ranges.read();
        inner.receive(record, &ranges, now, &backends).map_err(ConnectionError::from)?
    };
    outputs.sample.into_iter().for_each(|sample| COSTS.charge(sample));
    if outputs.logout {
        core.end(session, Ending::new(ErrorCode::LoggedOut, "as asked"));
    }
    if outputs.key_update {
        counter!(KEY_UPDATES, "side" => "client").increment(1);
        return Ok(AfterRecord::UpdateKey);
    }
    Ok(AfterRecord::Continue)
}

/// When what was last done.
struct Timers {
    idle: Duration,
    key_update: Duration,
    received: Instant,
    sent: Instant,
    key_since: Instant,
    quiet: bool,
}

impl Timers {
    /// Starts quiet: who has just attached often waits in a queue.
    fn new(core: &Core) -> Self {
        let now = Instant::now();
        let (idle, key_update) = (core.config.idle, core.config.key_update);
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

    /// True once for each time that both sides have been silent.
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

    /// When something is due though nobody calls.
    fn next(&self, acknowledge: Option<Instant>) -> Instant {
        let quiet = (!self.quiet).then(|| self.quiet_at());
        let (ping, key) = (self.sent + PING_AFTER, self.key_since + self.key_update);
        [acknowledge, quiet].into_iter().flatten().fold(self.idle_deadline().min(ping).min(key), Instant::min)
    }
}
