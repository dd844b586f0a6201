//! A WebSocket (RFC 6455) as a stream of bytes: binary messages, whose borders have no meaning. The library answers pings;
//! a ping is no sign of life of the client protocol.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures::{Sink, Stream as _};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::TlsStream;
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        self, Message,
        client::IntoClientRequest,
        http::{HeaderValue, header::SEC_WEBSOCKET_PROTOCOL},
        protocol::{CloseFrame, Role, WebSocketConfig},
    },
};

use crate::{
    CloseCode, Lane,
    read_ahead::{ReadAhead, poll_now},
    rewind::Rewind,
    tls::io_error,
};

/// Subprotocol of the client protocol, for clients that name one.
pub(crate) const PROTOCOL: &str = "shardkeep.v1";
/// Bytes of one message. The greatest record and its length fit into two.
const MAX_MESSAGE: usize = 64 << 10;
/// Kept for each connection; the largest record of a client takes two reads.
const READ_BUFFER: usize = 4 << 10;

#[derive(Debug)]
pub struct WebSocket {
    lane: Lane,
    local: SocketAddr,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    socket: WebSocketStream<Transport>,
    /// The rest of the message that was read last.
    read_ahead: ReadAhead,
    /// The socket has not taken all of a message that the library has. No other message is accepted before it has.
    unsent: bool,
    /// A close frame was sent.
    closing: bool,
}

#[derive(Debug)]
pub(crate) enum Transport {
    Plain(Rewind),
    Tls(Box<TlsStream<Rewind>>),
}

fn limits() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_write_buffer_size(4 * MAX_MESSAGE)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE))
}

impl WebSocket {
    /// The server's side, after the opening handshake; `read` are bytes that came behind it.
    pub(crate) async fn accept(transport: Transport, read: Vec<u8>) -> io::Result<Self> {
        let (lane, local) = transport.kind()?;
        let socket =
            WebSocketStream::from_partially_read(transport, read, Role::Server, Some(limits())).await;
        Ok(Self::new(lane, local, socket))
    }

    pub(crate) async fn connect(address: SocketAddr, transport: Transport) -> io::Result<Self> {
        let (lane, local) = transport.kind()?;
        let mut request = format!("{lane}://{address}/").into_client_request().map_err(websocket_error)?;
        request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
        let socket = client_async_with_config(request, transport, Some(limits())).await;
        Ok(Self::new(lane, local, socket.map_err(websocket_error)?.0))
    }

    fn new(lane: Lane, local: SocketAddr, socket: WebSocketStream<Transport>) -> Self {
        let inner = Inner { socket, read_ahead: ReadAhead::default(), unsent: false, closing: false };
        Self { lane, local, inner: Mutex::new(inner) }
    }

    pub(crate) fn lane(&self) -> Lane {
        self.lane
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }

    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.lock().poll_readable(cx)
    }

    pub(crate) fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.lock().poll_flushed(cx)
    }

    /// Takes bytes that have arrived, at most `most`.
    pub(crate) fn try_take(&self, most: usize) -> io::Result<Bytes> {
        let mut inner = self.inner.lock();
        poll_now(|cx| inner.poll_readable(cx))?;
        Ok(inner.read_ahead.take(most))
    }

    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        poll_now(|cx| self.inner.lock().poll_write(cx, bytes))
    }

    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let inner = self.inner.get_mut();
        ready!(inner.poll_readable(cx))?;
        buffer.put_slice(&inner.read_ahead.take(buffer.remaining()));
        Poll::Ready(Ok(()))
    }

    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.inner.get_mut().poll_write(cx, bytes)
    }

    /// Sends a close frame. Does not wait for the answer.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.get_mut().poll_send_close(cx, CloseCode::Normal, "")
    }

    /// The closing handshake (RFC 6455, section 7.1.2): sends a close frame and waits for the other side's.
    pub(crate) fn poll_close(&mut self, cx: &mut Context<'_>, code: CloseCode) -> Poll<io::Result<()>> {
        let inner = self.inner.get_mut();
        ready!(inner.poll_send_close(cx, code, ""))?;
        loop {
            match ready!(Pin::new(&mut inner.socket).poll_next(cx)) {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return Poll::Ready(Ok(())),
                Some(Ok(_)) => {}
            }
        }
    }
}

