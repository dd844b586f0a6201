//! Clients that send requests and never read the answers: in a session, and to the name server by TCP.

use std::sync::Arc;

use shardkeep_client::wire::{opcode, payload::ListCharacters};
use tokio::{
    io::AsyncWriteExt as _,
    task::JoinSet,
    time::{Instant, timeout_at},
};

use crate::{
    attempt::ensure_session,
    connection::{RawConnection, connect_error_label},
    context::AttackContext,
    dns_packet,
    insider::Insider,
    source,
    tally::Tally,
};

/// A receive buffer that is soon full.
const BUFFER: u32 = 2_048;
/// Queries written at a time.
const QUERIES: usize = 64;

pub async fn run(ctx: Arc<AttackContext>, tally: Arc<Tally>) {
    let mut inside = JoinSet::new();
    inside.spawn(attack_sessions(ctx.clone(), tally.clone()));
    let (mut limiter, slots, mut running) = (ctx.limiter(), ctx.slots(), JoinSet::new());
    while limiter.next().await {
        let Some(slot) = slots.take(ctx.until()).await else { break };
        while running.try_join_next().is_some() {}
        tally.attempt();
        let (ctx, tally) = (ctx.clone(), tally.clone());
        running.spawn(async move {
            let _slot = slot;
            attack_dns(&ctx, &tally).await;
        });
    }
    running.join_all().await;
    inside.join_all().await;
}

/// Asks by TCP until the server neither reads on nor closes, and waits which it will be.
async fn attack_dns(ctx: &AttackContext, tally: &Tally) {
    let mut stream = match source::connect_with(ctx.dns(), Some(BUFFER)).await {
        Ok(stream) => stream,
        Err(error) => return tally.refused(connect_error_label(&error)),
    };
    let query = dns_packet::query(&format!("_shardkeep._tcp.login.{}", ctx.zone()), dns_packet::SRV);
    let length = u16::try_from(query.len()).unwrap_or_default().to_be_bytes();
    let many = [&length[..], &query].concat().repeat(QUERIES);
    let started = Instant::now();
    let asking = async {
        while stream.write_all(&many).await.is_ok() {
            ctx.wait_for_cpu().await;
        }
    };
    let closed = timeout_at(ctx.until(), asking).await.is_ok();
    tally.record_duration(started.elapsed());
    if !closed {
        return tally.accepted("still open");
    }
    let end = RawConnection::from_stream(stream).end(ctx.until()).await;
    tally.refused(&end.label());
}

/// Sessions that ask within their limits and hear nothing of the answers.
async fn attack_sessions(ctx: Arc<AttackContext>, tally: Arc<Tally>) {
    let Some(account) = ctx.accounts().get(3) else { return };
    let mut limiter = ctx.session_limiter();
    let mut insider: Option<Insider> = None;
    while limiter.next().await {
        let Some(mut here) = ensure_session(insider.take(), &ctx, account, &mut limiter, &tally).await else {
            return;
        };
        tally.attempt();
        let (_, request) = here.request(opcode::LIST_CHARACTERS, &ListCharacters {});
        let sent = timeout_at(ctx.until(), here.connection.send(&[request])).await;
        match sent {
            Ok(Ok(())) => {
                tally.accepted("asked, unread");
                insider = Some(here);
            }
            Ok(Err(_)) => tally.refused("closed"),
            Err(_) => tally.accepted("still open"),
        }
    }
}
