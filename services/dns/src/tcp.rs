//! TCP: queries with a length before each, answered in order (RFC 7766). Connections are few, bounded in all and for
//! each client network, and silent ones are closed.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use metrics::{counter, gauge};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::{
    answerer::{Answerer, Shared, Transport},
    metrics::{TCP_CONNECTIONS, TCP_REFUSED},
    random::Random,
    rate::network,
};

/// Longer queries are refused by closing the connection.
const MAX_QUERY: usize = 1500;
/// How long a client may be silent, or take over one message (RFC 7766, 6.2.3).
const PATIENCE: Duration = Duration::from_secs(10);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Bounds of connections at a time; further ones are closed at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) in_all: usize,
    pub(crate) per_network: usize,
}

/// Answers queries until `stop`.
pub(crate) async fn serve(
    listener: TcpListener,
    shared: Arc<Shared>,
    bounds: Bounds,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let places = Arc::new(Places { bounds, taken: Mutex::default() });
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return Ok(()),
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "can not accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let place = match places.take(from.ip().to_canonical()) {
            Ok(place) => place,
            Err(bound) => {
                counter!(TCP_REFUSED, "bound" => bound).increment(1);
                continue;
            }
        };
        let answerer = Answerer::new(shared.clone(), Transport::Tcp, Random::from_entropy());
        let stop = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                ended = converse(stream, from, answerer) => if let Err(error) = ended {
                    debug!(%error, "TCP client");
                },
                () = stop.cancelled() => {}
            }
            drop(place);
        });
    }
}

/// One client.
async fn converse(mut stream: TcpStream, from: SocketAddr, mut answerer: Answerer) -> io::Result<()> {
    let mut buffer = vec![0; MAX_QUERY];
    let (mut answer, mut framed) = (Vec::new(), Vec::new());
    stream.set_nodelay(true)?;
    loop {
        let length = match tokio::time::timeout(PATIENCE, stream.read_u16()).await? {
            Ok(length) => usize::from(length),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        };
        let packet = buffer.get_mut(..length).ok_or_else(|| io::Error::other("query too long"))?;
        tokio::time::timeout(PATIENCE, stream.read_exact(packet)).await??;
        if !answerer.answer(packet, from.ip(), answerer.now(), &mut answer) {
            return Err(io::Error::other("not a query"));
        }
        framed.clear();
        framed.extend_from_slice(&u16::try_from(answer.len()).map_err(io::Error::other)?.to_be_bytes());
        framed.extend_from_slice(&answer);
        tokio::time::timeout(PATIENCE, stream.write_all(&framed)).await??;
    }
}

/// Who is connected.
struct Places {
    bounds: Bounds,
    /// Connections by network. Those that have none are not here.
    taken: Mutex<HashMap<u64, usize>>,
}

struct Place {
    places: Arc<Places>,
    network: u64,
}

impl Places {
    /// A place, or the bound that there is none within.
    fn take(self: &Arc<Self>, client: IpAddr) -> Result<Place, &'static str> {
        let network = network(client);
        let mut taken = self.taken.lock();
        if taken.values().sum::<usize>() >= self.bounds.in_all {
            return Err("in_all");
        }
        let of_network = taken.entry(network).or_default();
        if *of_network >= self.bounds.per_network {
            return Err("per_network");
        }
        *of_network += 1;
        gauge!(TCP_CONNECTIONS).increment(1.0);
        Ok(Place { places: self.clone(), network })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock();
        if let Some(of_network) = taken.get_mut(&self.network) {
            *of_network -= 1;
            if *of_network == 0 {
                taken.remove(&self.network);
            }
        }
        gauge!(TCP_CONNECTIONS).decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_takes_no_more_than_its_share() {
        let places =
            Arc::new(Places { bounds: Bounds { in_all: 3, per_network: 2 }, taken: Mutex::default() });
        let take = |last: [u8; 2]| places.take([203, 0, last[0], last[1]].into());
        let first = take([113, 1]).ok();
        let _second = take([113, 2]).ok();
        assert_eq!(take([113, 3]).err(), Some("per_network"));
        let _other = take([114, 1]).ok();
        assert_eq!(take([115, 1]).err(), Some("in_all"));
        drop(first);
        assert!(take([113, 3]).is_ok());
        assert!(take([115, 1]).is_ok(), "the one before was dropped at once");
    }
}
