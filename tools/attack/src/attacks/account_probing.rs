//! Whether an account exists. Each name is asked for twice, from two addresses: the challenges must look alike for
//! all names, and stay the same for one. Whether the *time* tells is measured by the bench `unknown`, in peace.

use std::sync::Arc;

use shardkeep_client::wire::{opcode, payload::Challenge, preface::Service};

use crate::{
    attempt::{ConnectionAttack, answer_deadline, hello, run_per_connection, unknown_account},
    connection::{ConnectionEnd, RawConnection, preface},
    context::AttackContext,
    source,
    tally::Tally,
};

const GROUP: u32 = 2048;
const SALT: usize = 16;
/// A public number of the group has fewer bytes than this once in 2⁴⁰ times.
const SHORTEST: usize = 252;

struct Probe(String);

pub async fn run(ctx: Arc<AttackContext>, tally: Arc<Tally>) {
    let targets = ctx.clone();
    run_per_connection(ctx, tally, || {
        let name =
            targets.victim().filter(|_| source::below(2) == 0).map_or_else(unknown_account, str::to_owned);
        Some((targets.login()?, Probe(name)))
    })
    .await;
}

impl ConnectionAttack for Probe {
    async fn execute(self, mut connection: RawConnection, ctx: &AttackContext, tally: &Tally) {
        let first = request_challenge(ctx, &mut connection, &self.0).await;
        let second = match ctx.login() {
            Some(login) => match RawConnection::open(login).await {
                Ok(mut connection) => request_challenge(ctx, &mut connection, &self.0).await,
                Err(_) => Err(ConnectionEnd::Reset),
            },
            None => Err(ConnectionEnd::Closed),
        };
        let (first, second) = match (first, second) {
            (Ok(first), Ok(second)) => (first, second),
            (Err(end), _) | (_, Err(end)) => return tally.refused(&end.label()),
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
async fn request_challenge(
    ctx: &AttackContext,
    connection: &mut RawConnection,
    name: &str,
) -> Result<Challenge, ConnectionEnd> {
    let opened = connection.send(&preface(Service::Login, ctx.deployment())).await;
    opened.and(connection.send_message(&hello(name)).await).map_err(|_| ConnectionEnd::Reset)?;
    match connection.answer(answer_deadline(ctx)).await {
        (ConnectionEnd::Answered(opcode::HELLO), Some(message)) => {
            message.decode().map_err(|_| ConnectionEnd::Closed)
        }
        (end, _) => Err(end),
    }
}
