//! The server's side of a WebSocket's opening handshake (RFC 6455, section 4.2), in plain TCP or in TLS. Every request that
//! does not become a WebSocket gets an HTTP response that says why.

use std::{fmt, io, sync::Arc};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::{
    rewind::Rewind,
    tls::{CertificateError, HTTP_PROTOCOL, ServerCertificate},
    websocket::{PROTOCOL, Transport, WebSocket},
};

/// Most bytes of a request with its headers.
const MAX_REQUEST: usize = 8 << 10;
const MAX_HEADERS: usize = 64;
/// The version of the WebSocket protocol (RFC 6455, section 4.1).
const VERSION: &str = "13";

/// Turns a TCP connection that begins with HTTP, or with TLS and HTTP in it, into a WebSocket.
pub struct Upgrade {
    tls: TlsAcceptor,
    /// Empty: every origin may connect.
    allowed_origins: Vec<String>,
}

impl fmt::Debug for Upgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upgrade").field("allowed_origins", &self.allowed_origins).finish_non_exhaustive()
    }
}

/// Why a request does not become a WebSocket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Refusal {
    #[error("the request is not HTTP/1.1")]
    NotHttp,
    #[error("the request has more than {MAX_REQUEST} bytes or {MAX_HEADERS} headers")]
    TooLarge,
    #[error(
        "this server answers WebSocket requests only: send `Connection: Upgrade` and `Upgrade: websocket`"
    )]
    NoUpgrade,
    #[error("this server speaks WebSocket version {VERSION}: send `Sec-WebSocket-Version: {VERSION}`")]
    Version,
    #[error("the request has no `Sec-WebSocket-Key`")]
    NoKey,
    #[error("pages of the origin {0:?} may not connect: add it to `allowed_origins`")]
    Origin(String),
}

impl Refusal {
    fn status(&self) -> &'static str {
        match self {
            Self::NotHttp | Self::NoKey => "400 Bad Request",
            Self::TooLarge => "431 Request Header Fields Too Large",
            Self::NoUpgrade | Self::Version => "426 Upgrade Required",
            Self::Origin(_) => "403 Forbidden",
        }
    }

    /// RFC 9110, section 15.5.22, asks for `Upgrade` with status 426, and RFC 6455, section 4.4, for the version.
    fn response(&self) -> String {
        let more = match self {
            Self::NoUpgrade | Self::Version => {
                format!("Upgrade: websocket\r\nSec-WebSocket-Version: {VERSION}\r\n")
            }
            _ => String::new(),
        };
        let body = format!("{self}\n");
        format!(
            "HTTP/1.1 {}\r\nConnection: close\r\n{more}Content-Type: text/plain; charset=utf-8\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.status(),
            body.len(),
        )
    }
}

/// Parts of a valid request that the response needs.
#[derive(Debug, PartialEq, Eq)]
struct Request {
    accept_key: String,
    names_protocol: bool,
    /// Length of the request; more bytes belong to the WebSocket.
    length: usize,
}

impl Upgrade {
    pub(crate) fn new(
        certificate: &ServerCertificate,
        allowed_origins: Vec<String>,
    ) -> Result<Self, CertificateError> {
        let tls = TlsAcceptor::from(Arc::new(certificate.server(HTTP_PROTOCOL)?));
        Ok(Self { tls, allowed_origins })
    }

    /// Whether these bytes begin an HTTP request of the right method, or a TLS handshake.
    pub(crate) fn is_upgrade(&self, first: &[u8]) -> bool {
        first.starts_with(b"GET ") || is_tls(first)
    }

    /// `first` was read from the stream already.
    pub(crate) async fn accept(&self, stream: TcpStream, first: Bytes) -> io::Result<WebSocket> {
        let tls = is_tls(&first);
        let stream = Rewind::new(first, stream);
        let mut transport = if tls {
            Transport::Tls(Box::new(self.tls.accept(stream).await?.into()))
        } else {
            Transport::Plain(stream)
        };
        let mut read = BytesMut::new();
        match self.read_request(&mut transport, &mut read).await? {
            Ok(request) => {
                transport.write_all(request.response().as_bytes()).await?;
                transport.flush().await?;
                WebSocket::accept(transport, read.split_off(request.length).to_vec()).await
            }
            Err(refusal) => {
                transport.write_all(refusal.response().as_bytes()).await?;
                transport.shutdown().await?;
                Err(io::Error::new(io::ErrorKind::InvalidData, refusal))
            }
        }
    }

    async fn read_request(
        &self,
        transport: &mut Transport,
        read: &mut BytesMut,
    ) -> io::Result<Result<Request, Refusal>> {
        loop {
            if transport.read_buf(read).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            match self.parse(read) {
                Ok(None) if read.len() > MAX_REQUEST => return Ok(Err(Refusal::TooLarge)),
                Ok(None) => {}
                Ok(Some(request)) => return Ok(Ok(request)),
                Err(refusal) => return Ok(Err(refusal)),
            }
        }
    }

    /// `None`: the request is not complete yet.
    fn parse(&self, bytes: &[u8]) -> Result<Option<Request>, Refusal> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        let length = match request.parse(bytes) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(httparse::Error::TooManyHeaders) => return Err(Refusal::TooLarge),
            Err(_) => return Err(Refusal::NotHttp),
        };
        let values = |name: &'static str| {
            let headers = request.headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
            headers.filter_map(|header| std::str::from_utf8(header.value).ok()).map(str::trim)
        };
        let lists = |name, wanted: &str| {
            values(name)
                .flat_map(|value| value.split(','))
                .any(|item| item.trim().eq_ignore_ascii_case(wanted))
        };
        if !lists("connection", "upgrade") || !lists("upgrade", "websocket") {
            return Err(Refusal::NoUpgrade);
        }
        if values("sec-websocket-version").next() != Some(VERSION) {
            return Err(Refusal::Version);
        }
        let key = values("sec-websocket-key").next().filter(|key| !key.is_empty()).ok_or(Refusal::NoKey)?;
        // Programs other than browsers send no origin.
        if let Some(origin) = values("origin").next()
            && !self.allowed_origins.is_empty()
            && !self.allowed_origins.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin))
        {
            return Err(Refusal::Origin(origin.to_owned()));
        }
        Ok(Some(Request {
            accept_key: derive_accept_key(key.as_bytes()),
            names_protocol: lists("sec-websocket-protocol", PROTOCOL),
            length,
        }))
    }
}

impl Request {
    fn response(&self) -> String {
        let protocol = if self.names_protocol {
            format!("Sec-WebSocket-Protocol: {PROTOCOL}\r\n")
        } else {
            String::new()
        };
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {}\r\n{protocol}\r\n",
            self.accept_key,
        )
    }
}

/// A record of type handshake and of any version (RFC 8446, section 5.1).
fn is_tls(first: &[u8]) -> bool {
    first.starts_with(&[0x16, 0x03])
}
