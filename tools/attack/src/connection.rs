//! A connection on which an attack chooses every byte, and the way in which the server ends it.

use std::{io, time::Duration};

use bytes::BytesMut;
use shardkeep_client::wire::{
    Message, Side, opcode,
    payload::{self, ErrorCode},
    preface::{Preface, Service},
    record::Decoder,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, timeout_at},
};

use crate::{loopback::Loopback, source};

/// How the server ended a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectionEnd {
    /// With this error.
    ServerError(ErrorCode),
    Closed,
    Reset,
    /// It did not: it waits for more.
    Open,
    /// It answered as it answers an honest client.
    Answered(u16),
}

impl ConnectionEnd {
    pub fn label(&self) -> String {
        match self {
            Self::ServerError(code) => code.as_str_name().to_owned(),
            Self::Closed => "closed".into(),
            Self::Reset => "reset".into(),
            Self::Open => "still open".into(),
            Self::Answered(code) => opcode::name(*code).to_owned(),
        }
    }
}

pub struct RawConnection {
    stream: TcpStream,
    inbound: BytesMut,
    opened: Instant,
}

impl RawConnection {
    pub async fn open(target: Loopback) -> io::Result<Self> {
        Ok(Self::from_stream(source::connect(target).await?))
    }

    pub fn from_stream(stream: TcpStream) -> Self {
        Self { stream, inbound: BytesMut::new(), opened: Instant::now() }
    }

    pub fn age(&self) -> Duration {
        self.opened.elapsed()
    }

    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Sends a message in one plain record.
    pub async fn send_message(&mut self, message: &Message) -> io::Result<()> {
        self.send(&plain_record(&message.to_bytes())).await
    }

    /// The first thing the server says, or how it ends the connection; [`ConnectionEnd::Open`] at `until`.
    pub async fn answer(&mut self, until: Instant) -> (ConnectionEnd, Option<Message>) {
        timeout_at(until, self.first()).await.unwrap_or((ConnectionEnd::Open, None))
    }

    /// Reads until the server ends the connection, or returns [`ConnectionEnd::Open`] at `until`. Earlier messages count only
    /// if they are errors.
    pub async fn end(&mut self, until: Instant) -> ConnectionEnd {
        let mut last = None;
        loop {
            match self.answer(until).await {
                (ConnectionEnd::Answered(_), _) => {}
                (ConnectionEnd::ServerError(code), _) => last = Some(code),
                (end, _) => return last.map_or(end, ConnectionEnd::ServerError),
            }
        }
    }

    /// How the server ends the connection, whatever it says before; [`ConnectionEnd::Open`] at `until`.
    pub async fn read_until_close(&mut self, until: Instant) -> ConnectionEnd {
        let reading = async {
            loop {
                self.inbound.clear();
                match self.stream.read_buf(&mut self.inbound).await {
                    Ok(0) => return ConnectionEnd::Closed,
                    Ok(_) => {}
                    Err(_) => return ConnectionEnd::Reset,
                }
            }
        };
        timeout_at(until, reading).await.unwrap_or(ConnectionEnd::Open)
    }

    async fn first(&mut self) -> (ConnectionEnd, Option<Message>) {
        loop {
            match Decoder::new(Side::Server).next(&mut self.inbound) {
                Ok(Some(body)) => {
                    if let Ok(Some(message)) = Message::split_from(&mut body.freeze()) {
                        return (end_of(&message), Some(message));
                    }
                }
                Ok(None) => {}
                Err(_) => self.inbound.clear(),
            }
            match self.stream.read_buf(&mut self.inbound).await {
                Ok(0) => return (ConnectionEnd::Closed, None),
                Ok(_) => {}
                Err(_) => return (ConnectionEnd::Reset, None),
            }
        }
    }
}

fn end_of(message: &Message) -> ConnectionEnd {
    if message.opcode != opcode::ERROR {
        return ConnectionEnd::Answered(message.opcode);
    }
    message
        .decode::<payload::Error>()
        .map_or(ConnectionEnd::Closed, |error| ConnectionEnd::ServerError(error.code()))
}

/// The bytes that open a connection to a service.
pub fn preface(service: Service, deployment: u32) -> [u8; 12] {
    Preface::new(service, deployment).encode()
}

/// A plain record around these bytes. Longer ones keep their first 64 KiB.
pub fn plain_record(body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap_or(u16::MAX);
    [&length.to_le_bytes()[..], &body[..usize::from(length)]].concat()
}

/// A word for a connection that could not even be opened.
pub fn connect_error_label(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused",
        io::ErrorKind::TimedOut => "no connection",
        io::ErrorKind::AddrNotAvailable => "no address left",
        _ => "not opened",
    }
}
