//! Malformed and truncated packets, and packets with compression loops, by UDP. The server must not answer packets that are
//! no queries. It refuses or answers the others.

use std::{sync::Arc, time::Duration};

use tokio::{task::JoinSet, time::timeout};

use crate::{connection::connect_error_label, context::AttackContext, dns_packet, source, tally::Tally};

/// An answer that has not come by then was not given.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);

pub async fn run(ctx: Arc<AttackContext>, tally: Arc<Tally>) {
    let (mut limiter, slots, mut running) = (ctx.limiter(), ctx.slots(), JoinSet::new());
    while limiter.next().await {
        let Some(slot) = slots.take(ctx.until()).await else { break };
        while running.try_join_next().is_some() {}
        tally.attempt();
        let (ctx, tally) = (ctx.clone(), tally.clone());
        running.spawn(async move {
            let _slot = slot;
            let packet = malformed(ctx.zone());
            match send_query(&ctx, &packet).await {
                Ok(Some(_)) if packet.get(2).is_some_and(|flags| flags & 0x80 != 0) => {
                    tally.breach("an answer was answered: two servers could be set to talk to each other");
                }
                Ok(Some(code @ ("NOERROR" | "NXDOMAIN"))) => tally.accepted(code),
                Ok(Some(code)) => tally.refused(code),
                Ok(None) => tally.refused("no answer"),
                Err(error) => tally.refused(connect_error_label(&error)),
            }
        });
    }
    running.join_all().await;
}

/// The code of the answer; `None`: there was none.
async fn send_query(ctx: &AttackContext, packet: &[u8]) -> std::io::Result<Option<&'static str>> {
    let socket = source::udp_socket(ctx.dns()).await?;
    socket.send(packet).await?;
    let mut answer = [0; 4_096];
    let Ok(received) = timeout(ANSWER_TIMEOUT, socket.recv(&mut answer)).await else { return Ok(None) };
    Ok(answer[..received?].get(3).map(|flags| dns_packet::code(*flags)))
}

fn malformed(zone: &str) -> Vec<u8> {
    let mut packet = dns_packet::query(&format!("login.{zone}"), dns_packet::A);
    let at = source::below(packet.len());
    match source::below(8) {
        // Noise.
        0 => {
            packet = vec![0; 1 + source::below(1_400)];
            source::fill(&mut packet);
        }
        // A bit of a query turned.
        1 => packet[at] ^= 1 << source::below(8),
        // A query cut short.
        2 => packet.truncate(at),
        // An answer.
        3 => packet[2] |= 0x80,
        // More records than there are.
        4 => packet[4..12].fill(0xff),
        // A name that points at itself, and one that points ahead.
        5 => packet.splice(12.., [0xc0, 12, 0, 1, 0, 1]).for_each(drop),
        6 => packet.splice(12.., [0xc0, 0xff, 0, 1, 0, 1]).for_each(drop),
        // The longest name there is, and then some.
        _ => {
            let label = [&[63][..], &[b'a'; 63]].concat();
            packet.splice(12.., label.repeat(5)).for_each(drop);
        }
    }
    packet
}
