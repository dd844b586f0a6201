//! Sockets: one UDP socket per core on the same port, each with its own loop, and one TCP listener.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use metrics::{counter, gauge};
use parking_lot::RwLock;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::Semaphore,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::{
    encode::{encode, udp_limit},
    metrics::{Counters, TCP_CONNECTIONS, TCP_REFUSED},
    query::parse,
    random::Random,
    view::View,
    zone::{Zone, complain},
};

/// Queries are short; what is longer is cut off, and then malformed.
const MAX_QUERY: usize = 1500;
/// Queries a socket buffers while its loop is busy; the kernel drops and counts the rest.
const SOCKET_BUFFER: usize = 1 << 20;
/// Queries answered in a row before others get the core.
const BATCH: usize = 64;
const TCP_LIMIT: usize = u16::MAX as usize;
/// How long a TCP client may be silent, or take over one message (RFC 7766, 6.2.3).
const TCP_PATIENCE: Duration = Duration::from_secs(10);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// With port 0 the kernel gives a port for UDP that may be taken for TCP: then another is tried.
const PORT_ATTEMPTS: usize = 16;

/// What all loops share.
pub(crate) struct Responder {
    pub(crate) zone: Zone,
    /// Replaced as a whole; readers hold the lock for a clone of the `Arc`.
    pub(crate) view: RwLock<Arc<View>>,
}

impl Responder {
    /// The bytes to answer a packet with, if any.
    fn respond(&self, packet: &[u8], udp: bool, counters: &Counters, random: &mut Random) -> Option<Vec<u8>> {
        let (answer, limit) = match parse(packet) {
            Ok(question) => {
                let limit = udp_limit(question.edns.as_ref().map(hickory_proto::op::Edns::max_payload));
                let view = self.view.read().clone();
                (Some(self.zone.answer(&question, &view, random)), limit)
            }
            Err(fault) => (complain(&fault), udp_limit(None)),
        };
        let Some(answer) = answer else {
            counters.dropped.increment(1);
            return None;
        };
        let code = answer.metadata.response_code;
        match encode(answer, if udp { limit } else { TCP_LIMIT }) {
            Ok((bytes, truncated)) => {
                counters.answered(code);
                counters.truncated.increment(truncated.into());
                Some(bytes)
            }
            Err(error) => {
                warn!(%error, "can not encode an answer");
                counters.unsent.increment(1);
                None
            }
        }
    }
}

/// The bound sockets.
pub(crate) struct Sockets {
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
        tcp.set_reuse_address(true)?;
        tcp.bind(&address.into())?;
        tcp.listen(128)?;
        let tcp = TcpListener::from_std(tcp.into())?;
        let address = tcp.local_addr()?;
        let udp = (0..loops).map(|_| {
            let udp = socket(address, Type::DGRAM, Protocol::UDP)?;
            udp.set_reuse_port(true)?;
            udp.set_recv_buffer_size(SOCKET_BUFFER)?;
            udp.bind(&address.into())?;
            UdpSocket::from_std(udp.into())
        });
        Ok(Self { udp: udp.collect::<io::Result<_>>()?, tcp, address })
    }
}

fn socket(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Answers UDP queries until `stop`.
pub(crate) async fn serve_udp(
    socket: UdpSocket,
    responder: Arc<Responder>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let counters = Counters::new("udp");
    let mut random = Random::from_entropy();
    let mut buffer = [0; MAX_QUERY];
    loop {
        tokio::select! {
            ready = socket.readable() => ready?,
            () = stop.cancelled() => return Ok(()),
        }
        for _ in 0..BATCH {
            let (length, from) = match socket.try_recv_from(&mut buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // An earlier answer bounced: nothing to do with this socket's health.
                Err(error) => {
                    debug!(%error, "receive");
                    continue;
                }
            };
            let Some(bytes) = responder.respond(&buffer[..length], true, &counters, &mut random) else {
                continue;
            };
            // A full send buffer drops the answer, as the network might: the client asks again.
            if let Err(error) = socket.try_send_to(&bytes, from) {
                debug!(%error, %from, "send");
                counters.unsent.increment(1);
            }
        }
    }
}

/// Answers TCP queries until `stop`.
pub(crate) async fn serve_tcp(
    listener: TcpListener,
    responder: Arc<Responder>,
    connections: usize,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let places = Arc::new(Semaphore::new(connections));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return Ok(()),
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "can not accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            counter!(TCP_REFUSED).increment(1);
            continue;
        };
        let (responder, stop) = (responder.clone(), stop.clone());
        tokio::spawn(async move {
            gauge!(TCP_CONNECTIONS).increment(1.0);
            tokio::select! {
                ended = converse(stream, &responder) => if let Err(error) = ended {
                    debug!(%error, "TCP client");
                },
                () = stop.cancelled() => {}
            }
            gauge!(TCP_CONNECTIONS).decrement(1.0);
            drop(place);
        });
    }
}

/// One TCP client: queries with a length before each, answered in order.
async fn converse(mut stream: TcpStream, responder: &Responder) -> io::Result<()> {
    let counters = Counters::new("tcp");
    let mut random = Random::from_entropy();
    let mut buffer = vec![0; MAX_QUERY];
    stream.set_nodelay(true)?;
    loop {
        let length = match tokio::time::timeout(TCP_PATIENCE, stream.read_u16()).await? {
            Ok(length) => usize::from(length),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        };
        let packet = buffer.get_mut(..length).ok_or_else(|| io::Error::other("query too long"))?;
        tokio::time::timeout(TCP_PATIENCE, stream.read_exact(packet)).await??;
        let Some(bytes) = responder.respond(packet, false, &counters, &mut random) else {
            return Err(io::Error::other("not a query"));
        };
        let framed_length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
        let mut framed = Vec::with_capacity(bytes.len() + 2);
        framed.extend_from_slice(&framed_length.to_be_bytes());
        framed.extend_from_slice(&bytes);
        tokio::time::timeout(TCP_PATIENCE, stream.write_all(&framed)).await??;
    }
}
