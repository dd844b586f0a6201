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
    pending::PendingRequests,
    queues::{KeyAge, SessionQueues},
    shared::{Command, Shared, to_tokio_instant},
    sink::{Event, Sink},
    stale_filter::StaleFilter,
};
use crate::{
    Config, Refusal, SessionEnd,
    counters::{Counters, add, count},
    handshake::{Established, ResumeKeys},
    raw::Connection,
};

/// Buffer space reserved before each read.
const READ_CHUNK: usize = 4_096;

pub(super) struct Driver<S> {
    pub(super) config: Config,
    pub(super) id: SessionId,
    pub(super) keys: ResumeKeys,
    /// The last `SessionReady` of a gateway: where the session can be resumed, and for how long.
    pub(super) ready: SessionReady,
    pub(super) queues: SessionQueues,
    pub(super) shared: Arc<Shared>,
    pending: PendingRequests,
    stale_filter: StaleFilter,
    sink: S,
    commands: mpsc::Receiver<Command>,
}

/// How a connection ended.
enum Disconnect {
    /// The connection ended without a message that ends the session. The driver resumes the session.
    Lost,
    /// The gateway asked the client to resume. The driver tries the gateway of the redirect first, if there is one.
    Redirected(Option<Redirect>),
    SessionOver(SessionEnd),
}

impl From<io::Error> for Disconnect {
    fn from(error: io::Error) -> Self {
        tracing::debug!(%error, "connection lost");
        Self::Lost
    }
}

