//! One socket with its buffers, before and after there are keys.

use std::io;

use bytes::{Bytes, BytesMut};
use shardkeep_auth::{Binding, session::SessionKeys};
use shardkeep_lanes::{Lane, Stream, Upgrade};
use shardkeep_wire::{
    Message, Side,
    preface::{Preface, PrefaceError},
    record::{Decoder, Writer},
    seal::{Opener, SealError, Sealer, Suite},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::datagrams::Datagrams;
use crate::{error::DoorError, metrics::HOT};

/// What is reserved before each read.
const CHUNK: usize = 1_024;

/// A connection without keys.
pub(crate) struct Plain {
    stream: Stream,
    read: BytesMut,
    decoder: Decoder,
}

/// A connection with keys.
pub(crate) struct Sealed {
    stream: Stream,
    read: BytesMut,
    write: BytesMut,
    decoder: Decoder,
    // Apart, because keys are large and futures that hold a connection are moved and multiplied.
    keys: Box<Keys>,
    /// On QUIC, to a client that takes them.
    datagrams: Option<Box<Datagrams>>,
}

struct Keys {
    opener: Opener,
    sealer: Sealer,
}

impl Plain {
    pub(crate) fn new(stream: Stream) -> Self {
        Self { stream, read: BytesMut::new(), decoder: Decoder::new(Side::Client) }
    }

    /// The first bytes, judged before anything else is read or allocated. A connection that begins like one is a
    /// WebSocket from here on.
    pub(crate) async fn preface(
        &mut self,
        ours: &Preface,
        upgrade: Option<&Upgrade>,
    ) -> Result<Binding, DoorError> {
        let bytes = self.stream.first(upgrade).await?;
        ours.accept(&bytes)?;
        Ok(Binding::new(&bytes, self.stream.exporter()))
    }

    pub(crate) fn lane(&self) -> Lane {
        self.stream.lane()
    }

    /// The next record, which must hold exactly one message.
    pub(crate) async fn message(&mut self) -> Result<Bytes, DoorError> {
        loop {
            if let Some(body) = self.decoder.next(&mut self.read)? {
                return Ok(body.freeze());
            }
            read_more(&mut self.stream, &mut self.read).await?;
        }
    }

    pub(crate) async fn send(&mut self, message: &[u8]) -> Result<(), DoorError> {
        let mut out = BytesMut::new();
        let mut record = Writer::begin(&mut out, Side::Server);
        // A message of the handshake always fits.
        let _ = record.push_encoded(message);
        record.plain();
        self.stream.write_all(&out).await?;
        Ok(())
    }

    /// The last thing said to a client that is turned away. Whether it arrives does not matter.
    pub(crate) async fn refuse(mut self, error: &DoorError) {
        // A connection of another protocol is closed without a word.
        if let Some(answer) = error.answer().filter(|_| !is_foreign(error)) {
            let _ = self.send(&Message::error_event(&answer).to_bytes()).await;
        }
        let _ = self.stream.shutdown().await;
    }

    pub(crate) fn seal(self, suite: Suite, keys: &SessionKeys) -> Result<Sealed, SealError> {
        Ok(Sealed {
            datagrams: Datagrams::new(&self.stream, suite, keys)?,
            stream: self.stream,
            read: self.read,
            write: BytesMut::new(),
            decoder: self.decoder,
            keys: Box::new(Keys {
                opener: Opener::new(suite, keys.client.clone())?,
                sealer: Sealer::new(suite, keys.server.clone())?,
            }),
        })
    }
}

fn is_foreign(error: &DoorError) -> bool {
    use shardkeep_wire::WireError;
    matches!(error, DoorError::Wire(WireError::Preface(error)) if !matches!(error, PrefaceError::Version(_)))
}

impl Sealed {
    /// The next record, opened.
    pub(crate) async fn record(&mut self) -> Result<BytesMut, DoorError> {
        loop {
            if let Some(record) = self.next_record()? {
                return Ok(record);
            }
            read_more(&mut self.stream, &mut self.read).await?;
        }
    }

    /// A record that has arrived already.
    pub(crate) fn next_record(&mut self) -> Result<Option<BytesMut>, DoorError> {
        let Some(mut body) = self.decoder.next(&mut self.read)? else { return Ok(None) };
        self.keys.opener.open(&mut body)?;
        Ok(Some(body))
    }

    /// The record before ended with the client's `KeyUpdate`.
    pub(crate) fn client_key_updated(&mut self) -> Result<(), SealError> {
        self.keys.opener.update()
    }

    pub(crate) async fn readable(&self) -> io::Result<()> {
        self.stream.readable().await
    }

    pub(crate) async fn writable(&self) -> io::Result<()> {
        self.stream.writable().await
    }

    /// Takes what the socket has. False: the client has hung up.
    pub(crate) fn read(&mut self) -> io::Result<bool> {
        self.read.reserve(CHUNK);
        match self.stream.try_read_buf(&mut self.read) {
            Ok(0) => Ok(false),
            Ok(count) => {
                HOT.bytes_in.increment(count as u64);
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Gives memory back before the connection waits: most connections wait most of the time.
    pub(crate) fn shrink(&mut self) {
        for buffer in [&mut self.read, &mut self.write] {
            if buffer.is_empty() {
                *buffer = BytesMut::new();
            }
        }
    }

    pub(crate) fn lane(&self) -> Lane {
        self.stream.lane()
    }

    /// Where state goes that may be lost; `None`: into records.
    pub(crate) fn datagrams(&mut self) -> Option<(&mut Datagrams, &Stream)> {
        self.datagrams.as_deref_mut().map(|datagrams| (datagrams, &self.stream))
    }

    /// Bytes that the socket has not taken yet.
    pub(crate) fn unwritten(&self) -> usize {
        self.write.len()
    }

    /// Whether the server's key has served for long enough by its record count.
    pub(crate) fn key_update_due(&self) -> bool {
        self.keys.sealer.update_due()
    }

    /// Seals one record of what `fill` puts into it; false if that was nothing.
    pub(crate) fn append(&mut self, fill: impl FnOnce(&mut Writer<'_>)) -> Result<bool, SealError> {
        let mut record = Writer::begin(&mut self.write, Side::Server);
        fill(&mut record);
        let some = !record.is_empty();
        record.seal(&mut self.keys.sealer)?;
        HOT.records_out.increment(u64::from(some));
        Ok(some)
    }

    /// The record before ended with the server's `KeyUpdate`.
    pub(crate) fn server_key_updated(&mut self) -> Result<(), SealError> {
        self.keys.sealer.update()
    }

    /// Writes as much as the socket takes now.
    pub(crate) fn write(&mut self) -> io::Result<()> {
        while !self.write.is_empty() {
            match self.stream.try_write(&self.write) {
                Ok(count) => {
                    HOT.bytes_out.increment(count as u64);
                    let _ = self.write.split_to(count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.write.clear();
        Ok(())
    }

    /// Seals and writes one message, waiting for the socket.
    pub(crate) async fn send(&mut self, message: &[u8]) -> Result<(), DoorError> {
        self.append(|record| {
            // A message of the handshake always fits.
            let _ = record.push_encoded(message);
        })?;
        self.drain().await?;
        Ok(())
    }

    /// Writes everything that is sealed, waiting for the socket.
    pub(crate) async fn drain(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.write).await?;
        HOT.bytes_out.increment(self.write.len() as u64);
        self.write.clear();
        Ok(())
    }

    /// The last thing said; whether it arrives does not matter.
    pub(crate) async fn refuse(mut self, error: &DoorError) {
        if let Some(answer) = error.answer() {
            let _ = self.send(&Message::error_event(&answer).to_bytes()).await;
        }
        self.close().await;
    }

    pub(crate) async fn close(mut self) {
        let _ = self.stream.shutdown().await;
    }
}

async fn read_more(stream: &mut Stream, buffer: &mut BytesMut) -> io::Result<()> {
    buffer.reserve(CHUNK);
    match stream.read_buf(buffer).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        count => {
            HOT.bytes_in.increment(count as u64);
            Ok(())
        }
    }
}
