//! Well-formed queries by the burst, from many addresses: for names that exist, that do not, and for everything.

use std::{sync::Arc, time::Duration};

use tokio::{net::UdpSocket, time::sleep};

use super::{Field, Tally};
use crate::attack::{dns_packet, source};

/// Queries of one attempt.
const BURST: usize = 20;
/// Sockets, each at an address of its own.
const SOCKETS: usize = 64;
/// How late an answer may be.
const LATE: Duration = Duration::from_millis(200);

pub async fn run(field: Arc<Field>, tally: Arc<Tally>) {
    let mut sockets = Vec::new();
    for _ in 0..SOCKETS {
        match source::datagrams(field.dns()).await {
            Ok(socket) => sockets.push(socket),
            Err(error) => tally.remark(&format!("no socket: {error}")),
        }
    }
    let mut pace = field.pace();
    let (mut asked, mut asked_bytes, mut heard, mut heard_bytes) = (0u64, 0u64, 0u64, 0u64);
    while pace.next().await {
        let Some(socket) = source::pick(&sockets) else { return };
        for _ in 0..BURST {
            let query = query(field.zone());
            // A full buffer is the network's answer to a flood.
            if socket.try_send(&query).is_ok() {
                asked += 1;
                asked_bytes += query.len() as u64;
            }
        }
        let (answers, bytes) = hear(socket);
        heard += answers;
        heard_bytes += bytes;
    }
    // What is still on its way.
    sleep(LATE).await;
    for socket in &sockets {
        let (answers, bytes) = hear(socket);
        heard += answers;
        heard_bytes += bytes;
    }
    tally.attempts(asked);
    tally.accepted_many("answered", heard.min(asked));
    tally.refused_many("no answer", asked.saturating_sub(heard));
    if asked_bytes > 0 {
        let ratio = heard_bytes as f64 / asked_bytes as f64;
        tally.remark(&format!("{ratio:.2} bytes of answers for each byte asked"));
    }
}

fn query(zone: &str) -> Vec<u8> {
    let random = source::random::<4>();
    let kinds = [dns_packet::A, dns_packet::AAAA, dns_packet::SRV, dns_packet::ANY, dns_packet::TXT];
    let kind = kinds[usize::from(random[0]) % kinds.len()];
    match random[1] % 4 {
        0 => dns_packet::query(&format!("_shardkeep._tcp.login.{zone}"), dns_packet::SRV),
        1 => dns_packet::query(&format!("login.{zone}"), kind),
        2 => dns_packet::query(zone, kind),
        _ => dns_packet::query(&format!("x{:02x}{:02x}.{zone}", random[2], random[3]), kind),
    }
}

/// Answers that have arrived, and their bytes.
fn hear(socket: &UdpSocket) -> (u64, u64) {
    let (mut answers, mut bytes, mut buffer) = (0, 0, [0; 4_096]);
    while let Ok(length) = socket.try_recv(&mut buffer) {
        answers += 1;
        bytes += length as u64;
    }
    (answers, bytes)
}
