//! Who asks and asks, and never reads: in a session, and of the name server by TCP.

use std::sync::Arc;

use shardkeep_client::wire::{opcode, payload::ListCharacters};
use tokio::{
    io::AsyncWriteExt as _,
    task::JoinSet,
    time::{Instant, timeout_at},
};

use super::{Field, Tally, aboard};
use crate::attack::{
    dns_packet,
    insider::Insider,
    line::{Line, unopened},
    source,
};

/// A receive buffer that is soon full.
const BUFFER: u32 = 2_048;
/// Queries written at a time.
const QUERIES: usize = 64;

pub async fn run(field: Arc<Field>, tally: Arc<Tally>) {
    let mut inside = JoinSet::new();
    inside.spawn(sessions(field.clone(), tally.clone()));
    let (mut pace, places, mut running) = (field.pace(), field.places(), JoinSet::new());
    while pace.next().await {
        let Some(place) = places.take(field.until()).await else { break };
        while running.try_join_next().is_some() {}
        tally.attempt();
        let (field, tally) = (field.clone(), tally.clone());
        running.spawn(async move {
            let _place = place;
            of_dns(&field, &tally).await;
        });
    }
    running.join_all().await;
    inside.join_all().await;
}

/// Asks by TCP until the server neither reads on nor closes, and waits which it will be.
async fn of_dns(field: &Field, tally: &Tally) {
    let mut stream = match source::connect_with(field.dns(), Some(BUFFER)).await {
        Ok(stream) => stream,
        Err(error) => return tally.refused(unopened(&error)),
    };
    let query = dns_packet::query(&format!("_shardkeep._tcp.login.{}", field.zone()), dns_packet::SRV);
    let length = u16::try_from(query.len()).unwrap_or_default().to_be_bytes();
    let many = [&length[..], &query].concat().repeat(QUERIES);
    let begun = Instant::now();
    let asking = async {
        while stream.write_all(&many).await.is_ok() {
            field.breathe().await;
        }
    };
    let closed = timeout_at(field.until(), asking).await.is_ok();
    tally.held(begun.elapsed());
    if !closed {
        return tally.accepted("still open");
    }
    let end = Line::over(stream).end(field.until()).await;
    tally.refused(&end.word());
}

/// Sessions that ask within their limits and hear nothing of the answers.
async fn sessions(field: Arc<Field>, tally: Arc<Tally>) {
    let Some(account) = field.accounts().get(3) else { return };
    let mut pace = field.gentle_pace();
    let mut insider: Option<Insider> = None;
    while pace.next().await {
        let Some(mut here) = aboard(insider.take(), &field, account, &mut pace, &tally).await else { return };
        tally.attempt();
        let (_, request) = here.request(opcode::LIST_CHARACTERS, &ListCharacters {});
        let sent = timeout_at(field.until(), here.connection.send(&[request])).await;
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
