//! Whose address an attempt comes from. All of 127.0.0.0/8 is this machine, so one process can look like a crowd.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    net::{TcpSocket, TcpStream, UdpSocket},
    time::timeout,
};

use crate::loopback::Loopback;

/// A server that has not taken a connection by then is not going to.
const CONNECT: Duration = Duration::from_secs(3);

/// An address of a crowd. 127.0.0.0/16 is left to the honest, whose address no attacker has.
pub fn random_address() -> Ipv4Addr {
    let [b, c, d] = random();
    Ipv4Addr::new(127, b.max(1), c, d.clamp(1, 254))
}

/// Connects from an address of the crowd, where the target has one of the same family.
pub async fn connect(target: Loopback) -> io::Result<TcpStream> {
    connect_with(target, None).await
}

/// Like [`connect`], with a receive buffer of this size.
pub async fn connect_with(target: Loopback, receive: Option<u32>) -> io::Result<TcpStream> {
    let address = target.address();
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(size) = receive {
        socket.set_recv_buffer_size(size)?;
    }
    if let Some(source) = source(address) {
        socket.bind(source)?;
    }
    let connected = timeout(CONNECT, socket.connect(address)).await;
    let stream = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A datagram socket at an address of the crowd that speaks to the target only.
pub async fn udp_socket(target: Loopback) -> io::Result<UdpSocket> {
    let address = target.address();
    let any: SocketAddr = if address.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(source(address).unwrap_or(any)).await?;
    socket.connect(address).await?;
    Ok(socket)
}

fn source(target: SocketAddr) -> Option<SocketAddr> {
    // Of IPv6 there is one loopback address only.
    matches!(target.ip(), IpAddr::V4(_)).then(|| (random_address(), 0).into())
}

/// Random bytes. Without a random source from the system all are zero, which makes a poor attack and nothing worse.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    fill(&mut bytes);
    bytes
}

pub fn fill(bytes: &mut [u8]) {
    let _ = aws_lc_rs::rand::fill(bytes);
}

/// A random number below `bound`.
pub fn below(bound: usize) -> usize {
    usize::try_from(u64::from_le_bytes(random())).unwrap_or_default() % bound.max(1)
}

/// One of several.
pub fn pick<T>(choices: &[T]) -> Option<&T> {
    choices.get(below(choices.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_addresses_are_loopback_outside_honest_range() {
        let crowd: std::collections::HashSet<_> = (0..100).map(|_| random_address()).collect();
        assert!(crowd.len() > 50);
        assert!(crowd.iter().all(|it| it.is_loopback() && it.octets()[1] != 0));
    }
}
