//! Sizes that promise more than there is, or carry as much as one may: record lengths, varints, lengths inside
//! payloads, counts of DNS records, and records full of the smallest messages.

use std::sync::Arc;

use shardkeep_client::wire::{
    Message, opcode,
    payload::{Error, Ping},
    preface::Service,
};
use tokio::task::JoinSet;

use crate::{
    attempt::{
        ANSWER_TIMEOUT, ConnectionAttack, answer_deadline, count_refusal, ensure_session, hello,
        run_per_connection,
    },
    connection::{ConnectionEnd, RawConnection, plain_record, preface},
    context::{AttackContext, Endpoint},
    insider::Insider,
    source,
    tally::Tally,
};

/// Largest plaintext of a client's record.
const RECORD: usize = 8_192;

struct SizeBomb(Vec<u8>);

pub async fn run(ctx: Arc<AttackContext>, tally: Arc<Tally>) {
    let mut inside = JoinSet::new();
    inside.spawn(full_records(ctx.clone(), tally.clone()));
    let targets = ctx.clone();
    run_per_connection(ctx, tally, || {
        let endpoint = targets.endpoint();
        let bytes = match endpoint {
            Endpoint::Dns(_) => dns(),
            Endpoint::Login(_) => [&preface(Service::Login, targets.deployment())[..], &record()].concat(),
            Endpoint::Gateway(_) => {
                [&preface(Service::Gateway, targets.deployment())[..], &record()].concat()
            }
        };
        Some((endpoint.at(), SizeBomb(bytes)))
    })
    .await;
    inside.join_all().await;
}

/// A record that no server may take at its word.
fn record() -> Vec<u8> {
    let endless = [0xff; 9];
    match source::below(9) {
        // The largest length, of nothing, and of as much as it says.
        0 => vec![0xff, 0xff],
        1 => plain_record(&[0; 65_535]),
        2 => vec![0, 0],
        // The largest a client may send, full of the smallest messages.
        3 => plain_record(&smallest(RECORD)),
        4 => plain_record(&[0; RECORD + 16]),
        // Sizes and request numbers of 2^64 - 1, and varints that never end.
        5 => plain_record(&[&[2, 4, 0][..], &endless, &[1]].concat()),
        6 => plain_record(&[&[0, 0, 1][..], &endless, &[1], &endless, &[1]].concat()),
        7 => plain_record(&[&[0, 0, 1][..], &[0x80; 64]].concat()),
        // A Hello whose account claims 2^32 bytes, and one that is as long as it says.
        _ if source::below(2) == 0 => plain_record(&[0, 0, 1, 1, 6, 0x0a, 0x80, 0x80, 0x80, 0x80, 0x10]),
        _ => plain_record(&hello(&"a".repeat(7_000)).to_bytes()),
    }
}

/// As many pings as fit.
fn smallest(size: usize) -> Vec<u8> {
    let ping = Message::event(opcode::PING, &Ping { value: 0 }).to_bytes();
    ping.iter().copied().cycle().take(size / ping.len() * ping.len()).collect()
}

fn dns() -> Vec<u8> {
    let header = |counts: [u16; 4]| {
        let counts = counts.iter().flat_map(|count| count.to_be_bytes());
        [0, 7, 1, 0].into_iter().chain(counts).collect::<Vec<u8>>()
    };
    let framed =
        |packet: &[u8]| [&u16::try_from(packet.len()).unwrap_or(u16::MAX).to_be_bytes()[..], packet].concat();
    match source::below(4) {
        0 => vec![0xff, 0xff],
        1 => [&[0xff; 2][..], &[0; 65_535]].concat(),
        2 => framed(&header([u16::MAX; 4])),
        // Many queries at once, each answered in order.
        _ => framed(&[&header([1, 0, 0, 0])[..], &[0, 0, 1, 0, 1]].concat()).repeat(500),
    }
}

impl ConnectionAttack for SizeBomb {
    async fn execute(self, mut connection: RawConnection, ctx: &AttackContext, tally: &Tally) {
        // A server that has closed already may reset what is still being written.
        let _ = connection.send(&self.0).await;
        let end = connection.end(answer_deadline(ctx)).await;
        if end == ConnectionEnd::Open {
            tally.accepted("still open");
            return tally.record_duration(connection.age());
        }
        count_refusal(tally, &end, &connection, "a bomb");
    }
}

/// Records as large as they may be, full of the smallest messages, in a session: counted as strikes, and closed.
async fn full_records(ctx: Arc<AttackContext>, tally: Arc<Tally>) {
    let Some(account) = ctx.accounts().first() else { return };
    let mut limiter = ctx.session_limiter();
    let mut insider: Option<Insider> = None;
    while limiter.next().await {
        let Some(mut here) = ensure_session(insider.take(), &ctx, account, &mut limiter, &tally).await else {
            return;
        };
        tally.attempt();
        let _ = here.connection.send_record(&smallest(RECORD)).await;
        match final_error(&mut here).await {
            Some(label) => tally.refused(&label),
            None => tally.accepted("still open"),
        }
        if here.resume_session(&ctx).await.is_ok() {
            insider = Some(here);
        }
    }
}

/// How a session's connection ended; `None`: it goes on.
async fn final_error(insider: &mut Insider) -> Option<String> {
    let mut label = ConnectionEnd::Closed.label();
    let reading = async {
        while let Ok(message) = insider.connection.receive().await {
            if message.opcode == opcode::ERROR
                && let Ok(error) = message.decode::<Error>()
            {
                label = error.code().as_str_name().to_owned();
            }
        }
    };
    tokio::time::timeout(ANSWER_TIMEOUT, reading).await.ok()?;
    Some(label)
}
