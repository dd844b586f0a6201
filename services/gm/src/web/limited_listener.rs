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
const MAX_CONNECTIONS: usize = 512;
/// A connection on which nothing moves for so long is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) struct LimitedListener {
    listener: TcpListener,
    permits: Arc<Semaphore>,
}

/// Where a connection comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClientAddress(pub(crate) SocketAddr);

impl LimitedListener {
    pub(crate) fn new(listener: TcpListener) -> Self {
        Self { listener, permits: Arc::new(Semaphore::new(MAX_CONNECTIONS)) }
    }
}

impl Listener for LimitedListener {
    type Io = LimitedStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        // The semaphore is never closed; without a seat nothing is accepted.
        let Ok(permit) = Arc::clone(&self.permits).acquire_owned().await else {
            return std::future::pending().await;
        };
        let (stream, address) = Listener::accept(&mut self.listener).await;
        (LimitedStream::new(stream, permit), address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Connected<IncomingStream<'_, LimitedListener>> for ClientAddress {
    fn connect_info(stream: IncomingStream<'_, LimitedListener>) -> Self {
        Self(*stream.remote_addr())
    }
}

/// A connection with its seat.
pub(crate) struct LimitedStream<S> {
    stream: S,
    /// Ends the silence; moved on when something moves.
    deadline: Pin<Box<Sleep>>,
    last_activity: Instant,
    _permit: OwnedSemaphorePermit,
}

impl<S> LimitedStream<S> {
    fn new(stream: S, permit: OwnedSemaphorePermit) -> Self {
        let last_activity = Instant::now();
        Self {
            stream,
            deadline: Box::pin(sleep_until(last_activity + IDLE_TIMEOUT)),
            last_activity,
            _permit: permit,
        }
    }

    /// Ready when nothing has moved for too long.
    fn poll_idle(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.deadline.as_mut().poll(context));
            let idle_deadline = self.last_activity + IDLE_TIMEOUT;
            if idle_deadline <= Instant::now() {
                return Poll::Ready(());
            }
            self.deadline.as_mut().reset(idle_deadline);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for LimitedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(result) = Pin::new(&mut self.stream).poll_read(context, buffer) {
            self.last_activity = Instant::now();
            return Poll::Ready(result);
        }
        self.poll_idle(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for LimitedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes));
        self.last_activity = Instant::now();
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
    async fn idle_connection_times_out_and_releases_its_permit() {
        let permits = Arc::new(Semaphore::new(1));
        let (near, _far) = duplex(1024);
        let mut limited = LimitedStream::new(near, Arc::clone(&permits).acquire_owned().await.unwrap());
        let began = Instant::now();
        tokio::time::sleep(IDLE_TIMEOUT / 2).await;
        limited.write_all(b"a picture").await.unwrap();
        let end = limited.read_u8().await.unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed().as_secs(), (IDLE_TIMEOUT * 3 / 2).as_secs());
        assert_eq!(permits.available_permits(), 0);
        drop(limited);
        assert_eq!(permits.available_permits(), 1);
    }
}
