//! The players' socket. Its options are set once, on the listener: connections inherit them, which saves a system call
//! for each.

use std::{io, net::SocketAddr};

use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket};

/// Connections that the kernel holds until they are accepted (`net.core.somaxconn` may hold it lower). In a storm they
/// wait here, not in the clients' repeated attempts.
const BACKLOG: u32 = 4_096;
/// A socket asks for more once so little of what it was given is unsent: what waits longer waits in the session, where
/// newer state replaces it.
const UNSENT: u32 = 16 << 10;

/// Binds the players' socket.
///
/// # Errors
/// When it is no address, or not free.
pub(crate) fn listen(address: &str) -> io::Result<TcpListener> {
    let address: SocketAddr =
        address.parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    // Everything due to a client is written at once, so nothing is gained by waiting for more.
    socket.set_nodelay(true)?;
    #[cfg(target_os = "linux")]
    SockRef::from(&socket).set_tcp_notsent_lowat(UNSENT)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn connections_inherit_the_options() {
        let listener = listen("127.0.0.1:0").unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        assert!(stream.nodelay().unwrap());
        #[cfg(target_os = "linux")]
        assert_eq!(SockRef::from(&stream).tcp_notsent_lowat().unwrap(), UNSENT);
    }

    #[tokio::test]
    async fn a_name_is_no_address() {
        assert_eq!(listen("nowhere").unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
