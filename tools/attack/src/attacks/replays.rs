//! Replays of recorded messages: an Attach with a used ticket, a Proof of another handshake, a Resume of a session that
//! continues on another connection, and a sealed record of the same connection.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use shardkeep_auth::{
    AccountName,
    session::Proof as SessionProof,
    srp::{Credentials, Parameters},
};
use shardkeep_client::wire::{
    Message, opcode,
    payload::{Attach, Challenge, ListCharacters, Proof, Resume},
    preface::Service,
};
use shardkeep_types::Secret;
use tokio::time::timeout_at;

use crate::{
    attack_plan::Account,
    attempt::{answer_deadline, hello},
    connection::{ConnectionEnd, RawConnection, plain_record, preface},
    context::AttackContext,
    insider::{self, Insider},
    limiter::AttemptLimiter,
    loopback::Loopback,
    source,
    tally::Tally,
};

const SUITES: [u8; 2] = [1, 2];
/// Replays with one session. Nothing is acknowledged to the server, which bears that for a thousand messages.
const REPLAYS_PER_SESSION: u32 = 400;
/// Before the next try to get a session.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// The messages that an eavesdropper on one player has recorded.
struct Recording {
    insider: Insider,
    attach: Message,
    hello: Message,
    proof: Message,
}

pub async fn run(ctx: Arc<AttackContext>, tally: Arc<Tally>) {
    let Some(account) = ctx.accounts().get(1) else { return };
    let (mut limiter, mut recording, mut turn) = (ctx.session_limiter(), None, 0u32);
    loop {
        let ready = match recording.take() {
            Some(ready) => ready,
            None => match record(&ctx, account, &limiter).await {
                Some(Ok(ready)) => ready,
                Some(Err(error)) => {
                    tally.remark(&format!("nothing to replay: {error:#}"));
                    if !limiter.pause(RETRY_PAUSE).await {
                        return;
                    }
                    continue;
                }
                None => return,
            },
        };
        if !limiter.next().await {
            return;
        }
        tally.attempt();
        turn += 1;
        let replayed = replay(&ctx, &tally, ready, turn).await;
        recording = replayed.filter(|_| turn % REPLAYS_PER_SESSION != 0);
    }
}

/// `None`: the attack was over before.
async fn record(
    ctx: &AttackContext,
    account: &Account,
    limiter: &AttemptLimiter,
) -> Option<Result<Recording>> {
    let recording = async {
        let (hello, proof) = record_login(ctx, account).await?;
        let (gateway, gateway_ticket) = insider::ticket(ctx, account).await?;
        let mac = SessionProof::attach(&gateway_ticket.ticket.key);
        let random = source::random::<32>();
        let opening = preface(Service::Gateway, ctx.deployment());
        let attach = Attach {
            ticket_id: gateway_ticket.ticket.id.0.to_vec(),
            random: random.to_vec(),
            suites: SUITES.map(i32::from).to_vec(),
            mac: mac.client(&opening, &gateway_ticket.ticket.id.0, &random, &SUITES).as_bytes().to_vec(),
        };
        let insider = Insider::with_ticket(ctx, gateway, &gateway_ticket).await?;
        Ok(Recording { insider, attach: Message::request(opcode::ATTACH, 1, &attach), hello, proof })
    };
    timeout_at(limiter.until(), recording).await.ok()
}

/// A Hello and the right Proof that followed it.
async fn record_login(ctx: &AttackContext, account: &Account) -> Result<(Message, Message)> {
    let hello = hello(&account.name);
    let mut connection = RawConnection::open(ctx.login().context("no login server")?).await?;
    connection.send(&preface(Service::Login, ctx.deployment())).await?;
    connection.send_message(&hello).await?;
    let (end, answer) = connection.answer(answer_deadline(ctx)).await;
    let challenge: Challenge = answer.with_context(|| end.label())?.decode()?;
    let credentials = Credentials::new(AccountName::normalise(&account.name)?, &account.password)?;
    let parameters = Parameters { group: challenge.group, salt: &challenge.salt, b: &challenge.b };
    let answer = credentials.answer(&parameters, &Secret::new(source::random()))?;
    let proof = Proof { a: answer.public().to_vec(), m1: answer.m1().to_vec() };
    Ok((hello, Message::request(opcode::PROOF, 1, &proof)))
}

