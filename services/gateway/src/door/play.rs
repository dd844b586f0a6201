//! A connection that carries a session: reads and judges what the client says, writes what is due. Everything due
//! at once is sealed into as few records as it fits in and written once.

use std::{
    io,
    pin::{Pin, pin},
    sync::Arc,
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
    core::Core,
    costs::{Bill, COSTS},
    error::DoorError,
    metrics::{FAULTS, KEY_UPDATES, LANES},
    session::{Deliver, Ending, Inner, Outcome, Session},
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
pub(super) async fn play(core: Arc<Core>, playing: Playing) {
    let Playing { mut wire, session, connection } = playing;
    wire.rest();
    let mut carrier = Carrier { core: &core, session: &session, connection, clock: Clock::new(&core) };
    gauge!(LANES, "lane" => wire.lane().as_str()).increment(1.0);
    let stop = carrier.carry(&mut wire).await;
    gauge!(LANES, "lane" => wire.lane().as_str()).decrement(1.0);
    debug!(session = %session.id, stop = stop.label(), "connection over");
    core.depart(&session, connection);
    if session.lock().ended.is_some() {
        core.finish(&session);
    }
    let farewell = match stop {
        Stop::Ended(Ending::Over { code, detail }) => Some(Error::of(code, detail)),
        Stop::Leaving => Some(Error::of(ErrorCode::Draining, "this gateway is leaving; resume elsewhere")),
        Stop::Fault(error) => {
            counter!(FAULTS, "label" => error.label()).increment(1);
            error.answer()
        }
        Stop::Ended(_) | Stop::Replaced | Stop::Lost => None,
    };
    if let Some(error) = farewell {
        let _ = timeout(FAREWELL, say_farewell(wire, error)).await;
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
    core: &'a Arc<Core>,
    session: &'a Arc<Session>,
    connection: u64,
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
    async fn carry(&mut self, wire: &mut Sealed) -> Stop {
        let mut timer = pin!(sleep_until(self.clock.next(None).into()));
        let mut now = Instant::now();
        let mut heard = if wire.has_read() { self.hear(wire, now) } else { Ok(()) };
        loop {
            let acknowledge = match heard.and_then(|()| self.say(wire, now)) {
                Ok(acknowledge) => acknowledge,
                Err(stop) => return stop,
            };
            // Before the wait: who leaves later calls.
            if self.core.is_leaving() {
                return Stop::Leaving;
            }
            let due =
                if wire.unwritten() > 0 { self.clock.silent_at() } else { self.clock.next(acknowledge) };
            let settled = wire.datagrams().and_then(|(datagrams, _)| datagrams.deadline());
            set(timer.as_mut(), settled.map_or(due, |at| at.min(due)));
            let woken = tokio::select! {
                biased;
                () = self.session.called() => Woken::Called,
                ready = wire.readable() => Woken::Readable(ready),
                _ = wire.writable(), if wire.unwritten() > 0 => Woken::Writable,
                () = timer.as_mut() => Woken::Late,
            };
            now = Instant::now();
            heard = match woken {
                Woken::Readable(Err(_)) => Err(Stop::Lost),
                Woken::Late => self.late(wire, now),
                // Whatever woke it: what the client has said goes first, so that nobody can talk it down. That costs
                // nothing if it has said nothing.
                Woken::Readable(Ok(())) | Woken::Writable | Woken::Called => self.hear(wire, now),
            };
        }
    }

    /// The timer has rung.
    fn late(&mut self, wire: &mut Sealed, now: Instant) -> Result<(), Stop> {
        if self.clock.silent(now) {
            return Err(Stop::Lost);
        }
        if self.clock.falls_quiet(now) {
            wire.rest();
            self.session.lock().rest();
        }
        Ok(())
    }

    /// Takes in what the client has said.
    fn hear(&mut self, wire: &mut Sealed, now: Instant) -> Result<(), Stop> {
        let open = wire.read(|record| self.take(record, now))?;
        if open { Ok(()) } else { Err(Stop::Lost) }
    }

    fn take(&mut self, record: &[u8], now: Instant) -> Result<Then, Stop> {
        self.clock.heard(now);
        let outcome = {
            let mut inner = self.session.lock();
            if !inner.is_carried_by(self.connection) {
                return Err(Stop::Replaced);
            }
            let backends = Backends { core: self.core, session: self.session.id };
            let ranges = self.core.ranges.read();
            let outputs = inner.receive(record, &ranges, now, &backends).map_err(DoorError::from)?;
            outputs.bill.into_iter().for_each(|bill| COSTS.charge(bill));
            outputs.outcome
        };
        match outcome {
            Outcome::GoOn => {}
            Outcome::KeyUpdate => {
                counter!(KEY_UPDATES, "side" => "client").increment(1);
                return Ok(Then::UpdateKey);
            }
            Outcome::Logout => self.core.end(self.session, Ending::new(ErrorCode::LoggedOut, "as asked")),
        }
        Ok(Then::GoOn)
    }

    /// Seals and writes what is due, as far as the socket takes it. Returns when an acknowledgement is due.
    fn say(&mut self, wire: &mut Sealed, now: Instant) -> Result<Option<Instant>, Stop> {
        wire.borrow();
        let said = self.say_all(wire, now);
        wire.give_back();
        said
    }

    fn say_all(&mut self, wire: &mut Sealed, now: Instant) -> Result<Option<Instant>, Stop> {
        wire.write()?;
        loop {
            if wire.unwritten() > 0 {
                // Woken again by the socket. Until then the session's own queue bounds and supersedes.
                return match &self.inner()?.ended {
                    Some(ending) => Err(Stop::Ended(ending.clone())),
                    None => Ok(None),
                };
            }
            let mut bill = COSTS.sample();
            let filled = self.fill(wire, now, bill.as_mut())?;
            wire.write()?;
            bill.into_iter().for_each(|bill| COSTS.charge(bill));
            if !filled.stale.is_empty() {
                self.core.with_groups(|groups| ((), groups.tell_again(self.session, filled.stale)));
            } else if filled.all && wire.unwritten() == 0 {
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
        session.heed();
        Ok(inner)
    }

    /// Moves what is due into sealed records.
    fn fill(&mut self, wire: &mut Sealed, now: Instant, mut bill: Option<&mut Bill>) -> Result<Filled, Stop> {
        let mut inner = self.inner()?;
        if inner.inbox.ack_due(now) {
            let received = inner.inbox.acknowledge();
            inner.out.control(Message::event(opcode::ACK, &Ack { received }).to_bytes());
        }
        if self.clock.ping_due(now) && inner.out.is_empty() {
            inner.out.control(Message::event(opcode::PING, &Ping { value: 0 }).to_bytes());
        }
        if let Some((datagrams, stream)) = wire.datagrams() {
            if inner.out.lose(Datagrams::carry, |message| datagrams.send(stream, message, now)) {
                self.clock.said(now);
            }
            if let Some(last) = datagrams.settled(now) {
                inner.out.control(last);
            }
        }
        while !inner.out.is_empty() && wire.unwritten() < SEAL_AHEAD {
            if !wire.append(|record| inner.out.fill(record, bill.as_deref_mut()))? {
                break;
            }
            self.clock.said(now);
            if wire.key_update_due() {
                self.update_key(wire, now)?;
            }
        }
        if self.clock.key_due(now) {
            self.update_key(wire, now)?;
        }
        if let Some(ending) = &inner.ended {
            return Err(Stop::Ended(ending.clone()));
        }
        Ok(Filled {
            all: wire.unwritten() < SEAL_AHEAD,
            stale: inner.out.take_stale(),
            acknowledge: inner.inbox.deadline(),
        })
    }

    fn update_key(&mut self, wire: &mut Sealed, now: Instant) -> Result<(), Stop> {
        let message = Message::event(opcode::KEY_UPDATE, &KeyUpdate {});
        wire.append(|record| {
            // A record of its own always has room.
            let _ = record.push(&message);
        })?;
        wire.server_key_updated()?;
        if let Some((datagrams, _)) = wire.datagrams() {
            datagrams.update_key();
        }
        counter!(KEY_UPDATES, "side" => "server").increment(1);
        self.clock.key_since = now;
        Ok(())
    }
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
