//! Bursts of packets from many addresses, and their answers.

use std::time::Duration;

use tokio::{net::UdpSocket, time::sleep};

use crate::{context::AttackContext, loopback::Loopback, source, tally::Tally};

/// Packets of one attempt.
const BURST: usize = 20;
/// Sockets, each with another source address.
const SOCKETS: usize = 64;
/// How late an answer may be.
const ANSWER_GRACE: Duration = Duration::from_millis(200);

/// Packets and bytes, one way.
#[derive(Default)]
pub(super) struct PacketCount {
    packets: u64,
    pub(super) bytes: u64,
}

/// Sends packets within the limits of the plan and counts the answers. Each socket sends to one target. Returns the sent
/// and the received packets, or `None` when no socket could be opened.
pub(super) async fn run(
    ctx: &AttackContext,
    tally: &Tally,
    target: impl Fn() -> Option<Loopback>,
    packet: impl Fn() -> Vec<u8>,
) -> Option<(PacketCount, PacketCount)> {
    let mut sockets = Vec::new();
    for target in (0..SOCKETS).filter_map(|_| target()) {
        match source::udp_socket(target).await {
            Ok(socket) => sockets.push(socket),
            Err(error) => tally.remark(&format!("no socket: {error}")),
        }
    }
    let mut limiter = ctx.limiter();
    let (mut sent, mut received) = (PacketCount::default(), PacketCount::default());
    while limiter.next().await {
        let socket = source::pick(&sockets)?;
        for _ in 0..BURST {
            let packet = packet();
            // A full buffer is the network's answer to a flood.
            if socket.try_send(&packet).is_ok() {
                sent.add(packet.len());
            }
        }
        received.receive(socket);
    }
    // Answers may still be on their way.
    sleep(ANSWER_GRACE).await;
    sockets.iter().for_each(|socket| received.receive(socket));
    tally.attempts(sent.packets);
    tally.accepted_many("answered", received.packets.min(sent.packets));
    tally.refused_many("no answer", sent.packets.saturating_sub(received.packets));
    Some((sent, received))
}

impl PacketCount {
    fn add(&mut self, bytes: usize) {
        self.packets += 1;
        self.bytes += bytes as u64;
    }

    /// Takes the answers that have arrived.
    fn receive(&mut self, socket: &UdpSocket) {
        let mut buffer = [0; 4_096];
        while let Ok(length) = socket.try_recv(&mut buffer) {
            self.add(length);
        }
    }
}
