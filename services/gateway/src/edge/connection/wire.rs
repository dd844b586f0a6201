//! One socket, before and after there are keys. Records are opened in the buffer into which they were read, and sealed in
//! the buffer from which they are written. A connection owns a buffer only for bytes that are left over.

use std::{
    io,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use shardkeep_auth::{ChannelBinding, session::SessionKeys};
use shardkeep_lanes::{CloseCode, Lane, Stream, Upgrade};
use shardkeep_wire::{
    Message, Side,
    payload::ErrorCode,
    preface::{Preface, PrefaceError},
    record::{Decoder, HEADER, Writer},
    seal::{Opener, SealError, Sealer, Suite},
};
use tokio::{io::AsyncWriteExt, time::timeout};

use super::{buffers, datagrams::Datagrams};
use crate::{error::ConnectionError, metrics::HOT};

/// Time for a client to receive the last error of its connection and to answer the close frame.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// During the handshake, a read takes at most one record, so that the bytes left over fit into the thread's buffer.
const RECORD: usize = HEADER + Side::Client.max_record();
const _: () = assert!(2 * RECORD < buffers::INBOUND);

/// A connection without keys.
pub(crate) struct PlainStream {
    stream: Stream,
    read: BytesMut,
    decoder: Decoder,
}

/// A connection with keys.
pub(crate) struct SealedStream {
    stream: Stream,
    /// Read and not a whole record yet.
    read: BytesMut,
    /// Messages of the session that came in the record of the handshake.
    deferred: BytesMut,
    /// Sealed; the first `written` bytes of it have been taken by the socket.
    write: BytesMut,
    written: usize,
    decoder: Decoder,
    opener: Opener,
    sealer: Sealer,
    /// On QUIC, to a client that takes them.
    datagrams: Option<Box<Datagrams>>,
}

/// The effect of a record on the records after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AfterRecord {
    Continue,
    /// The client's next record is under its next key.
    UpdateKey,
}

impl PlainStream {
    pub(crate) fn new(stream: Stream) -> Self {
        Self { stream, read: BytesMut::new(), decoder: Decoder::new(Side::Client) }
    }

    /// Reads and checks the preface. A connection that begins with HTTP or TLS becomes a WebSocket.
    pub(crate) async fn preface(
        &mut self,
        ours: &Preface,
        upgrade: Option<&Upgrade>,
    ) -> Result<ChannelBinding, ConnectionError> {
        let bytes = self.stream.first(upgrade, &mut self.read).await?;
        ours.accept(&bytes)?;
        Ok(ChannelBinding::new(&bytes, self.stream.exporter()))
    }

    pub(crate) fn lane(&self) -> Lane {
        self.stream.lane()
    }

    /// The next record, which must hold exactly one message.
    pub(crate) async fn message(&mut self) -> Result<Bytes, ConnectionError> {
        loop {
            if let Some(body) = self.decoder.next(&mut self.read)? {
                return Ok(body.freeze());
            }
            read_more(&self.stream, &mut self.read).await?;
        }
    }

    pub(crate) async fn send(&mut self, message: &[u8]) -> Result<(), ConnectionError> {
        let mut out = buffers::take_outbound();
        let mut record = Writer::begin(&mut out, Side::Server);
        // A message of the handshake always fits.
        let _ = record.push_encoded(message);
        record.plain();
        let remaining = match self.stream.try_write(&out) {
            Ok(count) => Bytes::copy_from_slice(&out[count..]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Bytes::copy_from_slice(&out),
            Err(error) => return Err(error.into()),
        };
        buffers::release_buffer(out);
        self.stream.write_all(&remaining).await?;
        Ok(())
    }

    /// Sends the error to a refused client and closes the connection. Whether it arrives does not matter.
    pub(crate) async fn refuse(mut self, error: &ConnectionError) {
        // A peer of another protocol gets no answer.
        if let Some(answer) = error.answer().filter(|_| !is_foreign(error)) {
            let _ = self.send(&Message::error_event(&answer).to_bytes()).await;
        }
        close(self.stream, close_code(error.answer().map(|answer| answer.code()))).await;
    }

    pub(crate) fn seal(self, suite: Suite, keys: &SessionKeys) -> Result<SealedStream, SealError> {
        Ok(SealedStream {
            datagrams: Datagrams::new(&self.stream, suite, keys)?,
            stream: self.stream,
            read: self.read,
            deferred: BytesMut::new(),
            write: BytesMut::new(),
            written: 0,
            decoder: self.decoder,
            opener: Opener::new(suite, keys.client.clone())?,
            sealer: Sealer::new(suite, keys.server.clone())?,
        })
    }
}

fn is_foreign(error: &ConnectionError) -> bool {
    use shardkeep_wire::WireError;
    matches!(error, ConnectionError::Wire(WireError::Preface(error)) if !matches!(error, PrefaceError::Version(_)))
}

impl SealedStream {
    /// The next record, opened. For the handshake, which takes one at a time.
    pub(crate) async fn record(&mut self) -> Result<BytesMut, ConnectionError> {
        loop {
            if let Some(mut body) = self.decoder.next(&mut self.read)? {
                self.opener.open(&mut body)?;
                return Ok(body);
            }
            read_more(&self.stream, &mut self.read).await?;
        }
    }

