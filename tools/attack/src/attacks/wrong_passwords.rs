//! Proofs with made-up values from many addresses. The server needs its exponentiations to refuse them, and honest logins
//! must not suffer.

use std::sync::Arc;

use shardkeep_client::wire::{Message, opcode, payload::Proof, preface::Service};

use crate::{
    attempt::{ConnectionAttack, answer_deadline, count_refusal, hello, run_per_connection, unknown_account},
    connection::{ConnectionEnd, RawConnection, preface},
    context::AttackContext,
    source,
    tally::Tally,
};

struct Guess(String);

pub async fn run(ctx: Arc<AttackContext>, tally: Arc<Tally>) {
    let targets = ctx.clone();
    run_per_connection(ctx, tally, || {
        // Mostly the accounts of the honest players: the attack wins if it locks them out.
        let name =
            targets.victim().filter(|_| source::below(4) > 0).map_or_else(unknown_account, str::to_owned);
        Some((targets.login()?, Guess(name)))
    })
    .await;
}

impl ConnectionAttack for Guess {
    async fn execute(self, mut connection: RawConnection, ctx: &AttackContext, tally: &Tally) {
        let opened = connection.send(&preface(Service::Login, ctx.deployment())).await;
        let challenge = match opened.and(connection.send_message(&hello(&self.0)).await) {
            Ok(()) => connection.answer(answer_deadline(ctx)).await.0,
            Err(_) => ConnectionEnd::Reset,
        };
        if challenge != ConnectionEnd::Answered(opcode::HELLO) {
            count_refusal(tally, &challenge, &connection, "a Hello");
            return;
        }
        // Below the prime of every group, whose first byte is larger.
        let mut a = source::random::<256>();
        a[0] = a[0] & 0x7f | 1;
        let proof = Proof { a: a.to_vec(), m1: source::random::<32>().to_vec() };
        let end = match connection.send_message(&Message::request(opcode::PROOF, 1, &proof)).await {
            Ok(()) => connection.answer(answer_deadline(ctx)).await.0,
            Err(_) => ConnectionEnd::Reset,
        };
        count_refusal(tally, &end, &connection, "a wrong password");
    }
}
