//! The door of the web site: so many connections at once, and none that says nothing for long.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep, sleep_until},
};

/// Connections at once. Full: further ones wait in the kernel's queue.
const CONNECTIONS: usize = 512;
/// A connection on which nothing moves for so long is closed.
const SILENCE: Duration = Duration::from_secs(60);

pub(crate) struct Door {
    listener: TcpListener,
    seats: Arc<Semaphore>,
}

/// Where a connection comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller(pub(crate) SocketAddr);

impl Door {
    pub(crate) fn new(listener: TcpListener) -> Self {
        Self { listener, seats: Arc::new(Semaphore::new(CONNECTIONS)) }
    }
}

impl Listener for Door {
    type Io = Seated<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        // The semaphore is never closed; without a seat nothing is accepted.
        let Ok(seat) = Arc::clone(&self.seats).acquire_owned().await else {
            return std::future::pending().await;
        };
        let (stream, address) = Listener::accept(&mut self.listener).await;
        (Seated::new(stream, seat), address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Connected<IncomingStream<'_, Door>> for Caller {
    fn connect_info(stream: IncomingStream<'_, Door>) -> Self {
        Self(*stream.remote_addr())
    }
}

/// A connection with its seat.
pub(crate) struct Seated<S> {
    stream: S,
    /// Ends the silence; moved on when something moves.
    deadline: Pin<Box<Sleep>>,
    moved: Instant,
    _seat: OwnedSemaphorePermit,
}

impl<S> Seated<S> {
    fn new(stream: S, seat: OwnedSemaphorePermit) -> Self {
        let moved = Instant::now();
        Self { stream, deadline: Box::pin(sleep_until(moved + SILENCE)), moved, _seat: seat }
    }

    /// Ready when nothing has moved for too long.
    fn poll_silence(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.deadline.as_mut().poll(context));
            let silent_until = self.moved + SILENCE;
            if silent_until <= Instant::now() {
                return Poll::Ready(());
            }
            self.deadline.as_mut().reset(silent_until);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Seated<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(result) = Pin::new(&mut self.stream).poll_read(context, buffer) {
            self.moved = Instant::now();
            return Poll::Ready(result);
        }
        self.poll_silence(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Seated<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes));
        self.moved = Instant::now();
        Poll::Ready(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_silent_connection_ends_and_one_that_is_written_to_does_not() {
        let seats = Arc::new(Semaphore::new(1));
        let (near, _far) = duplex(1024);
        let mut seated = Seated::new(near, Arc::clone(&seats).acquire_owned().await.unwrap());
        let began = Instant::now();
        tokio::time::sleep(SILENCE / 2).await;
        seated.write_all(b"a picture").await.unwrap();
        let end = seated.read_u8().await.unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed().as_secs(), (SILENCE * 3 / 2).as_secs());
        assert_eq!(seats.available_permits(), 0);
        drop(seated);
        assert_eq!(seats.available_permits(), 1);
    }
}
