//! Whether an account exists. Each name is asked for twice, from two addresses: the challenges must look alike for
//! all names, and stay the same for one. Whether the *time* tells is measured by the bench `unknown`, in peace.

use std::sync::Arc;

use shardkeep_client::wire::{opcode, payload::Challenge, preface::Service};

use super::{AsyncAttempt, Field, Line, Tally, by_connection, hello, nobody, soon};
use crate::attack::{
    line::{End, preface},
    source,
};

const GROUP: u32 = 2048;
const SALT: usize = 16;
/// A public number of the group has fewer bytes than this once in 2⁴⁰ times.
const SHORTEST: usize = 252;

struct Probe(String);

pub async fn run(field: Arc<Field>, tally: Arc<Tally>) {
    let doors = field.clone();
    by_connection(field, tally, || {
        let name = doors.victim().filter(|_| source::below(2) == 0).map_or_else(nobody, str::to_owned);
        Some((doors.login()?, Probe(name)))
    })
    .await;
}

impl AsyncAttempt for Probe {
    async fn go(self, mut line: Line, field: &Field, tally: &Tally) {
        let first = ask(field, &mut line, &self.0).await;
        let second = match field.login() {
            Some(login) => match Line::open(login).await {
                Ok(mut line) => ask(field, &mut line, &self.0).await,
                Err(_) => Err(End::Reset),
            },
            None => Err(End::Closed),
        };
        let (first, second) = match (first, second) {
            (Ok(first), Ok(second)) => (first, second),
            (Err(end), _) | (_, Err(end)) => return tally.refused(&end.word()),
        };
        if (first.group, &first.salt) != (second.group, &second.salt) {
            return tally.breach("the challenge of a name changes from one address to the next");
        }
        if first.group != GROUP || first.salt.len() != SALT || first.b.len() < SHORTEST {
            return tally.breach("the challenge of a name looks unlike others");
        }
        tally.accepted("Challenge");
    }
}

/// The challenge of a name, or how it was refused.
async fn ask(field: &Field, line: &mut Line, name: &str) -> Result<Challenge, End> {
    let opened = line.send(&preface(Service::Login, field.deployment())).await;
    opened.and(line.say(&hello(name)).await).map_err(|_| End::Reset)?;
    match line.answer(soon(field)).await {
        (End::Answered(opcode::HELLO), Some(message)) => message.decode().map_err(|_| End::Closed),
        (end, _) => Err(end),
    }
}