    /// Keeps messages of an opened record for the first [`Self::read`].
    pub(crate) fn defer(&mut self, messages: BytesMut) {
        self.deferred = messages;
    }

    /// Ready when there may be something to read.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_readable(cx)
    }

    /// Ready when the socket takes more.
    pub(crate) fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_writable(cx)
    }

    /// Reads what the socket has, and passes the messages of each record to `take`. Returns false if the client has closed
    /// the connection.
    pub(crate) fn read<E: From<ConnectionError>>(
        &mut self,
        mut take: impl FnMut(&[u8]) -> Result<AfterRecord, E>,
    ) -> Result<bool, E> {
        if !self.deferred.is_empty() {
            let deferred = std::mem::take(&mut self.deferred);
            if take(&deferred)? == AfterRecord::UpdateKey {
                self.opener.update().map_err(ConnectionError::from)?;
            }
        }
        buffers::with_inbound(|buffer| {
            let kept = self.read.len();
            buffer[..kept].copy_from_slice(&self.read);
            let read = some(self.stream.try_read(&mut buffer[kept..]));
            let (count, open) = match read {
                Ok(count) => (count, true),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => (0, false),
                Err(error) => return Err(ConnectionError::from(error).into()),
            };
            let rest = self.take_records(&mut buffer[..kept + count], &mut take)?;
            self.read = if rest.is_empty() { BytesMut::new() } else { BytesMut::from(rest) };
            Ok(open)
        })
    }

    /// Opens the complete records at the front of `buffer`, in place, and returns the bytes behind them.
    fn take_records<'a, E: From<ConnectionError>>(
        &mut self,
        buffer: &'a mut [u8],
        take: &mut impl FnMut(&[u8]) -> Result<AfterRecord, E>,
    ) -> Result<&'a [u8], E> {
        let mut at = 0;
        while let Some(length) = self.decoder.length(&buffer[at..]).map_err(ConnectionError::from)? {
            let body = at + HEADER..at + HEADER + length;
            let Some(body) = buffer.get_mut(body) else { break };
            let messages = self.opener.open_slice(body).map_err(ConnectionError::from)?;
            if take(messages)? == AfterRecord::UpdateKey {
                self.opener.update().map_err(ConnectionError::from)?;
            }
            at += HEADER + length;
        }
        Ok(&buffer[at..])
    }

    /// Borrows the thread's buffer to seal into, until [`Self::release_buffer`]; nothing in between may wait.
    pub(crate) fn borrow_buffer(&mut self) {
        if self.write.is_empty() {
            self.write = buffers::take_outbound();
        }
    }

    /// Gives the buffer back and keeps only what the socket has not taken.
    pub(crate) fn release_buffer(&mut self) {
        let used = std::mem::take(&mut self.write);
        if self.written < used.len() {
            self.write = BytesMut::from(&used[self.written..]);
        }
        self.written = 0;
        buffers::release_buffer(used);
    }

    /// The connection is silent: drops the expanded form of its keys.
    pub(crate) fn rest(&mut self) {
        self.opener.rest();
        self.sealer.rest();
    }

    pub(crate) fn lane(&self) -> Lane {
        self.stream.lane()
    }

    /// The way for state that may be lost; `None`: it goes into records.
    pub(crate) fn datagrams(&mut self) -> Option<(&mut Datagrams, &Stream)> {
        self.datagrams.as_deref_mut().map(|datagrams| (datagrams, &self.stream))
    }

    /// Bytes that the socket has not taken yet.
    pub(crate) fn unwritten(&self) -> usize {
        self.write.len() - self.written
    }

    /// Whether the server's key has sealed so many records that it has to change.
    pub(crate) fn key_update_due(&self) -> bool {
        self.sealer.update_due()
    }

    /// Seals one record of what `fill` puts into it. Returns false if that was nothing.
    pub(crate) fn append(&mut self, fill: impl FnOnce(&mut Writer<'_>)) -> Result<bool, SealError> {
        let mut record = Writer::begin(&mut self.write, Side::Server);
        fill(&mut record);
        let some = !record.is_empty();
        record.seal(&mut self.sealer)?;
        HOT.records_out.increment(u64::from(some));
        Ok(some)
    }

    /// The record before ended with the server's `KeyUpdate`.
    pub(crate) fn server_key_updated(&mut self) -> Result<(), SealError> {
        self.sealer.update()
    }

    /// Writes as much as the socket takes now.
    pub(crate) fn write(&mut self) -> io::Result<()> {
        while self.written < self.write.len() {
            match self.stream.try_write(&self.write[self.written..]) {
                Ok(count) => {
                    HOT.bytes_out.increment(count as u64);
                    HOT.writes.increment(1);
                    self.written += count;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.write.clear();
        self.written = 0;
        Ok(())
    }

    /// Seals and writes one message, waiting for the socket.
    pub(crate) async fn send(&mut self, message: &[u8]) -> Result<(), ConnectionError> {
        self.borrow_buffer();
        let sealed = self.append(|record| {
            // A message of the handshake always fits.
            let _ = record.push_encoded(message);
        });
        let written = self.write();
        self.release_buffer();
        sealed?;
        written?;
        while self.unwritten() > 0 {
            self.stream.writable().await?;
            self.write()?;
        }
        Ok(())
    }

    /// Sends the error and closes the connection. Whether it arrives does not matter.
    pub(crate) async fn refuse(mut self, error: &ConnectionError) {
        let answer = error.answer();
        if let Some(answer) = &answer {
            let _ = self.send(&Message::error_event(answer).to_bytes()).await;
        }
        self.close(close_code(answer.map(|answer| answer.code()))).await;
    }

    /// Closes the connection without waiting for the client to acknowledge it.
    pub(crate) async fn close(self, code: CloseCode) {
        close(self.stream, code).await;
    }
}

async fn close(mut stream: Stream, code: CloseCode) {
    let _ = timeout(CLOSE_TIMEOUT, stream.close(code)).await;
}

/// The close code of a WebSocket whose client was sent this error.
pub(crate) fn close_code(error: Option<ErrorCode>) -> CloseCode {
    match error {
        None | Some(ErrorCode::LoggedOut) => CloseCode::Normal,
        Some(ErrorCode::Draining) => CloseCode::GoingAway,
        Some(ErrorCode::Malformed | ErrorCode::UnsupportedVersion | ErrorCode::OutOfPhase) => {
            CloseCode::Protocol
        }
        Some(ErrorCode::TooLarge) => CloseCode::TooLarge,
        Some(ErrorCode::Unavailable | ErrorCode::Throttled) => CloseCode::TryAgainLater,
        Some(_) => CloseCode::Policy,
    }
}

/// Appends what the socket delivers next.
async fn read_more(stream: &Stream, kept: &mut BytesMut) -> io::Result<()> {
    stream.readable().await?;
    buffers::with_inbound(|buffer| {
        let count = some(stream.try_read(&mut buffer[..RECORD]))?;
        kept.extend_from_slice(&buffer[..count]);
        Ok(())
    })
}

/// Bytes read; 0 if there were none yet after all, an error if there will never be any.
fn some(read: io::Result<usize>) -> io::Result<usize> {
    match read {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(count) => {
            HOT.bytes_in.increment(count as u64);
            Ok(count)
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        Err(error) => Err(error),
    }
}
