//! A connection that carries a session: reads and judges what the client says, writes what is due. Everything due
//! at once is sealed into as few records as it fits in and written once.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use metrics::{counter, gauge};
use shardkeep_wire::{
    Message, opcode,
    payload::{Ack, Error, KeyUpdate, Ping},
};
use tokio::time::{sleep_until, timeout};
use tracing::debug;

use super::{Datagrams, handshake::Playing, wire::Sealed};
use crate::{
    core::Core,
    error::DoorError,
    metrics::{FAULTS, KEY_UPDATES, LANES},
    session::{Ending, Outcome, Session},
};
use shardkeep_wire::payload::ErrorCode;

/// Sealed bytes beyond which the socket is waited for before more is sealed; what waits can still be superseded.
const SEAL_AHEAD: usize = 64 << 10;
/// The server pings a connection on which it has said nothing for so long.
const PING_AFTER: Duration = Duration::from_secs(10);
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
    let _ = timeout(FAREWELL, say_farewell(wire, farewell)).await;
}

async fn say_farewell(mut wire: Sealed, farewell: Option<Error>) {
    if let Some(error) = farewell {
        let _ = wire.send(&Message::error_event(&error).to_bytes()).await;
    }
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

struct Carrier<'a> {
    core: &'a Arc<Core>,
    session: &'a Arc<Session>,
    connection: u64,
    clock: Clock,
}

/// What happened while the connection waited.
enum Woken {
    Readable(io::Result<()>),
    Writable,
    Called,
    Late,
    Leaving,
}

impl Carrier<'_> {
    async fn carry(&mut self, wire: &mut Sealed) -> Stop {
        loop {
            if let Err(stop) = self.say(wire) {
                return stop;
            }
            wire.shrink();
            let settled = wire.datagrams().and_then(|(datagrams, _)| datagrams.deadline());
            let deadline = settled.map_or_else(|| self.deadline(), |at| at.min(self.deadline()));
            let woken = tokio::select! {
                ready = wire.readable() => Woken::Readable(ready),
                _ = wire.writable(), if wire.unwritten() > 0 => Woken::Writable,
                () = self.session.wake.notified() => Woken::Called,
                () = sleep_until(deadline.into()) => Woken::Late,
                () = self.core.leaving.cancelled() => Woken::Leaving,
            };
            let heard = match woken {
                Woken::Readable(Ok(())) => self.hear(wire),
                Woken::Readable(Err(_)) => Err(Stop::Lost),
                Woken::Late if self.clock.silent(Instant::now()) => Err(Stop::Lost),
                Woken::Leaving => Err(Stop::Leaving),
                Woken::Writable | Woken::Called | Woken::Late => Ok(()),
            };
            if let Err(stop) = heard {
                return stop;
            }
        }
    }

    /// Takes in what the client has said.
    fn hear(&mut self, wire: &mut Sealed) -> Result<(), Stop> {
        if !wire.read()? {
            return Err(Stop::Lost);
        }
        let now = Instant::now();
        while let Some(record) = wire.next_record()? {
            self.clock.heard = now;
            let ranges = self.core.ranges.read().clone();
            let outcome = {
                let mut inner = self.session.lock();
                if !inner.is_carried_by(self.connection) {
                    return Err(Stop::Replaced);
                }
                let mut outputs = inner.receive(&record, &ranges, now).map_err(DoorError::from)?;
                self.core.deliver(self.session.id, &mut inner, &mut outputs);
                outputs.outcome
            };
            match outcome {
                Outcome::GoOn => {}
                Outcome::KeyUpdate => {
                    counter!(KEY_UPDATES, "side" => "client").increment(1);
                    wire.client_key_updated()?;
                }
                Outcome::Logout => self.core.end(self.session, Ending::new(ErrorCode::LoggedOut, "as asked")),
            }
        }
        Ok(())
    }

    /// Seals and writes what is due, as far as the socket takes it.
    fn say(&mut self, wire: &mut Sealed) -> Result<(), Stop> {
        loop {
            wire.write()?;
            if wire.unwritten() > 0 {
                // Woken again by the socket. Until then the session's own queue bounds and supersedes.
                let mut inner = self.session.lock();
                inner.woken_up();
                return match &inner.ended {
                    Some(ending) => Err(Stop::Ended(ending.clone())),
                    None if !inner.is_carried_by(self.connection) => Err(Stop::Replaced),
                    None => Ok(()),
                };
            }
            let stale = self.fill(wire)?;
            if !stale.is_empty() {
                self.core.with_groups(|groups| ((), groups.tell_again(self.session, stale)));
            } else if wire.unwritten() == 0 {
                return Ok(());
            }
        }
    }

    /// Seals what waits. Returns groups whose keyframe the client needs now.
    fn fill(&mut self, wire: &mut Sealed) -> Result<Vec<shardkeep_types::GroupKey>, Stop> {
        let now = Instant::now();
        let mut inner = self.session.lock();
        inner.woken_up();
        if !inner.is_carried_by(self.connection) {
            return Err(Stop::Replaced);
        }
        if inner.inbox.ack_due(now) {
            let received = inner.inbox.acknowledge();
            inner.out.control(Message::event(opcode::ACK, &Ack { received }).to_bytes());
        }
        if self.clock.ping_due(now) && inner.out.is_empty() {
            inner.out.control(Message::event(opcode::PING, &Ping { value: 0 }).to_bytes());
        }
        if let Some((datagrams, stream)) = wire.datagrams() {
            if inner.out.lose(Datagrams::carry, |message| datagrams.send(stream, message, now)) {
                self.clock.said = now;
            }
            if let Some(last) = datagrams.settled(now) {
                inner.out.control(last);
            }
        }
        while !inner.out.is_empty() && wire.unwritten() < SEAL_AHEAD {
            if !wire.append(|record| inner.out.fill(record))? {
                break;
            }
            self.clock.said = now;
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
        Ok(inner.out.take_stale())
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

    /// When something is due though nobody calls.
    fn deadline(&self) -> Instant {
        let acknowledge = self.session.lock().inbox.deadline();
        let next = self.clock.next();
        acknowledge.map_or(next, |at| at.min(next))
    }
}

/// When what was last done.
struct Clock {
    idle: Duration,
    key_update: Duration,
    heard: Instant,
    said: Instant,
    key_since: Instant,
}

impl Clock {
    fn new(core: &Core) -> Self {
        let now = Instant::now();
        let (idle, key_update) = (core.config.idle, core.config.key_update);
        Self { idle, key_update, heard: now, said: now, key_since: now }
    }

    fn silent(&self, now: Instant) -> bool {
        now >= self.heard + self.idle
    }

    fn ping_due(&self, now: Instant) -> bool {
        now >= self.said + PING_AFTER
    }

    fn key_due(&self, now: Instant) -> bool {
        now >= self.key_since + self.key_update
    }

    fn next(&self) -> Instant {
        (self.heard + self.idle).min(self.said + PING_AFTER).min(self.key_since + self.key_update)
    }
}
