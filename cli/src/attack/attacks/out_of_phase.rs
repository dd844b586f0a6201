//! Every opcode of the table where it does not belong: before anything was said, after a Challenge, at the wrong
//! server, and in a session.

use std::sync::Arc;

use shardkeep_client::wire::{
    Head, Message, opcode,
    opcode::{Phase, RULES, Rule, Sender},
    preface::Service,
};
use tokio::{task::JoinSet, time::Instant};

use super::{AsyncAttempt, Field, Line, Tally, aboard, by_connection, hello, nobody, soon};
use crate::attack::{
    insider::Insider,
    line::{End, preface},
    source,
};

struct Early {
    phase: Phase,
    message: Message,
}

pub async fn run(field: Arc<Field>, tally: Arc<Tally>) {
    let mut inside = JoinSet::new();
    inside.spawn(in_a_session(field.clone(), tally.clone()));
    let doors = field.clone();
    by_connection(field, tally, || {
        let phase = *source::pick(&[Phase::LoginNew, Phase::LoginChallenged, Phase::GatewayNew])?;
        let target = if phase == Phase::GatewayNew { doors.gateway() } else { doors.login() };
        Some((target?, Early { phase, message: wrong(phase)? }))
    })
    .await;
    inside.join_all().await;
}

/// Some message that a client must not send in this phase.
fn wrong(phase: Phase) -> Option<Message> {
    let wrong: Vec<&Rule> =
        RULES.iter().filter(|rule| rule.sender == Sender::Server || !rule.phases.contains(phase)).collect();
    let opcode = source::pick(&wrong)?.opcode;
    Some(Message::new(opcode, Head::Request(9), bytes::Bytes::new()))
}

impl AsyncAttempt for Early {
    async fn go(self, mut line: Line, field: &Field, tally: &Tally) {
        let Self { phase, message } = self;
        let service = if phase == Phase::GatewayNew { Service::Gateway } else { Service::Login };
        let mut sent = line.send(&preface(service, field.deployment())).await;
        if phase == Phase::LoginChallenged && sent.is_ok() {
            sent = line.say(&hello(&nobody())).await;
            let challenge = line.answer(soon(field)).await.0;
            if challenge != End::Answered(opcode::HELLO) {
                return tally.refused(&challenge.word());
            }
        }
        let end = match sent.and(line.say(&message).await) {
            Ok(()) => line.answer(soon(field)).await.0,
            Err(_) => End::Reset,
        };
        super::refused_or_breach(
            tally,
            &end,
            &line,
            &format!("{} in phase {phase:?}", opcode::name(message.opcode)),
        );
    }
}

/// In a session each is a strike, and too many end the connection.
async fn in_a_session(field: Arc<Field>, tally: Arc<Tally>) {
    let Some(account) = field.accounts().get(2) else { return };
    let mut pace = field.gentle_pace();
    let mut insider: Option<Insider> = None;
    while pace.next().await {
        let Some(mut here) = aboard(insider.take(), &field, account, &mut pace, &tally).await else { return };
        let Some(message) = wrong(Phase::Session) else { return };
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
                tally.held(sent.elapsed());
                tally.refused("closed");
                insider = here.come_back(&field).await.is_ok().then_some(here);
            }
        }
    }
}
