//! Attach and Resume with ids and proofs that are made up.

use std::sync::Arc;

use shardkeep_client::wire::{
    Message, opcode,
    payload::{Attach, Resume},
    preface::Service,
};

use super::{AsyncAttempt, Field, Line, Tally, by_connection, refused_or_breach, soon};
use crate::attack::{
    line::{End, preface},
    source,
};

struct Guess(Message);

pub async fn run(field: Arc<Field>, tally: Arc<Tally>) {
    let doors = field.clone();
    by_connection(field, tally, || Some((doors.gateway()?, Guess(guess())))).await;
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

impl AsyncAttempt for Guess {
    async fn go(self, mut line: Line, field: &Field, tally: &Tally) {
        let opened = line.send(&preface(Service::Gateway, field.deployment())).await;
        let end = match opened.and(line.say(&self.0).await) {
            Ok(()) => line.answer(soon(field)).await.0,
            Err(_) => End::Reset,
        };
        refused_or_breach(tally, &end, &line, "a guess");
    }
}