/// One of the four replays; gives the recording back while its session lives.
async fn replay(ctx: &AttackContext, tally: &Tally, recording: Recording, turn: u32) -> Option<Recording> {
    let Recording { mut insider, attach, hello, proof } = recording;
    let session_alive = match turn % 4 {
        0 => {
            let end = send_in_order(ctx, insider.gateway(), Service::Gateway, &[&attach]).await;
            refused(tally, &end, opcode::ATTACH, "a used ticket");
            true
        }
        1 => {
            let end = match ctx.login() {
                Some(login) => send_in_order(ctx, login, Service::Login, &[&hello, &proof]).await,
                None => ConnectionEnd::Closed,
            };
            refused(tally, &end, opcode::PROOF, "a proof of another conversation");
            true
        }
        2 => replay_resume(ctx, tally, &mut insider).await,
        _ => replay_record(ctx, tally, &mut insider).await,
    };
    session_alive.then_some(Recording { insider, attach, hello, proof })
}

/// Says these, each after the answer to the one before; the answer to the last.
async fn send_in_order(
    ctx: &AttackContext,
    at: Loopback,
    service: Service,
    messages: &[&Message],
) -> ConnectionEnd {
    let Ok(mut connection) = RawConnection::open(at).await else { return ConnectionEnd::Reset };
    if connection.send(&preface(service, ctx.deployment())).await.is_err() {
        return ConnectionEnd::Reset;
    }
    let mut end = ConnectionEnd::Closed;
    for message in messages {
        if connection.send_message(message).await.is_err() {
            return ConnectionEnd::Reset;
        }
        end = connection.answer(answer_deadline(ctx)).await.0;
        if !matches!(end, ConnectionEnd::Answered(_)) {
            break;
        }
    }
    end
}

fn refused(tally: &Tally, end: &ConnectionEnd, accepted_opcode: u16, attempt_name: &str) {
    match end {
        ConnectionEnd::Answered(code) if *code == accepted_opcode => {
            tally.breach(&format!("{attempt_name} was taken"));
        }
        ConnectionEnd::Open => tally.accepted("still open"),
        end => tally.refused(&end.label()),
    }
}

/// A recorded Resume is answered, as it must be: its sender cannot be told from the player. But without the keys it
/// leads nowhere, and the session must not notice.
async fn replay_resume(ctx: &AttackContext, tally: &Tally, insider: &mut Insider) -> bool {
    let session = insider.established.session;
    let opening = preface(Service::Gateway, ctx.deployment());
    let random = source::random::<32>();
    let mac =
        |key| SessionProof::resume(key).client(&opening, &session.0, &random, &SUITES).as_bytes().to_vec();
    let keys = &insider.established.keys;
    let resume = Resume {
        session_id: session.0.to_vec(),
        random: random.to_vec(),
        suites: SUITES.map(i32::from).to_vec(),
        gateway_mac: mac(&keys.gateway_resume),
        world_mac: mac(&keys.world_resume),
    };
    let resume = Message::request(opcode::RESUME, 1, &resume);
    let Ok(mut connection) = RawConnection::open(insider.gateway()).await else {
        tally.refused("not opened");
        return true;
    };
    let opened = connection.send(&opening).await;
    let _ = opened.and(connection.send_message(&resume).await);
    let first = connection.answer(answer_deadline(ctx)).await.0;
    // A sealed record made without the keys.
    let noise: Vec<u8> = source::random::<64>().to_vec();
    let _ = connection.send(&plain_record(&noise)).await;
    let end = connection.end(answer_deadline(ctx)).await;
    let (number, request) = insider.request(opcode::LIST_CHARACTERS, &ListCharacters {});
    let sent = insider.connection.send(&[request]).await;
    match insider.reply(number).await {
        Ok(Some(_)) if sent.is_ok() => {
            tally.refused(&if matches!(first, ConnectionEnd::Answered(_)) {
                end.label()
            } else {
                first.label()
            });
            true
        }
        // A busy server is not a disturbed session.
        Ok(None) => {
            tally.accepted("no answer in time");
            false
        }
        _ => {
            tally.breach("a replayed Resume disturbed the session");
            false
        }
    }
}

/// The same sealed record twice: the second does not open, and ends the connection.
async fn replay_record(ctx: &AttackContext, tally: &Tally, insider: &mut Insider) -> bool {
    let (number, request) = insider.request(opcode::LIST_CHARACTERS, &ListCharacters {});
    let Ok(record) = insider.connection.seal(&[request]) else { return false };
    let _ = insider.connection.send_bytes(&record).await;
    let _ = insider.connection.send_bytes(&record).await;
    match insider.wait_for_close(number).await {
        Some(0 | 1) => tally.refused("closed"),
        Some(_) => tally.breach("a replayed record was obeyed"),
        None => tally.accepted("still open"),
    }
    insider.resume_session(ctx).await.is_ok()
}
