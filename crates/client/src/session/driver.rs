//! The one task of a session: reads, writes, keeps time, and resumes when the connection is lost.

use std::{io, sync::Arc, time::Instant};

use bytes::{Buf, Bytes};
use shardkeep_lanes::Lane;
use shardkeep_types::SessionId;
use shardkeep_wire::{
    Kind, Message, Side, WireError, opcode,
    payload::{Ack, Error, ErrorCode, Ping, Pong, Redirect, SessionReady},
    record::Decoder,
    seal::SealError,
};
use tokio::{sync::mpsc, time::sleep_until};
use tokio_util::sync::CancellationToken;

use super::{
    Command, Event, Shared, Sink,
    link::{KeyAge, Traffic},
    newest::Newest,
    pending::Pending,
    until,
};
use crate::{
    Config, Refusal, SessionEnd,
    counters::{Counters, add, count},
    handshake::{Established, ResumeKeys},
    raw::Connection,
};

/// What is reserved before each read.
const READ: usize = 4_096;

pub(super) struct Driver<S> {
    pub(super) config: Config,
    pub(super) id: SessionId,
    pub(super) keys: ResumeKeys,
    /// As last said by a gateway: where to resume, and for how long.
    pub(super) ready: SessionReady,
    pub(super) traffic: Traffic,
    pub(super) shared: Arc<Shared>,
    pending: Pending,
    newest: Newest,
    sink: S,
    commands: mpsc::Receiver<Command>,
}

/// How a connection ended.
enum Loss {
    /// Nothing was said, or nothing that ends the session: resume.
    Link,
    /// Resume there first, if an address is given.
    Elsewhere(Option<String>),
    Over(SessionEnd),
}

impl From<io::Error> for Loss {
    fn from(error: io::Error) -> Self {
        tracing::debug!(%error, "connection lost");
        Self::Link
    }
}

impl From<WireError> for Loss {
    fn from(error: WireError) -> Self {
        match error {
            // Anybody on the path can bend bytes; the session is none the worse for it.
            WireError::Seal(SealError::Forged) => Self::Link,
            error => Self::Over(SessionEnd::Protocol(error.to_string())),
        }
    }
}

impl<S: Sink> Driver<S> {
    pub(super) fn new(
        config: Config,
        established: Established,
        sink: S,
        commands: mpsc::Receiver<Command>,
        shared: Arc<Shared>,
    ) -> Self {
        let keys = ResumeKeys::of(&established);
        let Established { session, ready, .. } = established;
        let (traffic, pending, newest) = (Traffic::new(), Pending::default(), Newest::default());
        Self { config, id: session, keys, ready, traffic, shared, pending, newest, sink, commands }
    }

    /// Until the session is over. Requests wait until the driver is dropped.
    pub(super) async fn run(&mut self, connection: Connection, closed: CancellationToken) -> SessionEnd {
        let end = tokio::select! {
            end = self.live(connection) => end,
            () = closed.cancelled() => SessionEnd::Closed,
        };
        self.sink.take(Event::Ended(end.clone()));
        end
    }

    async fn live(&mut self, mut connection: Connection) -> SessionEnd {
        loop {
            let redirect = match self.connected(connection).await {
                Loss::Over(end) => return end,
                Loss::Link => None,
                Loss::Elsewhere(address) => address,
            };
            count(&self.counters().losses);
            self.sink.take(Event::Lost);
            connection = match Box::pin(self.resume(redirect)).await {
                Ok(resumed) => resumed,
                Err(end) => return end,
            };
        }
    }

    /// Serves one connection until it is lost.
    async fn connected(&mut self, mut connection: Connection) -> Loss {
        let now = Instant::now();
        let mut clock = Clock { sent: now, heard: now, key: KeyAge::new(now) };
        // Messages that came with the end of the handshake.
        if let Err(loss) = self.consume(&mut connection) {
            return loss;
        }
        loop {
            if let Err(loss) = self.step(&mut connection, &mut clock).await {
                return loss;
            }
        }
    }

