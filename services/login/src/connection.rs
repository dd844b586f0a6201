//! One player's socket: records in and out, plain at first and sealed later, and the opcode table before anything
//! else looks at a message. Liveness messages are answered here.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use shardkeep_auth::{ChannelBinding, Key};
use shardkeep_lanes::{Lane, Stream, Upgrade};
use shardkeep_wire::{
    Head, Message, Side, WireError,
    limit::{Limiter, Strikes},
    opcode::{self, Phase, Violation},
    payload::{Error as Answer, Ping, Pong},
    preface::{Preface, Service},
    record::{Decoder, Writer},
    seal::{Opener, Sealer, Suite},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use crate::{LoginError, metrics};

/// Bytes asked of the socket at once. With one record at most waiting, this bounds what a client makes us hold.
const READ: usize = 4_096;
/// A client that does not take what we send for so long is gone.
const WRITE_DEADLINE: Duration = Duration::from_secs(5);
/// How long we listen on after the last message, so that it is not lost by a reset.
const LINGER: Duration = Duration::from_millis(500);

pub(crate) struct Connection {
    stream: Stream,
    peer: SocketAddr,
    phase: Phase,
    inbox: BytesMut,
    /// Messages of the record opened last, not looked at yet.
    record: Bytes,
    outbox: BytesMut,
    seals: Option<(Sealer, Opener)>,
    limiter: Limiter,
    strikes: Strikes,
    last_received: Instant,
    last_sent: Instant,
}

impl Connection {
    pub(crate) fn new(stream: Stream, peer: SocketAddr, now: Instant) -> Self {
        Self {
            stream,
            peer,
            phase: Phase::LoginNew,
            inbox: BytesMut::new(),
            record: Bytes::new(),
            outbox: BytesMut::new(),
            seals: None,
            limiter: Limiter::default(),
            strikes: Strikes::default(),
            last_received: now,
            last_sent: now,
        }
    }

    pub(crate) fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// When something came last.
    pub(crate) fn last_received(&self) -> Instant {
        self.last_received
    }

    /// When something was sent last.
    pub(crate) fn last_sent(&self) -> Instant {
        self.last_sent
    }

    /// Reads the preface and compares it: the expected one, or that of the update service, which every login server
    /// has. Nothing is allocated before it is the right one, or the connection turns out to be a WebSocket.
    pub(crate) async fn preface(
        &mut self,
        expected: &Preface,
        upgrade: Option<&Upgrade>,
    ) -> Result<(Service, ChannelBinding), LoginError> {
        let bytes = self.stream.first(upgrade).await?;
        let update = Preface { service: Service::Update, ..*expected };
        let service = match update.accept(&bytes) {
            Ok(()) => Service::Update,
            Err(_) => {
                expected.accept(&bytes).map_err(WireError::from)?;
                expected.service
            }
        };
        Ok((service, ChannelBinding::new(&bytes, self.stream.exporter())))
    }

    pub(crate) fn lane(&self) -> Lane {
        self.stream.lane()
    }

    /// For what is sent from a file, past the outbox. Only between messages, with nothing queued.
    pub(crate) fn stream(&mut self) -> &mut Stream {
        &mut self.stream
    }

    /// From now on these opcodes are allowed.
    pub(crate) fn enter(&mut self, phase: Phase) {
        self.phase = phase;
    }

    /// Everything after this, in both directions, is sealed.
    pub(crate) fn seal(&mut self, suite: Suite, client: Key, server: Key) -> Result<(), LoginError> {
        if !self.record.is_empty() {
            return Err(LoginError::Malformed("plain messages after the last plain one"));
        }
        let sealer = Sealer::new(suite, server).map_err(WireError::from)?;
        let opener = Opener::new(suite, client).map_err(WireError::from)?;
        self.seals = Some((sealer, opener));
        Ok(())
    }

    /// The next message that the present phase allows.
    pub(crate) async fn receive(&mut self) -> Result<Message, LoginError> {
        loop {
            if let Some(message) = self.next(Instant::now())? {
                return Ok(message);
            }
            self.flush().await?;
            self.fill().await?;
        }
    }

    /// The same, of what has arrived; `None`: [`Self::fill`] first. What it has to say about other messages waits in
    /// the outbox.
    pub(crate) fn next(&mut self, now: Instant) -> Result<Option<Message>, LoginError> {
        while let Some(message) = self.split()? {
            let allowed = opcode::check(self.phase, message.opcode, message.kind(), message.payload.len())
                .and_then(|rule| self.limiter.allow(rule, now));
            match (allowed, message.opcode) {
                (Err(violation), _) => self.strike(&message, violation, now)?,
                (Ok(()), opcode::PING) => {
                    let ping: Ping = message.decode().map_err(WireError::from)?;
                    self.queue(&Message::event(opcode::PONG, &Pong { value: ping.value }))?;
                }
                (Ok(()), opcode::PONG) => {}
                (Ok(()), opcode::KEY_UPDATE) => self.update_key()?,
                (Ok(()), _) => return Ok(Some(message)),
            }
        }
        Ok(None)
    }

    fn split(&mut self) -> Result<Option<Message>, WireError> {
        loop {
            if let Some(message) = Message::split_from(&mut self.record)? {
                return Ok(Some(message));
            }
            let Some(mut body) = Decoder::new(Side::Client).next(&mut self.inbox)? else { return Ok(None) };
            if let Some((_, opener)) = &mut self.seals {
                opener.open(&mut body)?;
            }
            self.record = body.freeze();
        }
    }

    fn update_key(&mut self) -> Result<(), LoginError> {
        if !self.record.is_empty() {
            return Err(LoginError::Malformed("messages after KeyUpdate in its record"));
        }
        match &mut self.seals {
            Some((_, opener)) => Ok(opener.update().map_err(WireError::from)?),
            None => Err(LoginError::Malformed("KeyUpdate without a key")),
        }
    }

    /// A message that the table does not allow: counted, answered if it is a request, and the last one too many.
    fn strike(&mut self, message: &Message, violation: Violation, now: Instant) -> Result<(), LoginError> {
        metrics::violation(violation.label());
        tracing::debug!(peer = %self.peer, %violation, "violation");
        let error = LoginError::from(WireError::from(violation));
        if self.strikes.add(now) {
            return Err(error);
        }
        if let (Head::Request(request), Some(answer)) = (message.head, error.answer()) {
            let wait = match violation {
                Violation::TooFast { retry_after, .. } => retry_after,
                _ => Duration::ZERO,
            };
            self.queue(&Message::error_reply(request, &answer.retry_after(wait)))?;
        }
        Ok(())
    }

    /// Waits for more bytes. May be dropped at any time without losing any.
    pub(crate) async fn fill(&mut self) -> Result<(), LoginError> {
        self.inbox.reserve(READ);
        let read = self.stream.read_buf(&mut self.inbox).await?;
        self.last_received = Instant::now();
        if read == 0 { Err(LoginError::Closed) } else { Ok(()) }
    }

    /// Does the work unless the client goes away meanwhile: nobody needs it then.
    pub(crate) async fn run_while_connected<T, E: From<LoginError>>(
        &mut self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        tokio::select! {
            biased;
            done = work => done,
            disconnected = self.disconnected() => Err(disconnected.into()),
        }
    }

    /// Listens until the client has gone. What it says is kept; who says much before it is asked is not listened to
    /// any longer.
    async fn disconnected(&mut self) -> LoginError {
        while self.inbox.len() < READ {
            if let Err(error) = self.fill().await {
                return error;
            }
        }
        std::future::pending().await
    }

    /// Appends a record with this message to what is to be sent.
    pub(crate) fn queue(&mut self, message: &Message) -> Result<(), LoginError> {
        let mut writer = Writer::begin(&mut self.outbox, Side::Server);
        writer.push(message).map_err(|_| LoginError::Internal("a message is longer than a record"))?;
        match &mut self.seals {
            Some((sealer, _)) => writer.seal(sealer).map_err(WireError::from)?,
            None => writer.plain(),
        }
        Ok(())
    }

    /// Sends what is queued.
    pub(crate) async fn flush(&mut self) -> Result<(), LoginError> {
        if self.outbox.is_empty() {
            return Ok(());
        }
        let written = async {
            self.stream.write_all(&self.outbox).await?;
            self.stream.flush().await
        };
        let written = timeout(WRITE_DEADLINE, written).await;
        written.map_err(|_| LoginError::Timeout("read"))??;
        self.outbox.clear();
        self.last_sent = Instant::now();
        Ok(())
    }

    pub(crate) async fn send(&mut self, message: &Message) -> Result<(), LoginError> {
        self.queue(message)?;
        self.flush().await
    }

    /// The last message, as the reply to `request` if there is one, and the end.
    pub(crate) async fn close(mut self, answer: Option<&Answer>, request: Option<u32>) {
        if let Some(answer) = answer {
            let message = match request {
                Some(request) => Message::error_reply(request, answer),
                None => Message::error_event(answer),
            };
            if self.send(&message).await.is_err() {
                return;
            }
        }
        // Bytes left unread would make the kernel reset the connection and drop our last message with it.
        let drain = async {
            self.stream.shutdown().await?;
            let mut rest = [0; 1_024];
            while self.stream.read(&mut rest).await? > 0 {}
            Ok::<_, std::io::Error>(())
        };
        let _ = timeout(LINGER, drain).await;
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn work_is_cancelled_when_client_disconnects() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, peer) = listener.accept().await.unwrap();
        let mut connection = Connection::new(Stream::Tcp(stream), peer, Instant::now());
        let done: Result<_, LoginError> = connection.run_while_connected(async { Ok(7) }).await;
        assert_eq!(done.unwrap(), 7);
        client.writable().await.unwrap();
        client.try_write(b"said too early").unwrap();
        drop(client);
        let disconnected = connection.run_while_connected(pending::<Result<(), LoginError>>()).await;
        assert!(matches!(disconnected, Err(LoginError::Closed | LoginError::Broken(_))));
        assert_eq!(connection.inbox, b"said too early"[..], "and nothing is lost");
    }
}
