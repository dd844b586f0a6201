//! Bytes of no protocol of the cluster: noise, other protocols, noise after a valid preface, noise in valid records.

use std::sync::Arc;

use shardkeep_client::wire::preface::Service;

use crate::{
    attempt::{ConnectionAttack, answer_deadline, count_refusal, run_per_connection},
    connection::{ConnectionEnd, RawConnection, plain_record, preface},
    context::{AttackContext, Endpoint},
    source,
    tally::Tally,
};

/// Greetings of protocols that scanners try on any port.
const FOREIGN: [&[u8]; 5] = [
    b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
    b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"*1\r\n$4\r\nPING\r\n",
];

struct Noise(Vec<u8>);

pub async fn run(ctx: Arc<AttackContext>, tally: Arc<Tally>) {
    let targets = ctx.clone();
    run_per_connection(ctx, tally, || {
        let endpoint = targets.endpoint();
        let service = if matches!(endpoint, Endpoint::Login(_)) { Service::Login } else { Service::Gateway };
        let opening = preface(service, targets.deployment());
        let mut noise = vec![0; 12 + source::below(2_000)];
        source::fill(&mut noise);
        let bytes = match source::below(4) {
            0 => noise,
            1 => source::pick(&FOREIGN).map_or_else(Vec::new, |foreign| foreign.to_vec()),
            2 => [&opening[..], &noise].concat(),
            _ => [&opening[..], &plain_record(&noise)].concat(),
        };
        Some((endpoint.at(), Noise(bytes)))
    })
    .await;
}

impl ConnectionAttack for Noise {
    async fn execute(self, mut connection: RawConnection, ctx: &AttackContext, tally: &Tally) {
        let end = match connection.send(&self.0).await {
            Ok(()) => match connection.answer(answer_deadline(ctx)).await.0 {
                // The name server answers noise that happens to be a query.
                ConnectionEnd::Answered(_) => connection.end(answer_deadline(ctx)).await,
                end => end,
            },
            Err(_) => ConnectionEnd::Reset,
        };
        count_refusal(tally, &end, &connection, "noise");
    }
}
