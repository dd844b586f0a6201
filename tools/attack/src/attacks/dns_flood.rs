//! Well-formed queries by the burst, from many addresses: for names that exist, that do not, and for everything.

use std::sync::Arc;

use crate::{context::AttackContext, dns_packet, flood, source, tally::Tally};

pub async fn run(ctx: Arc<AttackContext>, tally: Arc<Tally>) {
    let flooded = flood::run(&ctx, &tally, || Some(ctx.dns()), || query(ctx.zone())).await;
    let Some((sent, received)) = flooded else { return };
    if sent.bytes > 0 {
        let ratio = received.bytes as f64 / sent.bytes as f64;
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
