//! Records in and out of one socket: plain first, sealed later. The opcode table checks each message before anything else
//! looks at it; liveness messages are answered here.

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

use crate::ConnectionError;

/// Bytes requested from the socket at once. The inbox holds at most this much beyond one record, which bounds the memory
/// that a client can use.
const READ: usize = 4_096;
/// A client that reads nothing for this long is disconnected.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// Time to keep reading after the last message, so that a reset does not destroy it.
const LINGER: Duration = Duration::from_millis(500);

pub struct Connection {
    stream: Stream,
    peer: SocketAddr,
    phase: Phase,
    inbox: BytesMut,
    /// Messages of the last opened record that have not been read yet.
    record: Bytes,
    outbox: BytesMut,
    seals: Option<(Sealer, Opener)>,
    limiter: Limiter,
    strikes: Strikes,
    last_received: Instant,
    last_sent: Instant,
    /// Counts a message that the opcode table refuses, by the label of the violation.
    count_violation: fn(&'static str),
}

impl Connection {
    pub fn new(stream: Stream, peer: SocketAddr, now: Instant, count_violation: fn(&'static str)) -> Self {
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
            count_violation,
        }
    }

    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// When the last bytes came from the client.
    pub fn last_received(&self) -> Instant {
        self.last_received
    }

    /// When the last bytes went to the client.
    pub fn last_sent(&self) -> Instant {
        self.last_sent
    }

    /// Reads the preface. It must equal one of `accepted`, and an error is that of the last one. Nothing is allocated
    /// before it is known to be right, unless the connection turns out to be a WebSocket.
    ///
    /// # Errors
    /// The connection ended, or the preface belongs to another protocol, version, service or deployment.
    pub async fn preface(
        &mut self,
        accepted: &[Preface],
        upgrade: Option<&Upgrade>,
    ) -> Result<(Service, ChannelBinding), ConnectionError> {
        let bytes = self.stream.first(upgrade, &mut self.inbox).await?;
        let mut refused = None;
        for preface in accepted {
            match preface.accept(&bytes) {
                Ok(()) => return Ok((preface.service, ChannelBinding::new(&bytes, self.stream.exporter()))),
                Err(error) => refused = Some(error),
            }
        }
        Err(refused.map_or(ConnectionError::Closed, |error| WireError::from(error).into()))
    }

    pub fn lane(&self) -> Lane {
        self.stream.lane()
    }

    /// The socket itself, for data that is sent from a file. Use it only between messages, when nothing is queued.
    pub fn stream(&mut self) -> &mut Stream {
        &mut self.stream
    }

    /// Selects the opcodes that are allowed from now on.
    pub fn enter(&mut self, phase: Phase) {
        self.phase = phase;
    }

    /// Seals everything that follows, in both directions.
    ///
    /// # Errors
    /// The client has sent plain messages behind the last plain one.
    pub fn seal(&mut self, suite: Suite, client: Key, server: Key) -> Result<(), ConnectionError> {
        if !self.record.is_empty() {
            return Err(ConnectionError::Malformed("plain messages after the last plain one"));
        }
        let sealer = Sealer::new(suite, server).map_err(WireError::from)?;
        let opener = Opener::new(suite, client).map_err(WireError::from)?;
        self.seals = Some((sealer, opener));
        Ok(())
    }

    /// Waits for the next message that the current phase allows.
    ///
    /// # Errors
    /// The connection ended, or the client broke the protocol once too often.
    pub async fn receive(&mut self) -> Result<Message, ConnectionError> {
        loop {
            if let Some(message) = self.next(Instant::now())? {
                return Ok(message);
            }
            self.flush().await?;
            self.fill().await?;
        }
    }

