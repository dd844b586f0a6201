//! TCP socket options. They are set once, on the listener, and connections inherit them, which saves system calls.

use std::io::{self, Read as _};

use socket2::SockRef;
use tokio::{
    io::Interest,
    net::{TcpListener, TcpStream},
};

/// Connections that the kernel queues until they are accepted (`net.core.somaxconn` may lower it). In a storm they
/// wait here instead of being retried by clients.
const BACKLOG: i32 = 4_096;
/// Unsent bytes below which a socket becomes writable. Other data waits in the session, where newer state replaces
/// it.
#[cfg(target_os = "linux")]
const NOTSENT_LOWAT: u32 = 16 << 10;

pub(crate) async fn listen(address: &str) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address).await?;
    let socket = SockRef::from(&listener);
    // All data that is due is written at once, so waiting for more gains nothing.
    socket.set_tcp_nodelay(true)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_notsent_lowat(NOTSENT_LOWAT)?;
    // On a listening socket this changes the length of its queue.
    socket.listen(BACKLOG)?;
    Ok(listener)
}

/// Like [`TcpStream::try_read`]. A read that does not fill the buffer has emptied the socket, so the next wait needs
/// no further read.
pub(crate) fn try_read(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let room = buffer.len();
    let mut count = 0;
    let result = stream.try_io(Interest::READABLE, || {
        count = (&*SockRef::from(stream)).read(buffer)?;
        if 0 < count && count < room { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    });
    match result {
        Err(error) if count == 0 => Err(error),
        _ => Ok(count),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn accepted_connections_inherit_listener_options() {
        let listener = listen("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        assert!(stream.nodelay().unwrap());
        #[cfg(target_os = "linux")]
        assert_eq!(SockRef::from(&stream).tcp_notsent_lowat().unwrap(), NOTSENT_LOWAT);
    }
}
