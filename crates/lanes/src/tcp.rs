//! The TCP sockets themselves. Their options are set once, on the listener: connections inherit them, which saves system
//! calls for each.

use std::io::{self, Read as _};

use socket2::SockRef;
use tokio::{
    io::Interest,
    net::{TcpListener, TcpStream},
};

/// Connections that the kernel holds until they are accepted (`net.core.somaxconn` may hold it lower). In a storm they
/// wait here, not in the clients' repeated attempts.
const BACKLOG: i32 = 4_096;
/// A socket asks for more once so little of what it was given is unsent: what waits longer waits in the session, where
/// newer state replaces it.
#[cfg(target_os = "linux")]
const NOTSENT_LOWAT: u32 = 16 << 10;

pub(crate) async fn listen(address: &str) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address).await?;
    let socket = SockRef::from(&listener);
    // Everything due to a client is written at once, so nothing is gained by waiting for more.
    socket.set_tcp_nodelay(true)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_notsent_lowat(NOTSENT_LOWAT)?;
    // Of a socket that listens already, this changes the length of its queue.
    socket.listen(BACKLOG)?;
    Ok(listener)
}

/// Like [`TcpStream::try_read`]. A read that leaves room has taken everything there was, so the socket counts as empty
/// at once: the next wait costs no read that would only say so.
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