impl Inner {
    /// Ready: `read_ahead` holds bytes, or the other side has finished.
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Poll::Ready(Err(error)) = self.poll_flushed(cx) {
            return Poll::Ready(Err(error));
        }
        while self.read_ahead.needs_read() {
            match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
                Some(Ok(Message::Binary(bytes))) => self.read_ahead.put(bytes),
                Some(Ok(Message::Text(_))) => {
                    let text = "a text message came; messages of the protocol are binary";
                    let _ = self.poll_send_close(cx, CloseCode::Unsupported, text);
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, text)));
                }
                Some(Ok(Message::Close(_))) => {
                    self.read_ahead.end();
                    // The library has queued its answer. Send it now, because nothing more is read from this connection.
                    (self.closing, self.unsent) = (true, true);
                    let _ = self.poll_flushed(cx);
                }
                None => self.read_ahead.end(),
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    let code = match &error {
                        tungstenite::Error::Capacity(_) => Some(CloseCode::TooLarge),
                        tungstenite::Error::Protocol(_) | tungstenite::Error::Utf8(_) => {
                            Some(CloseCode::Protocol)
                        }
                        _ => None,
                    };
                    if let Some(code) = code {
                        let _ = self.poll_send_close(cx, code, "");
                    }
                    return Poll::Ready(Err(websocket_error(error)));
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Ready: the socket has taken everything that was accepted.
    fn poll_flushed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unsent {
            match ready!(Pin::new(&mut self.socket).poll_flush(cx)) {
                // Both close frames were exchanged.
                Ok(()) | Err(tungstenite::Error::ConnectionClosed) => self.unsent = false,
                Err(error) => return Poll::Ready(Err(websocket_error(error))),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_send_close(
        &mut self,
        cx: &mut Context<'_>,
        code: CloseCode,
        reason: &'static str,
    ) -> Poll<io::Result<()>> {
        if !self.closing {
            ready!(self.poll_flushed(cx))?;
            ready!(Pin::new(&mut self.socket).poll_ready(cx)).map_err(websocket_error)?;
            let frame = CloseFrame { code: (code as u16).into(), reason: reason.into() };
            Pin::new(&mut self.socket).start_send(Message::Close(Some(frame))).map_err(websocket_error)?;
            (self.closing, self.unsent) = (true, true);
        }
        self.poll_flushed(cx)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_flushed(cx))?;
        ready!(Pin::new(&mut self.socket).poll_ready(cx)).map_err(websocket_error)?;
        let bytes = &bytes[..bytes.len().min(MAX_MESSAGE)];
        Pin::new(&mut self.socket)
            .start_send(Message::Binary(Bytes::copy_from_slice(bytes)))
            .map_err(websocket_error)?;
        self.unsent = true;
        if let Poll::Ready(Err(error)) = self.poll_flushed(cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(bytes.len()))
    }
}

impl Transport {
    fn kind(&self) -> io::Result<(Lane, SocketAddr)> {
        let (lane, tcp): (_, &TcpStream) = match self {
            Self::Plain(stream) => (Lane::Ws, stream.get_ref()),
            Self::Tls(stream) => (Lane::Wss, stream.get_ref().0.get_ref()),
        };
        Ok((lane, tcp.local_addr()?))
    }
}

fn websocket_error(error: tungstenite::Error) -> io::Error {
    match error {
        tungstenite::Error::Io(error) => error,
        tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => {
            io::ErrorKind::NotConnected.into()
        }
        error => io_error(error),
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
