//! Packets by the burst, from many addresses, and what comes back.

use std::time::Duration;

use tokio::{net::UdpSocket, time::sleep};

use super::{Field, Tally};
use crate::attack::{loopback::Loopback, source};

/// Packets of one attempt.
const BURST: usize = 20;
/// Sockets, each at an address of its own.
const SOCKETS: usize = 64;
/// How late an answer may be.
const LATE: Duration = Duration::from_millis(200);

/// Packets and bytes, one way.
#[derive(Default)]
pub(super) struct Traffic {
    packets: u64,
    pub(super) bytes: u64,
}

/// Sends what `packet` makes for as long as the pace lets it, each socket to the target that it was opened for, and counts
/// what became of the packets. What was said, and what was heard; `None`: there was no socket to say it from.
pub(super) async fn run(
    field: &Field,
    tally: &Tally,
    target: impl Fn() -> Option<Loopback>,
    packet: impl Fn() -> Vec<u8>,
) -> Option<(Traffic, Traffic)> {
    let mut sockets = Vec::new();
    for target in (0..SOCKETS).filter_map(|_| target()) {
        match source::datagrams(target).await {
            Ok(socket) => sockets.push(socket),
            Err(error) => tally.remark(&format!("no socket: {error}")),
        }
    }
    let mut pace = field.pace();
    let (mut said, mut heard) = (Traffic::default(), Traffic::default());
    while pace.next().await {
        let socket = source::pick(&sockets)?;
        for _ in 0..BURST {
            let packet = packet();
            // A full buffer is the network's answer to a flood.
            if socket.try_send(&packet).is_ok() {
                said.add(packet.len());
            }
        }
        heard.hear(socket);
    }
    // What is still on its way.
    sleep(LATE).await;
    sockets.iter().for_each(|socket| heard.hear(socket));
    tally.attempts(said.packets);
    tally.accepted_many("answered", heard.packets.min(said.packets));
    tally.refused_many("no answer", said.packets.saturating_sub(heard.packets));
    Some((said, heard))
}

impl Traffic {
    fn add(&mut self, bytes: usize) {
        self.packets += 1;
        self.bytes += bytes as u64;
    }

    /// Takes the answers that have arrived.
    fn hear(&mut self, socket: &UdpSocket) {
        let mut buffer = [0; 4_096];
        while let Ok(length) = socket.try_recv(&mut buffer) {
            self.add(length);
        }
    }
}
