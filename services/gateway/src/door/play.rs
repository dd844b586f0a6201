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
use shardkeep_cluster::link::ClientView;
use shardkeep_types::{Epoch, GroupKey, SessionId};
use shardkeep_wire::{
    Message, opcode,
    payload::{Ack, Error, KeyUpdate, Ping},
};
use tokio::time::{Sleep, sleep_until, timeout};
use tracing::debug;

use super::{
    Datagrams,
    handshake::Playing,
    wire::{Sealed, Then},
};
use crate::{
    core::{Carried, Core},
    costs::{Bill, COSTS},
    error::DoorError,
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
const FAREWELL: Duration = Duration::from_secs(2);

/// Why a connection is over.
enum Stop {
    /// The session is carried by another connection now.
    Replaced,
    Ended(Ending),
    Leaving,
    /// Hung up, broken or silent.
    Lost,
    Fault(DoorError),
}

impl<E: Into<DoorError>> From<E> for Stop {
    fn from(error: E) -> Self {
        match error.into() {
            DoorError::Io(_) => Self::Lost,
            error => Self::Fault(error),
        }
    }
}

/// Carries the session until the connection or the session is over.
///
/// The future lives as long as the session is played, so what it holds is kept small: what is needed later is not in it,
/// and nothing is in it twice.
pub(super) async fn play(mut playing: Box<Playing>) {
    playing.wire.rest();
    gauge!(LANES, "lane" => playing.wire.lane().as_str()).increment(1.0);
    let stop = Carrier::new(&mut playing).carry().await;
    gauge!(LANES, "lane" => playing.wire.lane().as_str()).decrement(1.0);
    if let Some(farewell) = part(*playing, stop) {
        let _ = timeout(FAREWELL, farewell).await;
    }
}

/// The connection is over: the session is left, and the client told why, if it is to hear that.
fn part(Playing { wire, carried }: Playing, stop: Stop) -> Option<Pin<Box<impl Future<Output = ()>>>> {
    debug!(session = %carried.session.id, stop = stop.label(), "connection over");
    let error = last_word(stop)?;
    Some(Box::pin(say_farewell(wire, error)))
}

fn last_word(stop: Stop) -> Option<Error> {
    match stop {
        Stop::Ended(Ending::Over { code, detail }) => Some(Error::of(code, detail)),
        Stop::Leaving => Some(Error::of(ErrorCode::Draining, "this gateway is leaving; resume elsewhere")),
        Stop::Fault(error) => {
            counter!(FAULTS, "label" => error.label()).increment(1);
            error.answer()
        }
        Stop::Ended(_) | Stop::Replaced | Stop::Lost => None,
    }
}

async fn say_farewell(mut wire: Sealed, error: Error) {
    let _ = wire.send(&Message::error_event(&error).to_bytes()).await;
    wire.close().await;
}

impl Stop {
    fn label(&self) -> &'static str {
        match self {
            Self::Replaced => "replaced",
            Self::Ended(ending) => ending.label(),
            Self::Leaving => "leaving",
            Self::Lost => "lost",
            Self::Fault(error) => error.label(),
        }
    }
}

/// Moves the timer forward only: what is due later than it stands at is seen when it has rung. So a busy connection
/// leaves the runtime's timers alone.
fn set(timer: Pin<&mut Sleep>, due: Instant) {
    if timer.is_elapsed() || tokio::time::Instant::from(due) < timer.deadline() {
        timer.reset(due.into());
    }
}

struct Carrier<'a> {
    core: &'a Core,
    session: &'a Arc<Session>,
    connection: u64,
    wire: &'a mut Sealed,
    clock: Clock,
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
struct Filled {
    /// Nothing waits to be sealed.
    all: bool,
    /// Groups whose keyframe the client needs now.
    stale: Vec<GroupKey>,
    /// When an acknowledgement is due.
    acknowledge: Option<Instant>,
}

/// What happened while the connection waited.
enum Woken {
    Readable(io::Result<()>),
    Writable,
    Called,
    Late,
}

impl<'a> Carrier<'a> {
    fn new(Playing { wire, carried }: &'a mut Playing) -> Self {
        let Carried { core, session, connection } = carried;
        Self { core, session, connection: *connection, wire, clock: Clock::new(core) }
    }

