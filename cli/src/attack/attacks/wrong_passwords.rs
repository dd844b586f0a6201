//! Proofs made of nothing, from everywhere: the server must do its exponentiations to find that they are wrong, and
//! nobody else's login may suffer.

use std::sync::Arc;

use shardkeep_client::wire::{Message, opcode, payload::Proof, preface::Service};

use super::{AsyncAttempt, Field, Line, Tally, by_connection, hello, nobody, refused_or_breach, soon};
use crate::attack::{
    line::{End, preface},
    source,
};

struct Guess(String);

pub async fn run(field: Arc<Field>, tally: Arc<Tally>) {
    let doors = field.clone();
    by_connection(field, tally, || {
        // Mostly those who play: whoever can lock them out wins.
        let name = doors.victim().filter(|_| source::below(4) > 0).map_or_else(nobody, str::to_owned);
        Some((doors.login()?, Guess(name)))
    })
    .await;
}

impl AsyncAttempt for Guess {
    async fn go(self, mut line: Line, field: &Field, tally: &Tally) {
        let opened = line.send(&preface(Service::Login, field.deployment())).await;
        let challenge = match opened.and(line.say(&hello(&self.0)).await) {
            Ok(()) => line.answer(soon(field)).await.0,
            Err(_) => End::Reset,
        };
        if challenge != End::Answered(opcode::HELLO) {
            refused_or_breach(tally, &challenge, &line, "a Hello");
            return;
        }
        // Below the prime of every group, whose first byte is larger.
        let mut a = source::random::<256>();
        a[0] = a[0] & 0x7f | 1;
        let proof = Proof { a: a.to_vec(), m1: source::random::<32>().to_vec() };
        let end = match line.say(&Message::request(opcode::PROOF, 1, &proof)).await {
            Ok(()) => line.answer(soon(field)).await.0,
            Err(_) => End::Reset,
        };
        refused_or_breach(tally, &end, &line, "a wrong password");
    }
}