    async fn step(&mut self, connection: &mut Connection, clock: &mut Clock) -> Result<(), Loss> {
        self.keep_time(clock)?;
        if self.traffic.fill(connection, &mut clock.key, &self.shared.counters)? {
            clock.sent = Instant::now();
        }
        let wake = self.next_wake(clock);
        let open = self.traffic.has_room() && !self.pending.is_full();
        let unwritten = !connection.outbound.is_empty();
        tokio::select! {
            ready = connection.stream.readable() => {
                ready?;
                self.read(connection, clock)
            }
            ready = connection.stream.writable(), if unwritten => {
                ready?;
                write(connection)
            }
            datagram = connection.stream.datagram() => self.datagram(connection, &datagram?, clock),
            command = self.commands.recv(), if open => match command {
                Some(command) => self.obey(command, clock),
                None => Err(Loss::Over(SessionEnd::Closed)),
            },
            () = sleep_until(until(wake)) => Ok(()),
        }
    }

    fn read(&mut self, connection: &mut Connection, clock: &mut Clock) -> Result<(), Loss> {
        connection.inbound.reserve(READ);
        match connection.stream.try_read_buf(&mut connection.inbound) {
            Ok(0) => Err(Loss::Link),
            Ok(read) => {
                clock.heard = Instant::now();
                add(&self.counters().received_bytes, read);
                self.consume(connection)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// State that may be lost. What is not new, or not the server's, is as good as lost.
    fn datagram(
        &mut self,
        connection: &mut Connection,
        datagram: &Bytes,
        clock: &mut Clock,
    ) -> Result<(), Loss> {
        let opener = connection.crypt.as_mut().and_then(|crypt| crypt.datagrams.as_mut());
        let Some(Ok(Some(mut opened))) = opener.map(|opener| opener.open(datagram)) else { return Ok(()) };
        clock.heard = Instant::now();
        count(&self.counters().datagrams);
        add(&self.counters().received_bytes, datagram.len());
        while let Some(message) = Message::split_from(&mut opened.messages).map_err(WireError::from)? {
            if self.newest.admits(&message) {
                self.receive(message)?;
            }
        }
        Ok(())
    }

    fn obey(&mut self, command: Command, clock: &mut Clock) -> Result<(), Loss> {
        match command {
            Command::Request { opcode, payload, answer } => {
                let request = self.pending.add(opcode, payload, answer);
                self.traffic.enqueue(request)?;
            }
            Command::Send(message) => self.traffic.enqueue(message)?,
            Command::Cut => return Err(Loss::Link),
            Command::UpdateKey => clock.key.wanted = true,
        }
        Ok(())
    }

    fn keep_time(&mut self, clock: &mut Clock) -> Result<(), Loss> {
        let (now, timing) = (Instant::now(), &self.config.timing);
        if now >= clock.heard + timing.silence {
            return Err(Loss::Link);
        }
        if now >= clock.sent + timing.ping {
            clock.sent = now;
            self.pending.prune();
            self.traffic.enqueue(Message::event(opcode::PING, &Ping { value: 0 }))?;
        }
        if now >= clock.key.since + timing.key_age {
            clock.key.wanted = true;
        }
        if self.pending.is_full() {
            self.pending.prune();
        }
        Ok(())
    }

    fn next_wake(&self, clock: &Clock) -> Instant {
        let timing = &self.config.timing;
        let wake = (clock.sent + timing.ping)
            .min(clock.heard + timing.silence)
            .min(clock.key.since + timing.key_age);
        self.traffic.inbox.deadline().map_or(wake, |ack| ack.min(wake))
    }

    /// Everything that has arrived whole.
    fn consume(&mut self, connection: &mut Connection) -> Result<(), Loss> {
        while let Some(message) = connection.take_waiting() {
            self.receive(message)?;
        }
        let decoder = Decoder::new(Side::Server);
        while let Some(mut body) = decoder.next(&mut connection.inbound).map_err(WireError::from)? {
            let Some(crypt) = &mut connection.crypt else { return Err(Loss::Link) };
            crypt.opener.open(&mut body).map_err(WireError::from)?;
            let mut plaintext = body.freeze();
            while let Some(message) = Message::split_from(&mut plaintext).map_err(WireError::from)? {
                if message.opcode == opcode::KEY_UPDATE {
                    crypt.take_key(&plaintext)?;
                } else {
                    self.receive(message)?;
                }
            }
        }
        Ok(())
    }

    fn receive(&mut self, message: Message) -> Result<(), Loss> {
        count(&self.counters().received_messages);
        self.newest.note(&message);
        if message.is_reliable() {
            self.traffic.inbox.receive(Instant::now());
        }
        match (message.kind(), message.opcode) {
            (Kind::Reply, _) => {
                let request = message.head.request().unwrap_or(0);
                if !self.pending.answer(request, message) {
                    count(&self.counters().late_replies);
                }
            }
            (Kind::Event, opcode::ACK) => {
                let Ack { received } = decode(&message)?;
                self.traffic.outbox.acknowledge(received).map_err(WireError::from)?;
            }
            (Kind::Event, opcode::PING) => {
                let Ping { value } = decode(&message)?;
                self.traffic.enqueue(Message::event(opcode::PONG, &Pong { value }))?;
            }
            (Kind::Event, opcode::PONG | opcode::KEY_UPDATE) => {}
            (Kind::Event, opcode::REDIRECT) => {
                let Redirect { gateway } = decode(&message)?;
                count(&self.counters().redirects);
                return Err(Loss::Elsewhere(Some(gateway)));
            }
            (Kind::Event, opcode::ERROR) => return Err(last_word(decode::<Error>(&message)?.into())),
            (Kind::Request, opcode) => {
                let wrong = format!("the server sent a request of opcode {opcode:#06x}");
                return Err(Loss::Over(SessionEnd::Protocol(wrong)));
            }
            _ => self.sink.take(Event::Message(message)),
        }
        Ok(())
    }

    /// The session is on a new connection: sends again what must be, and tells.
    pub(super) fn resumed(&mut self, established: Established, lane: Lane) -> Result<(), WireError> {
        use shardkeep_auth::session::which_key;

        let Established { ready, keys, key, .. } = established;
        self.keys.gateway = keys.gateway_resume;
        if key == which_key::WORLD {
            self.keys.world = keys.world_resume;
        }
        self.pending.prune();
        let (continued, received) = (ready.continued, ready.received);
        if continued {
            let replayed = self.traffic.replay(received)?;
            add(&self.counters().replayed, replayed);
            count(&self.counters().resumes);
            for request in self.pending.again().filter(|request| !request.is_reliable()) {
                self.traffic.enqueue(request)?;
            }
        } else {
            self.traffic.restart();
            for request in self.pending.again() {
                self.traffic.enqueue(request)?;
                count(&self.shared.counters.repeated);
            }
            count(&self.counters().fresh_resumes);
        }
        self.shared.gateway.lock().clone_from(&ready.gateway);
        *self.shared.lane.lock() = lane;
        self.newest = Newest::default();
        self.ready = ready;
        self.sink.take(Event::Resumed { continued });
        Ok(())
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.shared.counters
    }
}

fn write(connection: &mut Connection) -> Result<(), Loss> {
    match connection.stream.try_write(&connection.outbound) {
        Ok(written) => connection.outbound.advance(written),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// Times of the present connection.
struct Clock {
    sent: Instant,
    heard: Instant,
    key: KeyAge,
}

fn decode<P: prost::Message + Default>(message: &Message<Bytes>) -> Result<P, Loss> {
    Ok(message.decode().map_err(WireError::from)?)
}

/// An `Error` event is the last message of a connection; whether of the session too, its code tells.
fn last_word(refusal: Refusal) -> Loss {
    match refusal.code {
        ErrorCode::Draining => Loss::Elsewhere(None),
        _ if refusal.is_temporary() => Loss::Link,
        _ => Loss::Over(SessionEnd::Refused(refusal)),
    }
}