    /// The next allowed message among the bytes that have arrived; `None`: call [`Self::fill`] first. Answers to other
    /// messages are queued.
    ///
    /// # Errors
    /// The client broke the protocol once too often.
    pub fn next(&mut self, now: Instant) -> Result<Option<Message>, ConnectionError> {
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

    fn update_key(&mut self) -> Result<(), ConnectionError> {
        if !self.record.is_empty() {
            return Err(ConnectionError::Malformed("messages after KeyUpdate in its record"));
        }
        match &mut self.seals {
            Some((_, opener)) => Ok(opener.update().map_err(WireError::from)?),
            None => Err(ConnectionError::Malformed("KeyUpdate without a key")),
        }
    }

    /// Counts a message that the opcode table refuses, and answers it if it is a request. Too many of them are an error.
    fn strike(
        &mut self,
        message: &Message,
        violation: Violation,
        now: Instant,
    ) -> Result<(), ConnectionError> {
        (self.count_violation)(violation.label());
        tracing::debug!(peer = %self.peer, %violation, "violation");
        let error = ConnectionError::from(WireError::from(violation));
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

    /// Waits for more bytes. Cancel safe: dropping the future loses no bytes.
    ///
    /// # Errors
    /// The connection ended.
    pub async fn fill(&mut self) -> Result<(), ConnectionError> {
        self.inbox.reserve(READ);
        let read = self.stream.read_buf(&mut self.inbox).await?;
        self.last_received = Instant::now();
        if read == 0 { Err(ConnectionError::Closed) } else { Ok(()) }
    }

    /// Runs `work`, and cancels it when the client disconnects.
    ///
    /// # Errors
    /// That of `work`, or the end of the connection.
    pub async fn run_while_connected<T, E: From<ConnectionError>>(
        &mut self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        tokio::select! {
            biased;
            done = work => done,
            disconnected = self.disconnected() => Err(disconnected.into()),
        }
    }

    /// Waits for the end of the connection. Bytes that arrive are kept; a client that sends many of them before it is
    /// asked is not read any further.
    async fn disconnected(&mut self) -> ConnectionError {
        while self.inbox.len() < READ {
            if let Err(error) = self.fill().await {
                return error;
            }
        }
        std::future::pending().await
    }

    /// Appends a record with this message to the outbox.
    ///
    /// # Errors
    /// The message does not fit into a record.
    pub fn queue(&mut self, message: &Message) -> Result<(), ConnectionError> {
        let mut writer = Writer::begin(&mut self.outbox, Side::Server);
        writer.push(message).map_err(|_| ConnectionError::MessageTooLong)?;
        match &mut self.seals {
            Some((sealer, _)) => writer.seal(sealer).map_err(WireError::from)?,
            None => writer.plain(),
        }
        Ok(())
    }

    /// Sends the outbox.
    ///
    /// # Errors
    /// The connection ended, or the client does not read.
    pub async fn flush(&mut self) -> Result<(), ConnectionError> {
        if self.outbox.is_empty() {
            return Ok(());
        }
        let written = async {
            self.stream.write_all(&self.outbox).await?;
            self.stream.flush().await
        };
        let written = timeout(WRITE_TIMEOUT, written).await;
        written.map_err(|_| ConnectionError::Timeout("read"))??;
        self.outbox.clear();
        self.last_sent = Instant::now();
        Ok(())
    }

    /// Queues a message and sends the outbox.
    ///
    /// # Errors
    /// As [`Self::queue`] and [`Self::flush`].
    pub async fn send(&mut self, message: &Message) -> Result<(), ConnectionError> {
        self.queue(message)?;
        self.flush().await
    }

    /// Sends a last message, as the reply to `request` if there is one, and closes the connection.
    pub async fn close(mut self, answer: Option<&Answer>, request: Option<u32>) {
        if let Some(answer) = answer {
            let message = match request {
                Some(request) => Message::error_reply(request, answer),
                None => Message::error_event(answer),
            };
            if self.send(&message).await.is_err() {
                return;
            }
        }
        // Unread bytes would make the kernel reset the connection and drop the last message.
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
        let mut connection = Connection::new(Stream::Tcp(stream), peer, Instant::now(), |_| ());
        let done: Result<_, ConnectionError> = connection.run_while_connected(async { Ok(7) }).await;
        assert_eq!(done.unwrap(), 7);
        client.writable().await.unwrap();
        client.try_write(b"said too early").unwrap();
        drop(client);
        let disconnected = connection.run_while_connected(pending::<Result<(), ConnectionError>>()).await;
        assert!(matches!(disconnected, Err(ConnectionError::Closed | ConnectionError::Io(_))));
        assert_eq!(connection.inbox, b"said too early"[..], "bytes that arrive early are kept");
    }
}