    async fn carry(mut self) -> Stop {
        let mut timer = pin!(sleep_until(self.clock.next(None).into()));
        // There may be records that the handshake has read already.
        let mut woken = Woken::Called;
        loop {
            match self.turn(&woken) {
                Ok(due) => set(timer.as_mut(), due),
                Err(stop) => return stop,
            }
            woken = poll_fn(|cx| self.poll_woken(timer.as_mut(), cx)).await;
        }
    }

    /// Waits without a future for each thing that it waits for.
    fn poll_woken(&self, timer: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Poll<Woken> {
        if self.session.bell.poll(self.connection, cx).is_ready() {
            return Poll::Ready(Woken::Called);
        }
        if let Poll::Ready(ready) = self.wire.poll_readable(cx) {
            return Poll::Ready(Woken::Readable(ready));
        }
        if self.wire.unwritten() > 0 && self.wire.poll_writable(cx).is_ready() {
            return Poll::Ready(Woken::Writable);
        }
        timer.poll(cx).map(|()| Woken::Late)
    }

    /// Does what there is to do; returns when something is due though nobody calls.
    fn turn(&mut self, woken: &Woken) -> Result<Instant, Stop> {
        let now = Instant::now();
        match woken {
            Woken::Readable(Err(_)) => return Err(Stop::Lost),
            Woken::Late => self.late(now)?,
            // Whatever woke it: what the client has said goes first, so that nobody can talk it down. That costs
            // nothing if it has said nothing.
            Woken::Readable(Ok(())) | Woken::Writable | Woken::Called => self.hear(now)?,
        }
        let acknowledge = self.say(now)?;
        // Before the wait: who leaves later calls.
        if self.core.is_leaving() {
            return Err(Stop::Leaving);
        }
        if self.wire.unwritten() > 0 {
            // Nothing can be said before the socket takes more, and that wakes.
            return Ok(self.clock.silent_at());
        }
        let due = self.clock.next(acknowledge);
        let settled = self.wire.datagrams().and_then(|(datagrams, _)| datagrams.deadline());
        Ok(settled.map_or(due, |at| at.min(due)))
    }

    /// The timer has rung.
    fn late(&mut self, now: Instant) -> Result<(), Stop> {
        if self.clock.silent(now) {
            return Err(Stop::Lost);
        }
        if self.clock.falls_quiet(now) {
            self.wire.rest();
            self.session.lock().rest();
        }
        Ok(())
    }

    /// Takes in what the client has said.
    fn hear(&mut self, now: Instant) -> Result<(), Stop> {
        let Self { core, session, connection, wire, clock } = self;
        let open = wire.read(|record| {
            clock.heard(now);
            take(core, session, *connection, record, now)
        })?;
        if open { Ok(()) } else { Err(Stop::Lost) }
    }

    /// Seals and writes what is due, as far as the socket takes it. Returns when an acknowledgement is due.
    fn say(&mut self, now: Instant) -> Result<Option<Instant>, Stop> {
        self.wire.borrow();
        let said = self.say_all(now);
        self.wire.give_back();
        said
    }

    fn say_all(&mut self, now: Instant) -> Result<Option<Instant>, Stop> {
        self.wire.write()?;
        loop {
            if self.wire.unwritten() > 0 {
                // Woken again by the socket. Until then the session's own queue bounds and supersedes.
                return match &self.inner()?.ended {
                    Some(ending) => Err(Stop::Ended(ending.clone())),
                    None => Ok(None),
                };
            }
            let mut bill = COSTS.sample();
            let filled = self.fill(now, bill.as_mut())?;
            self.wire.write()?;
            bill.into_iter().for_each(|bill| COSTS.charge(bill));
            if !filled.stale.is_empty() {
                self.core.with_groups(|groups| ((), groups.tell_again(self.session, filled.stale)));
            } else if filled.all && self.wire.unwritten() == 0 {
                return Ok(filled.acknowledge);
            }
        }
    }

    /// The session, if this connection still carries it. What is called from now on wakes the connection again.
    fn inner(&self) -> Result<MutexGuard<'a, Inner>, Stop> {
        let session = self.session;
        let inner = session.lock();
        if !inner.is_carried_by(self.connection) {
            return Err(Stop::Replaced);
        }
        session.bell.heed();
        Ok(inner)
    }

