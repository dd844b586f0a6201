//! What was recorded, sent again: an Attach whose ticket is used, a Proof of another conversation, a Resume of a
//! session that goes on elsewhere, and a sealed record of the same connection.

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

use super::{Field, Line, Tally, hello, soon};
use crate::attack::{
    insider::{self, Insider},
    line::{End, plain, preface},
    loopback::Loopback,
    orders::Account,
    pace::Pace,
    source,
};

const SUITES: [u8; 2] = [1, 2];
/// Replays with one session. Nothing is acknowledged to the server, which bears that for a thousand messages.
const OF_ONE: u32 = 400;
/// Before the next try to get a session.
const AGAIN: Duration = Duration::from_secs(1);

/// What an eavesdropper of one player has.
struct Recording {
    insider: Insider,
    attach: Message,
    hello: Message,
    proof: Message,
}

pub async fn run(field: Arc<Field>, tally: Arc<Tally>) {
    let Some(account) = field.accounts().get(1) else { return };
    let (mut pace, mut recording, mut turn) = (field.gentle_pace(), None, 0u32);
    loop {
        let ready = match recording.take() {
            Some(ready) => ready,
            None => match record(&field, account, &pace).await {
                Some(Ok(ready)) => ready,
                Some(Err(error)) => {
                    tally.remark(&format!("nothing to replay: {error:#}"));
                    if !pace.pause(AGAIN).await {
                        return;
                    }
                    continue;
                }
                None => return,
            },
        };
        if !pace.next().await {
            return;
        }
        tally.attempt();
        turn += 1;
        let replayed = replay(&field, &tally, ready, turn).await;
        recording = replayed.filter(|_| turn % OF_ONE != 0);
    }
}

/// `None`: the attack was over before.
async fn record(field: &Field, account: &Account, pace: &Pace) -> Option<Result<Recording>> {
    let recording = async {
        let (hello, proof) = conversation(field, account).await?;
        let (gateway, boarding) = insider::ticket(field, account).await?;
        let mac = SessionProof::attach(&boarding.ticket.key);
        let random = source::random::<32>();
        let opening = preface(Service::Gateway, field.deployment());
        let attach = Attach {
            ticket_id: boarding.ticket.id.0.to_vec(),
            random: random.to_vec(),
            suites: SUITES.map(i32::from).to_vec(),
            mac: mac.client(&opening, &boarding.ticket.id.0, &random, &SUITES).as_bytes().to_vec(),
        };
        let insider = Insider::with_ticket(field, gateway, &boarding).await?;
        Ok(Recording { insider, attach: Message::request(opcode::ATTACH, 1, &attach), hello, proof })
    };
    timeout_at(pace.until(), recording).await.ok()
}

/// A Hello and the right Proof that followed it.
async fn conversation(field: &Field, account: &Account) -> Result<(Message, Message)> {
    let hello = hello(&account.name);
    let mut line = Line::open(field.login().context("no login server")?).await?;
    line.send(&preface(Service::Login, field.deployment())).await?;
    line.say(&hello).await?;
    let (end, answer) = line.answer(soon(field)).await;
    let challenge: Challenge = answer.with_context(|| end.word())?.decode()?;
    let credentials = Credentials::new(AccountName::normalise(&account.name)?, &account.password)?;
    let parameters = Parameters { group: challenge.group, salt: &challenge.salt, b: &challenge.b };
    let answer = credentials.answer(&parameters, &Secret::new(source::random()))?;
    let proof = Proof { a: answer.public().to_vec(), m1: answer.m1().to_vec() };
    Ok((hello, Message::request(opcode::PROOF, 1, &proof)))
}

/// One of the four replays; gives the recording back while its session lives.
async fn replay(field: &Field, tally: &Tally, recording: Recording, turn: u32) -> Option<Recording> {
    let Recording { mut insider, attach, hello, proof } = recording;
    let lives = match turn % 4 {
        0 => {
            let end = ask(field, insider.gateway(), Service::Gateway, &[&attach]).await;
            refused(tally, &end, opcode::ATTACH, "a used ticket");
            true
        }
        1 => {
            let end = match field.login() {
                Some(login) => ask(field, login, Service::Login, &[&hello, &proof]).await,
                None => End::Closed,
            };
            refused(tally, &end, opcode::PROOF, "a proof of another conversation");
            true
        }
        2 => resume_again(field, tally, &mut insider).await,
        _ => sealed_again(field, tally, &mut insider).await,
    };
    lives.then_some(Recording { insider, attach, hello, proof })
}

/// Says these, each after the answer to the one before; the answer to the last.
async fn ask(field: &Field, at: Loopback, service: Service, messages: &[&Message]) -> End {
    let Ok(mut line) = Line::open(at).await else { return End::Reset };
    if line.send(&preface(service, field.deployment())).await.is_err() {
        return End::Reset;
    }
    let mut end = End::Closed;
    for message in messages {
        if line.say(message).await.is_err() {
            return End::Reset;
        }
        end = line.answer(soon(field)).await.0;
        if !matches!(end, End::Answered(_)) {
            break;
        }
    }
    end
}

fn refused(tally: &Tally, end: &End, obeyed: u16, what: &str) {
    match end {
        End::Answered(code) if *code == obeyed => tally.breach(&format!("{what} was taken")),
        End::Open => tally.accepted("still open"),
        end => tally.refused(&end.word()),
    }
}

/// A recorded Resume is answered, as it must be: its sender cannot be told from the player. But without the keys it
/// leads nowhere, and the session must not notice.
async fn resume_again(field: &Field, tally: &Tally, insider: &mut Insider) -> bool {
    let session = insider.established.session;
    let opening = preface(Service::Gateway, field.deployment());
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
    let Ok(mut line) = Line::open(insider.gateway()).await else {
        tally.refused("not opened");
        return true;
    };
    let opened = line.send(&opening).await;
    let _ = opened.and(line.say(&resume).await);
    let first = line.answer(soon(field)).await.0;
    // A sealed record by who has no keys.
    let noise: Vec<u8> = source::random::<64>().to_vec();
    let _ = line.send(&plain(&noise)).await;
    let end = line.end(soon(field)).await;
    let (number, request) = insider.request(opcode::LIST_CHARACTERS, &ListCharacters {});
    let sent = insider.connection.send(&[request]).await;
    match insider.reply(number).await {
        Ok(Some(_)) if sent.is_ok() => {
            tally.refused(&if matches!(first, End::Answered(_)) { end.word() } else { first.word() });
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
async fn sealed_again(field: &Field, tally: &Tally, insider: &mut Insider) -> bool {
    let (number, request) = insider.request(opcode::LIST_CHARACTERS, &ListCharacters {});
    let Ok(record) = insider.connection.seal(&[request]) else { return false };
    let _ = insider.connection.send_bytes(&record).await;
    let _ = insider.connection.send_bytes(&record).await;
    match insider.closes(number).await {
        Some(0 | 1) => tally.refused("closed"),
        Some(_) => tally.breach("a replayed record was obeyed"),
        None => tally.accepted("still open"),
    }
    insider.come_back(field).await.is_ok()
}
