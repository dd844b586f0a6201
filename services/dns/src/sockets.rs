//! The sockets: several UDP sockets on one port, among which the kernel distributes clients, and one for TCP.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

/// Size of the receive buffer for queries that arrive while the loop is busy. The kernel drops the rest and counts them.
const SOCKET_BUFFER: usize = 1 << 20;
/// A loop without queries checks this often whether it must end.
const READ_TIMEOUT: Duration = Duration::from_millis(100);
/// With port 0 the kernel may choose a TCP port that UDP cannot bind. This is the number of attempts.
const PORT_ATTEMPTS: usize = 16;

/// The bound sockets.
pub(crate) struct Sockets {
    /// Blocking sockets with a time-out.
    pub(crate) udp: Vec<UdpSocket>,
    pub(crate) tcp: TcpListener,
    pub(crate) address: SocketAddr,
}

impl Sockets {
    /// Binds UDP (once per loop) and TCP on the same port.
    pub(crate) fn bind(address: SocketAddr, loops: usize) -> io::Result<Self> {
        let attempts = if address.port() == 0 { PORT_ATTEMPTS } else { 1 };
        let mut result = Self::try_bind(address, loops);
        for _ in 1..attempts {
            match &result {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    result = Self::try_bind(address, loops);
                }
                _ => break,
            }
        }
        result
    }

    fn try_bind(address: SocketAddr, loops: usize) -> io::Result<Self> {
        // TCP first and without SO_REUSEPORT: a second process on this port fails here instead of taking half of
        // the queries.
        let tcp = socket(address, Type::STREAM, Protocol::TCP)?;
        tcp.set_nonblocking(true)?;
        tcp.set_reuse_address(true)?;
        tcp.bind(&address.into())?;
        tcp.listen(128)?;
        let tcp = TcpListener::from_std(tcp.into())?;
        let address = tcp.local_addr()?;
        let udp = (0..loops).map(|_| {
            let udp = socket(address, Type::DGRAM, Protocol::UDP)?;
            udp.set_reuse_port(true)?;
            udp.set_recv_buffer_size(SOCKET_BUFFER)?;
            udp.set_read_timeout(Some(READ_TIMEOUT))?;
            udp.bind(&address.into())?;
            Ok(udp.into())
        });
        Ok(Self { udp: udp.collect::<io::Result<_>>()?, tcp, address })
    }
}

fn socket(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    Socket::new(Domain::for_address(address), kind, Some(protocol))
}
