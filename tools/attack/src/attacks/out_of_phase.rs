//! Every opcode of the table where it does not belong: before anything was said, after a Challenge, at the wrong
//! server, and in a session.

use std::sync::Arc;

use shardkeep_client::wire::{
    Head, Message, opcode,
    opcode::{Phase, RULES, Rule, Sender},
    preface::Service,
};
use tokio::{task::JoinSet, time::Instant};

use crate::{
    attempt::{
        ConnectionAttack, answer_deadline, ensure_session, hello, run_per_connection, unknown_account,
    },
    connection::{ConnectionEnd, RawConnection, preface},
    context::AttackContext,
    insider::Insider,
    source,
    tally::Tally,
};

struct OutOfPhase {
    phase: Phase,
    message: Message,
}

pub async fn run(ctx: Arc<AttackContext>, tally: Arc<Tally>) {
    let mut inside = JoinSet::new();
    inside.spawn(in_a_session(ctx.clone(), tally.clone()));
    let targets = ctx.clone();
    run_per_connection(ctx, tally, || {
        let phase = *source::pick(&[Phase::LoginNew, Phase::LoginChallenged, Phase::GatewayNew])?;
        let target = if phase == Phase::GatewayNew { targets.gateway() } else { targets.login() };
        Some((target?, OutOfPhase { phase, message: misplaced(phase)? }))
    })
    .await;
    inside.join_all().await;
}

/// Some message that a client must not send in this phase.
fn misplaced(phase: Phase) -> Option<Message> {
    let misplaced: Vec<&Rule> =
        RULES.iter().filter(|rule| rule.sender == Sender::Server || !rule.phases.contains(phase)).collect();
    let opcode = source::pick(&misplaced)?.opcode;
    Some(Message::new(opcode, Head::Request(9), bytes::Bytes::new()))
}

impl ConnectionAttack for OutOfPhase {
    async fn execute(self, mut connection: RawConnection, ctx: &AttackContext, tally: &Tally) {
        let Self { phase, message } = self;
        let service = if phase == Phase::GatewayNew { Service::Gateway } else { Service::Login };
        let mut sent = connection.send(&preface(service, ctx.deployment())).await;
        if phase == Phase::LoginChallenged && sent.is_ok() {
            sent = connection.send_message(&hello(&unknown_account())).await;
            let challenge = connection.answer(answer_deadline(ctx)).await.0;
            if challenge != ConnectionEnd::Answered(opcode::HELLO) {
                return tally.refused(&challenge.label());
            }
        }
        let end = match sent.and(connection.send_message(&message).await) {
            Ok(()) => connection.answer(answer_deadline(ctx)).await.0,
            Err(_) => ConnectionEnd::Reset,
        };
        crate::attempt::count_refusal(
            tally,
            &end,
            &connection,
            &format!("{} in phase {phase:?}", opcode::name(message.opcode)),
        );
    }
}

/// In a session each is a strike, and too many end the connection.
async fn in_a_session(ctx: Arc<AttackContext>, tally: Arc<Tally>) {
    let Some(account) = ctx.accounts().get(2) else { return };
    let mut limiter = ctx.session_limiter();
    let mut insider: Option<Insider> = None;
    while limiter.next().await {
        let Some(mut here) = ensure_session(insider.take(), &ctx, account, &mut limiter, &tally).await else {
            return;
        };
        let Some(message) = misplaced(Phase::Session) else { return };
        tally.attempt();
        let (number, sent) = (message.head.request().unwrap_or_default(), Instant::now());
        let answered = match here.connection.send(std::slice::from_ref(&message)).await {
            Ok(()) => here.reply(number).await.ok().flatten(),
            Err(_) => None,
        };
        match answered {
            Some(reply) if reply.opcode != opcode::ERROR => {
                tally.breach(&format!("{} was obeyed in a session", opcode::name(message.opcode)));
            }
            Some(_) => {
                tally.refused("OUT_OF_PHASE");
                insider = Some(here);
            }
            // One strike too many.
            None => {
                tally.record_duration(sent.elapsed());
                tally.refused("closed");
                insider = here.resume_session(&ctx).await.is_ok().then_some(here);
            }
        }
    }
}
