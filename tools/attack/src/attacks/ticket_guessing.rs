//! Attach and Resume with ids and proofs that are made up.

use std::sync::Arc;

use shardkeep_client::wire::{
    Message, opcode,
    payload::{Attach, Resume},
    preface::Service,
};

use crate::{
    attempt::{ConnectionAttack, answer_deadline, count_refusal, run_per_connection},
    connection::{ConnectionEnd, RawConnection, preface},
    context::AttackContext,
    source,
    tally::Tally,
};

struct Guess(Message);

pub async fn run(ctx: Arc<AttackContext>, tally: Arc<Tally>) {
    let targets = ctx.clone();
    run_per_connection(ctx, tally, || Some((targets.gateway()?, Guess(guess())))).await;
}

fn guess() -> Message {
    let (id, random) = (source::random::<16>().to_vec(), source::random::<32>().to_vec());
    let (mac, other, suites) = (source::random::<32>().to_vec(), source::random::<32>().to_vec(), vec![1, 2]);
    if source::below(2) == 0 {
        Message::request(opcode::ATTACH, 1, &Attach { ticket_id: id, random, suites, mac })
    } else {
        let resume = Resume { session_id: id, random, suites, gateway_mac: mac, world_mac: other };
        Message::request(opcode::RESUME, 1, &resume)
    }
}

impl ConnectionAttack for Guess {
    async fn execute(self, mut connection: RawConnection, ctx: &AttackContext, tally: &Tally) {
        let opened = connection.send(&preface(Service::Gateway, ctx.deployment())).await;
        let end = match opened.and(connection.send_message(&self.0).await) {
            Ok(()) => connection.answer(answer_deadline(ctx)).await.0,
            Err(_) => ConnectionEnd::Reset,
        };
        count_refusal(tally, &end, &connection, "a guess");
    }
}
