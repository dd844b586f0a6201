//! Helpers of the attacks: one task for each connection, the session of an attacker, and the messages of an honest client.

use std::{sync::Arc, time::Duration};

use shardkeep_client::wire::{Message, opcode, payload::Hello};
use tokio::{task::JoinSet, time::Instant};

use crate::{
    attack_plan::Account,
    connection::{ConnectionEnd, RawConnection, connect_error_label},
    context::AttackContext,
    insider::Insider,
    limiter::AttemptLimiter,
    loopback::Loopback,
    source,
    tally::Tally,
};

/// How long a server may take to answer or refuse what it need not wait for.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Connects to a target and runs the attack on the connection, one task for each attempt.
pub async fn run_per_connection<F>(
    ctx: Arc<AttackContext>,
    tally: Arc<Tally>,
    mut target: impl FnMut() -> Option<(Loopback, F)>,
) where
    F: ConnectionAttack,
{
    let (mut limiter, slots, mut running) = (ctx.limiter(), ctx.slots(), JoinSet::new());
    while limiter.next().await {
        let Some((target, attempt)) = target() else { return };
        let Some(slot) = slots.take(ctx.until()).await else { break };
        while running.try_join_next().is_some() {}
        tally.attempt();
        let (ctx, tally) = (ctx.clone(), tally.clone());
        running.spawn(async move {
            let _slot = slot;
            match RawConnection::open(target).await {
                Ok(connection) => attempt.execute(connection, &ctx, &tally).await,
                Err(error) => tally.refused(connect_error_label(&error)),
            }
        });
    }
    running.join_all().await;
}

/// The part of an attack that uses one connection.
pub trait ConnectionAttack: Send + 'static {
    fn execute(
        self,
        connection: RawConnection,
        ctx: &AttackContext,
        tally: &Tally,
    ) -> impl Future<Output = ()> + Send;
}

/// The session to attack from: the existing one, or a new one. Tries until the attack ends.
pub async fn ensure_session(
    insider: Option<Insider>,
    ctx: &AttackContext,
    account: &Account,
    limiter: &mut AttemptLimiter,
    tally: &Tally,
) -> Option<Insider> {
    if insider.is_some() {
        return insider;
    }
    loop {
        match Insider::attach_session(ctx, account).await {
            Ok(here) => return Some(here),
            Err(error) => tally.remark(&format!("no session to attack from: {error:#}")),
        }
        if !limiter.pause(ANSWER_TIMEOUT / 10).await || !limiter.next().await {
            return None;
        }
    }
}

/// Until when an answer is waited for.
pub fn answer_deadline(ctx: &AttackContext) -> Instant {
    (Instant::now() + ANSWER_TIMEOUT).min(ctx.until())
}

/// Counts an attempt of which anything but a refusal is wrong: what the server answers as it answers the honest.
pub fn count_refusal(tally: &Tally, end: &ConnectionEnd, connection: &RawConnection, attempt_name: &str) {
    match end {
        ConnectionEnd::Answered(_) => {
            tally.breach(&format!("{attempt_name} was answered with {}", end.label()));
        }
        ConnectionEnd::Open => tally.accepted("still open"),
        _ => tally.refused(&end.label()),
    }
    tally.record_duration(connection.age());
}

/// An honest client's first message.
pub fn hello(account: &str) -> Message {
    let hello = Hello {
        account: account.to_owned(),
        suites: vec![1, 2],
        groups: vec![2048],
        random: source::random::<32>().to_vec(),
        client_version: 1_000_000,
        ..Hello::default()
    };
    Message::request(opcode::HELLO, 1, &hello)
}

/// A name that no account has.
pub fn unknown_account() -> String {
    let mut name = String::from("nobody");
    source::random::<6>().iter().for_each(|byte| name.push(char::from(b'a' + byte % 26)));
    name
}