    /// Moves what is due into sealed records.
    fn fill(&mut self, now: Instant, mut bill: Option<&mut Bill>) -> Result<Filled, Stop> {
        let mut inner = self.inner()?;
        if inner.inbox.ack_goes(now, !inner.out.is_empty()) {
            let received = inner.inbox.acknowledge();
            inner.out.control(Message::event(opcode::ACK, &Ack { received }).to_bytes());
        }
        if self.clock.ping_due(now) && inner.out.is_empty() {
            inner.out.control(Message::event(opcode::PING, &Ping { value: 0 }).to_bytes());
        }
        if let Some((datagrams, stream)) = self.wire.datagrams() {
            if inner.out.lose(Datagrams::carry, |message| datagrams.send(stream, message, now)) {
                self.clock.said(now);
            }
            if let Some(last) = datagrams.settled(now) {
                inner.out.control(last);
            }
        }
        while !inner.out.is_empty() && self.wire.unwritten() < SEAL_AHEAD {
            if !self.wire.append(|record| inner.out.fill(record, bill.as_deref_mut()))? {
                break;
            }
            self.clock.said(now);
            if self.wire.key_update_due() {
                self.update_key(now)?;
            }
        }
        if self.clock.key_due(now) {
            self.update_key(now)?;
        }
        if let Some(ending) = &inner.ended {
            return Err(Stop::Ended(ending.clone()));
        }
        Ok(Filled {
            all: self.wire.unwritten() < SEAL_AHEAD,
            stale: inner.out.take_stale(),
            acknowledge: inner.inbox.deadline(),
        })
    }

    fn update_key(&mut self, now: Instant) -> Result<(), Stop> {
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
        self.clock.key_since = now;
        Ok(())
    }
}

/// Takes in one record of the client's.
fn take(
    core: &Core,
    session: &Arc<Session>,
    connection: u64,
    record: &[u8],
    now: Instant,
) -> Result<Then, Stop> {
    let outputs = {
        let mut inner = session.lock();
        if !inner.is_carried_by(connection) {
            return Err(Stop::Replaced);
        }
        let backends = Backends { core, session: session.id };
        let ranges = core.ranges.read();
        inner.receive(record, &ranges, now, &backends).map_err(DoorError::from)?
    };
    outputs.bill.into_iter().for_each(|bill| COSTS.charge(bill));
    if outputs.logout {
        core.end(session, Ending::new(ErrorCode::LoggedOut, "as asked"));
    }
    if outputs.key_update {
        counter!(KEY_UPDATES, "side" => "client").increment(1);
        return Ok(Then::UpdateKey);
    }
    Ok(Then::GoOn)
}

/// When what was last done.
struct Clock {
    idle: Duration,
    key_update: Duration,
    heard: Instant,
    said: Instant,
    key_since: Instant,
    quiet: bool,
}

impl Clock {
    /// Starts quiet: who has just attached often waits in a queue.
    fn new(core: &Core) -> Self {
        let now = Instant::now();
        let (idle, key_update) = (core.config.idle, core.config.key_update);
        Self { idle, key_update, heard: now, said: now, key_since: now, quiet: true }
    }

    fn heard(&mut self, now: Instant) {
        (self.heard, self.quiet) = (now, false);
    }

    fn said(&mut self, now: Instant) {
        (self.said, self.quiet) = (now, false);
    }

    fn silent(&self, now: Instant) -> bool {
        now >= self.silent_at()
    }

    /// When the client has been silent for too long.
    fn silent_at(&self) -> Instant {
        self.heard + self.idle
    }

    /// True once for each time that both sides have been silent.
    fn falls_quiet(&mut self, now: Instant) -> bool {
        let falls = !self.quiet && now >= self.quiet_at();
        self.quiet |= falls;
        falls
    }

    fn quiet_at(&self) -> Instant {
        self.heard.max(self.said) + QUIET_AFTER
    }

    fn ping_due(&self, now: Instant) -> bool {
        now >= self.said + PING_AFTER
    }

    fn key_due(&self, now: Instant) -> bool {
        now >= self.key_since + self.key_update
    }

    /// When something is due though nobody calls.
    fn next(&self, acknowledge: Option<Instant>) -> Instant {
        let quiet = (!self.quiet).then(|| self.quiet_at());
        let (ping, key) = (self.said + PING_AFTER, self.key_since + self.key_update);
        [acknowledge, quiet].into_iter().flatten().fold(self.silent_at().min(ping).min(key), Instant::min)
    }
}