impl From<WireError> for Disconnect {
    fn from(error: WireError) -> Self {
        match error {
            // Anybody on the network path can change bytes of a connection. That must not end the session.
            WireError::Seal(SealError::Forged) => Self::Lost,
            error => Self::SessionOver(SessionEnd::Protocol(error.to_string())),
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
        let (queues, pending, stale_filter) =
            (SessionQueues::new(), PendingRequests::default(), StaleFilter::default());
        Self { config, id: session, keys, ready, queues, shared, pending, stale_filter, sink, commands }
    }

    /// Runs until the session is over. Callers of unanswered requests wait until the driver is dropped.
    pub(super) async fn run(&mut self, connection: Connection, closed: CancellationToken) -> SessionEnd {
        let end = tokio::select! {
            end = self.run_until_end(connection) => end,
            () = closed.cancelled() => SessionEnd::Closed,
        };
        self.sink.on_event(Event::Ended(end.clone()));
        end
    }

    async fn run_until_end(&mut self, mut connection: Connection) -> SessionEnd {
        loop {
            let redirect = match self.serve_connection(connection).await {
                Disconnect::SessionOver(end) => return end,
                Disconnect::Lost => None,
                Disconnect::Redirected(redirect) => redirect,
            };
            count(&self.counters().losses);
            self.sink.on_event(Event::Lost);
            connection = match Box::pin(self.resume(redirect)).await {
                Ok(resumed) => resumed,
                Err(end) => return end,
            };
        }
    }

    /// Serves one connection until it is lost.
    async fn serve_connection(&mut self, mut connection: Connection) -> Disconnect {
        let now = Instant::now();
        let mut timers = ConnectionTimers { sent_at: now, received_at: now, key: KeyAge::new(now) };
        // Messages that came with the end of the handshake.
        if let Err(disconnect) = self.consume(&mut connection) {
            return disconnect;
        }
        loop {
            if let Err(disconnect) = self.step(&mut connection, &mut timers).await {
                return disconnect;
            }
        }
    }

    async fn step(
        &mut self,
        connection: &mut Connection,
        timers: &mut ConnectionTimers,
    ) -> Result<(), Disconnect> {
        self.check_timers(timers)?;
        if self.queues.fill(connection, &mut timers.key, self.shared.counters())? {
            timers.sent_at = Instant::now();
        }
        let wake = self.next_wake(timers);
        let open = self.queues.has_room() && !self.pending.is_full();
        let unwritten = !connection.outbound.is_empty();
        tokio::select! {
            ready = connection.stream.readable() => {
                ready?;
                self.read(connection, timers)
            }
            ready = connection.stream.writable(), if unwritten => {
                ready?;
                write(connection)
            }
            datagram = connection.stream.datagram() => self.datagram(connection, &datagram?, timers),
            command = self.commands.recv(), if open => match command {
                Some(command) => self.handle_command(command, timers),
                None => Err(Disconnect::SessionOver(SessionEnd::Closed)),
            },
            () = sleep_until(to_tokio_instant(wake)) => Ok(()),
        }
    }

    fn read(&mut self, connection: &mut Connection, timers: &mut ConnectionTimers) -> Result<(), Disconnect> {
        connection.inbound.reserve(READ_CHUNK);
        match connection.stream.try_read_buf(&mut connection.inbound) {
            Ok(0) => Err(Disconnect::Lost),
            Ok(read) => {
                timers.received_at = Instant::now();
                add(&self.counters().received_bytes, read);
                self.consume(connection)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes state from a datagram. A datagram that is old or not from the server is dropped, as if it were lost.
    fn datagram(
        &mut self,
        connection: &mut Connection,
        datagram: &Bytes,
        timers: &mut ConnectionTimers,
    ) -> Result<(), Disconnect> {
        let opener = connection.crypt.as_mut().and_then(|crypt| crypt.datagrams.as_mut());
        let Some(Ok(Some(mut opened))) = opener.map(|opener| opener.open(datagram)) else { return Ok(()) };
        timers.received_at = Instant::now();
        count(&self.counters().datagrams);
        add(&self.counters().received_bytes, datagram.len());
        while let Some(message) = Message::split_from(&mut opened.messages).map_err(WireError::from)? {
            if self.stale_filter.accepts(&message) {
                self.receive(message)?;
            }
        }
        Ok(())
    }

    fn handle_command(&mut self, command: Command, timers: &mut ConnectionTimers) -> Result<(), Disconnect> {
        match command {
            Command::Request { opcode, payload, answer } => {
                let request = self.pending.add(opcode, payload, answer);
                self.queues.enqueue(request)?;
            }
            Command::Send(message) => self.queues.enqueue(message)?,
            Command::DropConnection => return Err(Disconnect::Lost),
            Command::UpdateKey => timers.key.update_requested = true,
        }
        Ok(())
    }

    fn check_timers(&mut self, timers: &mut ConnectionTimers) -> Result<(), Disconnect> {
        let (now, timing) = (Instant::now(), &self.config.timing);
        if now >= timers.received_at + timing.idle_timeout {
            return Err(Disconnect::Lost);
        }
        if now >= timers.sent_at + timing.ping {
            timers.sent_at = now;
            self.pending.prune();
            self.queues.enqueue(Message::event(opcode::PING, &Ping { value: 0 }))?;
        }
        if now >= timers.key.since + timing.key_age {
            timers.key.update_requested = true;
        }
        if self.pending.is_full() {
            self.pending.prune();
        }
        Ok(())
    }

    fn next_wake(&self, timers: &ConnectionTimers) -> Instant {
        let timing = &self.config.timing;
        let wake = (timers.sent_at + timing.ping)
            .min(timers.received_at + timing.idle_timeout)
            .min(timers.key.since + timing.key_age);
        self.queues.inbox.deadline().map_or(wake, |ack| ack.min(wake))
    }

    /// Handles the messages of all records that have arrived completely.
    fn consume(&mut self, connection: &mut Connection) -> Result<(), Disconnect> {
        while let Some(message) = connection.pop_buffered() {
            self.receive(message)?;
        }
        let decoder = Decoder::new(Side::Server);
        while let Some(mut body) = decoder.next(&mut connection.inbound).map_err(WireError::from)? {
            let Some(crypt) = &mut connection.crypt else { return Err(Disconnect::Lost) };
            crypt.opener.open(&mut body).map_err(WireError::from)?;
            let mut plaintext = body.freeze();
            while let Some(message) = Message::split_from(&mut plaintext).map_err(WireError::from)? {
                if message.opcode == opcode::KEY_UPDATE {
                    crypt.update_opener_key(&plaintext)?;
                } else {
                    self.receive(message)?;
                }
            }
        }
        Ok(())
    }

    fn receive(&mut self, message: Message) -> Result<(), Disconnect> {
        count(&self.counters().received_messages);
        self.stale_filter.observe(&message);
        if message.is_reliable() {
            self.queues.inbox.receive(Instant::now());
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
                self.queues.outbox.acknowledge(received).map_err(WireError::from)?;
            }
            (Kind::Event, opcode::PING) => {
                let Ping { value } = decode(&message)?;
                self.queues.enqueue(Message::event(opcode::PONG, &Pong { value }))?;
            }
            (Kind::Event, opcode::PONG | opcode::KEY_UPDATE) => {}
            (Kind::Event, opcode::REDIRECT) => {
                let redirect: Redirect = decode(&message)?;
                count(&self.counters().redirects);
                return Err(Disconnect::Redirected(Some(redirect)));
            }
            (Kind::Event, opcode::ERROR) => return Err(classify_error(decode::<Error>(&message)?.into())),
            (Kind::Request, opcode) => {
                let wrong = format!("the server sent a request of opcode {opcode:#06x}");
                return Err(Disconnect::SessionOver(SessionEnd::Protocol(wrong)));
            }
            _ => self.sink.on_event(Event::Message(message)),
        }
        Ok(())
    }

    /// The session is on a new connection: queues again the messages and requests that must be repeated, and tells
    /// the sink.
    pub(super) fn resumed(&mut self, established: Established, lane: Lane) -> Result<(), WireError> {
        use shardkeep_auth::session::key_source;

        let Established { ready, keys, key, .. } = established;
        self.keys.gateway = keys.gateway_resume;
        if key == key_source::WORLD {
            self.keys.world = keys.world_resume;
        }
        self.pending.prune();
        let (continued, received) = (ready.continued, ready.received);
        if continued {
            let replayed = self.queues.replay(received)?;
            add(&self.counters().replayed, replayed);
            count(&self.counters().resumes);
            for request in self.pending.unanswered().filter(|request| !request.is_reliable()) {
                self.queues.enqueue(request)?;
            }
        } else {
            self.queues.restart();
            for request in self.pending.unanswered() {
                self.queues.enqueue(request)?;
                count(&self.shared.counters().repeated);
            }
            count(&self.counters().fresh_resumes);
        }
        self.shared.set_gateway(&ready.gateway);
        self.shared.set_lane(lane);
        self.stale_filter = StaleFilter::default();
        self.ready = ready;
        self.sink.on_event(Event::Resumed { continued });
        Ok(())
    }

    pub(super) fn counters(&self) -> &Counters {
        self.shared.counters()
    }
}

fn write(connection: &mut Connection) -> Result<(), Disconnect> {
    match connection.stream.try_write(&connection.outbound) {
        Ok(written) => connection.outbound.advance(written),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// Times of the present connection.
struct ConnectionTimers {
    sent_at: Instant,
    received_at: Instant,
    key: KeyAge,
}

fn decode<P: prost::Message + Default>(message: &Message<Bytes>) -> Result<P, Disconnect> {
    Ok(message.decode().map_err(WireError::from)?)
}

/// An `Error` event is the last message of a connection. Its code tells whether the session is over too.
fn classify_error(refusal: Refusal) -> Disconnect {
    match refusal.code {
        ErrorCode::Draining => Disconnect::Redirected(None),
        _ if refusal.is_temporary() => Disconnect::Lost,
        _ => Disconnect::SessionOver(SessionEnd::Refused(refusal)),
    }
}
